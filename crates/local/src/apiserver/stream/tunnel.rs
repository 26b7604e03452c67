//! SPDY connections: any number of forwarded connections over one stream of bytes.
//!
//! A forwarded connection is a pair of streams with the same `requestid`: `error`, which carries nothing or a message, and
//! `data`. Both end when the pod has said everything, or when the client resets the `data` stream.

use std::collections::HashMap;
use std::pin::pin;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Target;
use crate::machinery::spdy::{self, Decoder, Frame};

/// How many frames may wait for a slow side before the other is not read any more.
const WAITING: usize = 16;
/// How many streams one connection may have open.
const STREAMS: usize = 2000;

/// A `data` stream's input; dropping it ends its connection at once.
struct Open {
    input: Option<mpsc::Sender<Bytes>>,
    _guard: DropGuard,
}

struct Connection {
    target: Target,
    out: mpsc::Sender<Vec<u8>>,
    replied: bool,
    /// `error` streams that wait for their `data` stream, by request.
    errors: HashMap<String, u32>,
    open: HashMap<u32, Open>,
    tasks: JoinSet<u32>,
}

/// Serves over the messages of a WebSocket, whose borders mean nothing.
pub(super) async fn serve_in(socket: WebSocket, target: Target) {
    let (near, far) = tokio::io::duplex(2 * spdy::MAX_DATA);
    let (mut reader, mut writer) = tokio::io::split(near);
    let (mut sink, mut messages) = socket.split();
    let inward = async {
        while let Some(Ok(message)) = messages.next().await {
            match message {
                Message::Binary(bytes) if writer.write_all(&bytes).await.is_err() => break,
                Message::Close(_) => break,
                _ => {}
            }
        }
        let _ = writer.shutdown().await;
        std::future::pending::<()>().await;
    };
    let outward = async {
        let mut buffer = vec![0; spdy::MAX_DATA];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            let message = Message::Binary(Bytes::copy_from_slice(&buffer[..count]));
            if sink.send(message).await.is_err() {
                break;
            }
        }
        let _ = sink.close().await;
    };
    tokio::select! {
        () = inward => {}
        _ = futures::future::join(outward, serve(far, target)) => {}
    }
}

/// Serves until the client ends the connection or says something that is not SPDY.
pub(super) async fn serve(stream: impl AsyncRead + AsyncWrite, target: Target) {
    let (reader, writer) = tokio::io::split(stream);
    let (out, frames) = mpsc::channel(WAITING);
    let connection = Connection {
        target,
        out,
        replied: false,
        errors: HashMap::new(),
        open: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let writing = pin!(write(writer, frames));
    let reading = pin!(connection.read(reader));
    let _ = futures::future::select(writing, reading).await;
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

impl Connection {
    async fn read(mut self, mut reader: impl AsyncRead + Unpin) {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; spdy::MAX_DATA];
        loop {
            let count = tokio::select! {
                count = reader.read(&mut buffer) => count.unwrap_or(0),
                Some(done) = self.tasks.join_next() => {
                    if let Ok(stream) = done {
                        self.open.remove(&stream);
                    }
                    continue;
                }
            };
            if count == 0 {
                return;
            }
            decoder.feed(&buffer[..count]);
            loop {
                match decoder.next() {
                    Ok(None) => break,
                    Ok(Some(Frame::GoAway)) => return,
                    Ok(Some(frame)) => self.take(frame).await,
                    Err(error) => {
                        tracing::debug!(%error, "a port-forward ended");
                        return;
                    }
                }
            }
        }
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Open { stream, headers, .. } => self.opened(stream, &headers).await,
            Frame::Data { stream, bytes, end } => {
                let Some(open) = self.open.get_mut(&stream) else { return };
                if let Some(input) = open.input.as_ref().filter(|_| !bytes.is_empty()) {
                    let _ = input.send(bytes).await;
                }
                if end {
                    open.input = None;
                }
            }
            Frame::Reset { stream } => {
                self.open.remove(&stream);
                self.errors.retain(|_, error| *error != stream);
            }
            Frame::Ping { id } => self.send(spdy::ping(id)).await,
            Frame::GoAway => {}
        }
    }

    async fn send(&self, frame: Vec<u8>) {
        let _ = self.out.send(frame).await;
    }

    async fn opened(&mut self, stream: u32, headers: &[(String, String)]) {
        let header = |name: &str| {
            let found = headers.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let request = header("requestid");
        let full = self.errors.len() + self.open.len() >= STREAMS;
        let port = header("port").parse().ok().filter(|port| *port != 0);
        let (Some(port), false) = (port, full) else {
            return self.send(spdy::reset(stream)).await;
        };
        match header("streamtype") {
            "error" => {
                self.accept(stream).await;
                self.errors.insert(request.to_owned(), stream);
            }
            "data" => {
                let Some(error) = self.errors.remove(request) else {
                    return self.send(spdy::reset(stream)).await;
                };
                self.accept(stream).await;
                self.start(stream, error, port);
            }
            _ => self.send(spdy::reset(stream)).await,
        }
    }

    async fn accept(&mut self, stream: u32) {
        let first = !std::mem::replace(&mut self.replied, true);
        self.send(spdy::reply(stream, first)).await;
    }

    fn start(&mut self, data: u32, error: u32, port: u16) {
        let (input, received) = mpsc::channel(WAITING);
        let ended = CancellationToken::new();
        let (target, out) = (self.target.clone(), self.out.clone());
        let open = Open {
            input: Some(input),
            _guard: ended.clone().drop_guard(),
        };
        self.open.insert(data, open);
        self.tasks.spawn(async move {
            let message = ended
                .run_until_cancelled(carry(&target, port, data, received, &out))
                .await;
            let message = message.and_then(Result::err).unwrap_or_default();
            let _ = out.send(spdy::data(data, &[], true)).await;
            let _ = out.send(spdy::data(error, message.as_bytes(), true)).await;
            data
        });
    }
}

/// Carries both directions until the pod has said everything.
async fn carry(
    target: &Target,
    port: u16,
    stream: u32,
    mut input: mpsc::Receiver<Bytes>,
    out: &mpsc::Sender<Vec<u8>>,
) -> Result<(), String> {
    let (mut reader, mut writer) = target.connect(port).await?.into_split();
    let inward = async {
        while let Some(bytes) = input.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
        std::future::pending::<()>().await;
    };
    let outward = async {
        let mut buffer = vec![0; spdy::MAX_DATA];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            if out.send(spdy::data(stream, &buffer[..count], false)).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
    Ok(())
}
