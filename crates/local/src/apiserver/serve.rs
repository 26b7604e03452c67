//! TLS on the region's address, HTTP/1.1 and 2.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Error, Server};

/// How long open requests may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(2);
/// A client that does not complete its handshake in this time is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);

fn acceptor(chain_file: &Path, key_file: &Path) -> Result<TlsAcceptor, Error> {
    let bad = |file: &Path, error: &dyn std::fmt::Display| Error::Pki {
        path: file.display().to_string(),
        error: error.to_string(),
    };
    let chain = CertificateDer::pem_file_iter(chain_file).map_err(|e| bad(chain_file, &e))?;
    let chain: Vec<CertificateDer<'static>> = chain.collect::<Result<_, _>>().map_err(|e| bad(chain_file, &e))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|e| bad(key_file, &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(chain_file, &e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| bad(chain_file, &e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Server {
    /// Serves until `shutdown` is ready, then ends watches, lets other requests end, and returns.
    ///
    /// # Errors
    /// The address is taken, or certificate or key cannot be read. Trying again helps once that is mended.
    pub async fn serve(&self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let address = self.app.config.address;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| Error::Bind { address, error })?;
        self.serve_on(listener, shutdown).await
    }

    /// Like [`Server::serve`], on a socket that listens already.
    ///
    /// # Errors
    /// Certificate or key cannot be read.
    pub async fn serve_on(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        let acceptor = acceptor(&self.app.config.tls_cert, &self.app.config.tls_key)?;
        let router = self.router();
        let graceful = GracefulShutdown::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of file descriptors, as a rule: others will be closed.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = &mut shutdown => break,
            };
            let _ = stream.set_nodelay(true);
            let watcher = graceful.watcher();
            tokio::spawn(connection(stream, acceptor.clone(), router.clone(), watcher));
        }
        drop(listener);
        self.app.stop.cancel();
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
        Ok(())
    }
}

async fn connection(
    stream: tokio::net::TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        return;
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30));
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1000);
    let served = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router))
        .into_owned();
    if let Err(error) = watcher.watch(served).await {
        tracing::debug!(%error, "a connection ended badly");
    }
}
