//! The peer link: HTTP over mutual TLS between agents, and between agents and the witness.
//!
//! Both ends show a certificate of the installation's own authority. The name of the one that asks is taken from its
//! certificate and given to the handlers as [`PeerName`]; nothing in a request can change it.

mod credentials;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{CertificateError, ServerConfig, pki_types::CertificateDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use credentials::{Credentials, LOOK, Look};

use crate::pass_on::Way;

/// Who asks, by the common name in its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerName(pub String);

/// A peer link that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A certificate or key cannot be used.
    #[error(
        "{file}: {reason}; make the certificates anew, with `leeward join rotate`, for a local instance with `leeward down` and `leeward up`"
    )]
    Credentials {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; stop what uses it, or choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A handshake that takes longer is broken off.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Serves `router` on the peer link until `stop`.
pub async fn serve_on(listener: TcpListener, credentials: &Credentials, router: Router, stop: CancellationToken) {
    serve_acting(listener, credentials, router, None, stop).await;
}

/// The same; what belongs to another replica goes there on its way.
pub async fn serve_acting(
    listener: TcpListener,
    credentials: &Credentials,
    router: Router,
    way: impl Into<Option<Way>>,
    stop: CancellationToken,
) {
    let named = move |chain: Option<&[CertificateDer<'_>]>| {
        let name = common_name(chain?.first()?)?;
        Some(router.clone().layer(Extension(PeerName(name))))
    };
    let credentials = credentials.clone();
    accept(listener, move || credentials.mutual(), named, way.into(), stop).await;
}

/// Serves `router` with the same certificate to whoever asks, until `stop`; what belongs to another replica goes there on its way.
pub async fn serve_all(
    listener: TcpListener,
    credentials: &Credentials,
    router: Router,
    way: impl Into<Option<Way>>,
    stop: CancellationToken,
) {
    let credentials = credentials.clone();
    let config = move || credentials.open();
    accept(listener, config, move |_| Some(router.clone()), way.into(), stop).await;
}

/// Accepts until `stop`, each connection by the configuration of that moment. `router` answers, by the certificates that the other end showed.
async fn accept(
    listener: TcpListener,
    config: impl Fn() -> Arc<ServerConfig>,
    router: impl Fn(Option<&[CertificateDer<'_>]>) -> Option<Router> + Clone + Send + 'static,
    way: Option<Way>,
    stop: CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of file descriptors, or a connection that was gone already: the next one may do better.
                Err(error) => {
                    tracing::warn!(%error, "a peer could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, router, way, stop) = (TlsAcceptor::from(config()), router.clone(), way.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve_one(stream, &acceptor, router, way.as_ref()) => {}
            }
        });
    }
}

/// Serves one connection, here or by the replica that acts, until it ends.
async fn serve_one(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    router: impl Fn(Option<&[CertificateDer<'_>]>) -> Option<Router>,
    way: Option<&Way>,
) {
    let stream = match way {
        None => stream,
        Some(way) => match way.take(stream, HANDSHAKE).await {
            Ok(Some(stream)) => stream,
            Ok(None) => return,
            Err(refused) => return tracing::debug!(%refused, "a connection was not passed on"),
        },
    };
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        // The other end went away before it had said who it is.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a connection was refused: {}", refusal(&error));
            return;
        }
        Err(_) => return,
    };
    let Some(router) = router(stream.get_ref().1.peer_certificates()) else {
        return;
    };
    let service = TowerToHyperService::new(router);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let moved_away = async {
        match way {
            Some(way) => way.moved_away().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = moved_away => {}
        // The other end went away, which it may at any time.
        _ = connection => {}
    }
}

/// What is wrong with a connection whose handshake failed, and what to do.
fn refusal(error: &std::io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => {
            "the certificate of who asked has ended: make a new one with `leeward join rotate`, and apply it where it is shown; no restart is \
             needed"
        }
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        )) => "the certificate of who asked counts only later: look whether the clocks are right",
        Some(rustls::Error::AlertReceived(_)) => {
            "who asked does not take the certificate that is shown here: see its log, and when this one ends"
        }
        _ => "its certificate is not of this installation",
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_connection_was_refused_is_told_with_what_to_do() {
        let of = |error: rustls::Error| refusal(&std::io::Error::new(std::io::ErrorKind::InvalidData, error));
        let invalid = rustls::Error::InvalidCertificate;
        assert!(of(invalid(CertificateError::Expired)).contains("`leeward join rotate`"));
        assert!(of(invalid(CertificateError::NotValidYet)).contains("clocks"));
        assert!(of(invalid(CertificateError::UnknownIssuer)).contains("not of this installation"));
    }
}
