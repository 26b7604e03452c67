//! The HTTP edge of a cluster: accepts connections and answers each request by the table.
//!
//! Flow of a request: `framing` refuses what two servers could read differently; `request` cleans it; `forward`
//! picks endpoints and tries them through `origin`; `pass` looks once more whether this region may still answer
//! before the head, each part of the body and each write go out.
//!
//! Limits: connections are bounded (more wait in the kernel's queue), a head must arrive within a time and size, and
//! bodies are streamed, never held whole but for small ones of requests that are not safe to repeat.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Shared, counters::count};

mod answer;
mod body;
mod connection;
mod forward;
mod framing;
mod origin;
mod pass;
mod request;

use connection::Connection;
use forward::Forwarder;
pub(crate) use origin::causes;

/// What a connection of HTTP/2 begins with (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the edge bounds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections served at once; further ones wait to be accepted.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// How long a client may take to send a head, the wait on an idle connection included.
    pub head_timeout: Duration,
    /// How long a connection to a pod or another edge may take to open.
    pub connect_timeout: Duration,
    /// How long requests in flight may go on after the edge was told to stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            head_bytes: 32 << 10,
            head_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_millis(250),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Why an edge could not start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The address is taken or not this machine's. Worth a retry only after it was freed.
    #[error(
        "the edge cannot listen on {address}: {error}. Stop what uses it (see `ss -ltnp`), or give another address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// The edge, listening but not yet serving.
pub struct Edge {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    forwarder: Arc<Forwarder>,
}

impl Edge {
    /// Listens on an address. Clients that connect wait until [`Edge::serve`] is called.
    ///
    /// # Errors
    /// [`EdgeError::Listen`].
    pub async fn bind(address: SocketAddr, limits: Limits, shared: Arc<Shared>) -> Result<Self, EdgeError> {
        let refuse = |error| EdgeError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(refuse)?;
        let address = listener.local_addr().map_err(refuse)?;
        let forwarder = Arc::new(Forwarder::new(shared, &limits));
        Ok(Self {
            listener,
            address,
            limits,
            forwarder,
        })
    }

    /// The address that it listens on, with the port that the system chose if it was asked to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then accepts nothing more, lets requests in flight end within the drain timeout, and
    /// returns.
    pub async fn serve(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let connections = TaskTracker::new();
        let abort = CancellationToken::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, peer, place)) => {
                    let (forwarder, limits) = (self.forwarder.clone(), self.limits.clone());
                    let (stop, abort) = (stop.clone(), abort.clone());
                    connections.spawn(async move {
                        let _place = place;
                        tokio::select! {
                            () = abort.cancelled() => {}
                            () = serve_connection(stream, peer, forwarder, &limits, stop) => {}
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: let connections end before the next try.
                    tracing::warn!(%error, "the edge could not accept a connection");
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
        drop(self.listener);
        connections.close();
        if timeout(self.limits.drain_timeout, connections.wait()).await.is_err() {
            abort.cancel();
            connections.wait().await;
        }
    }
}

type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<Accepted> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Fails when the client has gone already, which serving it finds out.
    let _ = stream.set_nodelay(true);
    Ok((stream, peer, place))
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    forwarder: Arc<Forwarder>,
    limits: &Limits,
    stop: CancellationToken,
) {
    let _open = forwarder.shared().counters().connection();
    let http2 = tokio::select! {
        () = stop.cancelled() => return,
        first = timeout(limits.head_timeout, speaks_http2(&stream)) => match first {
            Ok(Ok(http2)) => http2,
            _ => return,
        },
    };
    let (io, passes) = Connection::new(stream, !http2);
    let service = service_fn(|request| {
        let (forwarder, passes) = (forwarder.clone(), passes.clone());
        async move { Ok::<_, Infallible>(forwarder.answer(request, peer, &passes).await) }
    });
    // An error here is the client's: it went away, broke the protocol, or was cut off on purpose.
    let result = if http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(128)
            .keep_alive_interval(limits.head_timeout);
        let connection = builder.serve_connection(TokioIo::new(io), service);
        drain(connection, |c| c.graceful_shutdown(), stop).await
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_header_size(limits.head_bytes)
            .max_buf_size(limits.head_bytes + (8 << 10));
        let connection = builder.serve_connection(TokioIo::new(io), service);
        drain(connection, |c| c.graceful_shutdown(), stop).await
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

/// Runs a connection to its end; after `stop`, to the end of the requests in flight.
async fn drain<C: Future>(
    connection: C,
    finish: impl FnOnce(std::pin::Pin<&mut C>),
    stop: CancellationToken,
) -> C::Output {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
    }
    finish(connection.as_mut());
    connection.await
}

/// Whether a client opens with the preface of HTTP/2. One that sends part of it and waits is not served.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0u8; HTTP2_PREFACE.len()];
    let length = stream.peek(&mut first).await?;
    match &first[..length] {
        [] => Err(io::ErrorKind::UnexpectedEof.into()),
        start if start == HTTP2_PREFACE => Ok(true),
        start if start.starts_with(b"PRI ") => Err(io::ErrorKind::InvalidData.into()),
        _ => Ok(false),
    }
}

impl crate::Counters {
    /// Counts a connection in now, and out when what it returns is dropped.
    fn connection(&self) -> impl Drop {
        struct Open<'a>(&'a crate::Counters);
        impl Drop for Open<'_> {
            fn drop(&mut self) {
                self.0
                    .open_connections
                    .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        count(&self.connections);
        count(&self.open_connections);
        Open(self)
    }
}
