//! Port-forward as kube-rs speaks it: two channels of a WebSocket for each port, the first for data, the second for an error.
//!
//! A message begins with the number of its channel. The first on each channel is the port's number.

use axum::extract::ws::{Message, WebSocket};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Target;
use crate::machinery::spdy::MAX_DATA;

const WAITING: usize = 16;
/// Channels are numbered with a byte, and kubelets take no more either.
const MAX_PORTS: usize = 127;

/// The ports of a request's query.
pub(super) fn ports<'a>(asked: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, String> {
    let ports: Vec<u16> = asked
        .flat_map(|list| list.split(','))
        .map(|port| port.trim().parse().ok().filter(|port| *port != 0))
        .collect::<Option<_>>()
        .ok_or("\"ports\" must be numbers between 1 and 65535")?;
    match ports.len() {
        0 => Err("query parameter \"ports\" is required".into()),
        1..=MAX_PORTS => Ok(ports),
        _ => Err(format!("at most {MAX_PORTS} ports")),
    }
}

/// Serves until the client closes the socket or every port is done.
pub(super) async fn serve(socket: WebSocket, target: Target, ports: Vec<u16>) {
    let (mut sink, mut messages) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<Bytes>(WAITING);
    let mut inputs = Vec::new();
    let mut tasks = JoinSet::new();
    for (channel, port) in (0_u8..).step_by(2).zip(ports) {
        let (input, received) = mpsc::channel(WAITING);
        inputs.push(input);
        tasks.spawn(carry(target.clone(), channel, port, received, out.clone()));
    }
    drop(out);
    let outward = async {
        while let Some(bytes) = outgoing.recv().await {
            if sink.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    let inward = async {
        while let Some(Ok(message)) = messages.next().await {
            match message {
                Message::Binary(mut bytes) if bytes.len() > 1 => {
                    let channel = usize::from(bytes.split_to(1)[0]);
                    if let Some(input) = inputs.get(channel / 2).filter(|_| channel.is_multiple_of(2)) {
                        let _ = input.send(bytes).await;
                    }
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = outward => {}
        () = inward => {}
    }
}

fn message(channel: u8, bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.extend_from_slice(&[channel]);
    message.extend_from_slice(bytes);
    message.freeze()
}

async fn carry(target: Target, channel: u8, port: u16, mut input: mpsc::Receiver<Bytes>, out: mpsc::Sender<Bytes>) {
    let error = channel + 1;
    for channel in [channel, error] {
        let _ = out.send(message(channel, &port.to_le_bytes())).await;
    }
    let (mut reader, mut writer) = match target.connect(port).await {
        Ok(stream) => stream.into_split(),
        Err(why) => {
            let _ = out.send(message(error, why.as_bytes())).await;
            return;
        }
    };
    let inward = async {
        while let Some(bytes) = input.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let outward = async {
        let mut buffer = vec![0; MAX_DATA];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            if out.send(message(channel, &buffer[..count])).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}
