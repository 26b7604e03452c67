//! The peer link: HTTP over mutual TLS between agents, and between agents and the witness.
//!
//! Both ends show a certificate of the installation's own authority. The name of the one that asks is taken from its
//! certificate and given to the handlers as [`PeerName`]; nothing in a request can change it.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Who asks, by the common name in its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerName(pub String);

/// A peer link that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A certificate or key cannot be used.
    #[error("{file}: {reason}; make the certificates anew, for a local instance with `leeward down` and `leeward up`")]
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

/// What one end needs to prove itself and to know the others.
pub struct Credentials {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Reads them from PEM files.
    ///
    /// # Errors
    /// When a file cannot be read or does not hold what it should.
    pub fn read(ca: &Path, cert: &Path, key: &Path) -> Result<Self, PeerError> {
        let error = |file: &Path, reason: String| PeerError::Credentials {
            file: file.display().to_string(),
            reason,
        };
        let certificates = |file: &Path| -> Result<Vec<_>, PeerError> {
            CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|e| error(file, e.to_string()))
        };
        let mut roots = RootCertStore::empty();
        for root in certificates(ca)? {
            roots.add(root).map_err(|e| error(ca, e.to_string()))?;
        }
        let chain = certificates(cert)?;
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| error(key, e.to_string()))?;
        Ok(Self {
            roots: Arc::new(roots),
            chain,
            key: key_der,
        })
    }

    fn server(&self) -> Result<ServerConfig, rustls::Error> {
        let verifier = WebPkiClientVerifier::builder(Arc::clone(&self.roots))
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// A client that shows this certificate and trusts only peers of the same authority.
    ///
    /// # Errors
    /// When certificate and key do not belong together.
    pub fn client(&self) -> Result<reqwest::Client, PeerError> {
        let error = |reason: String| PeerError::Credentials {
            file: "the peer certificate".into(),
            reason,
        };
        let mut config = ClientConfig::builder()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|e| error(e.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .connect_timeout(Duration::from_millis(500))
            .pool_idle_timeout(Duration::from_secs(60))
            .no_proxy()
            .build()
            .map_err(|e| error(e.to_string()))
    }
}

/// Serves `router` on the peer link until `stop`.
///
/// # Errors
/// When the address cannot be listened on or the credentials cannot be used.
pub async fn serve(
    address: SocketAddr,
    credentials: &Credentials,
    router: Router,
    stop: CancellationToken,
) -> Result<(), PeerError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| PeerError::Listen { address, source })?;
    serve_on(listener, credentials, router, stop).await
}

/// Serves `router` on a listener until `stop`.
///
/// # Errors
/// When the credentials cannot be used.
pub async fn serve_on(
    listener: TcpListener,
    credentials: &Credentials,
    router: Router,
    stop: CancellationToken,
) -> Result<(), PeerError> {
    let config = credentials.server().map_err(of_certificate)?;
    let named = move |chain: Option<&[CertificateDer<'_>]>| {
        let name = common_name(chain?.first()?)?;
        Some(router.clone().layer(Extension(PeerName(name))))
    };
    accept(listener, config, named, stop).await;
    Ok(())
}

/// Serves `router` with the same certificate to whoever asks, until `stop`.
///
/// # Errors
/// When the credentials cannot be used.
pub async fn serve_all(
    listener: TcpListener,
    credentials: &Credentials,
    router: Router,
    stop: CancellationToken,
) -> Result<(), PeerError> {
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(of_certificate)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    accept(listener, config, move |_| Some(router.clone()), stop).await;
    Ok(())
}

fn of_certificate(error: rustls::Error) -> PeerError {
    PeerError::Credentials {
        file: "the peer certificate".into(),
        reason: error.to_string(),
    }
}

/// Accepts until `stop`. `router` answers, by the certificates that the other end showed.
async fn accept(
    listener: TcpListener,
    config: ServerConfig,
    router: impl Fn(Option<&[CertificateDer<'_>]>) -> Option<Router> + Clone + Send + 'static,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
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
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        tokio::spawn(async move {
            let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                // The other end went away before it had said who it is.
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a connection was refused: its certificate is not of this installation");
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
            tokio::select! {
                () = stop.cancelled() => {}
                // The other end went away, which it may at any time.
                _ = connection => {}
            }
        });
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}
