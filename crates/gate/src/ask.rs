//! The gate's link to its agent: HTTP/1.1 over TLS, to the one authority that the agent's certificate is signed by.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::wire::{Answer, Ask, Closed, MAX_BYTES};

/// Why the agent did not answer. All are worth trying again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the agent wrote into the gate's directory is not there (yet), or is damaged.
    #[error(
        "{path}: {reason}; the region's agent writes it as a Secret of the application: see that the pod mounts it"
    )]
    Directory {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No connection.
    #[error("the agent at {agent} cannot be reached: {source}")]
    Connect {
        /// Where it should be.
        agent: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the agent did not answer: {0}")]
    Broken(#[from] hyper::Error),
    /// The answer is none of the protocol.
    #[error("the agent answered {status}: {text}")]
    Answer {
        /// The status.
        status: u16,
        /// What was said.
        text: String,
    },
    /// It took too long.
    #[error("the agent did not answer within {0:?}")]
    Late(Duration),
}

/// What the agent writes for a gate: `agent`, the `HOST:PORT` where it is asked; `ca.crt`; `token`.
struct Directory {
    agent: String,
    roots: rustls::RootCertStore,
    token: String,
}

impl Directory {
    fn read(directory: &Path) -> Result<Self, Error> {
        let fault = |name: &str, reason: String| Error::Directory {
            path: directory.join(name),
            reason,
        };
        let text = |name: &str| {
            let text = std::fs::read_to_string(directory.join(name)).map_err(|error| fault(name, error.to_string()))?;
            match text.trim() {
                "" => Err(fault(name, "it is empty".into())),
                text => Ok(text.to_owned()),
            }
        };
        let mut roots = rustls::RootCertStore::empty();
        let file = directory.join("ca.crt");
        let found = CertificateDer::pem_file_iter(&file).map_err(|error| fault("ca.crt", error.to_string()))?;
        for certificate in found {
            let certificate = certificate.map_err(|error| fault("ca.crt", error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| fault("ca.crt", error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(fault("ca.crt", "there is no certificate in it".into()));
        }
        Ok(Self {
            agent: text("agent")?,
            roots,
            token: text("token")?,
        })
    }
}

/// A link that is made anew whenever it broke.
pub struct Link {
    directory: PathBuf,
    made: Option<Made>,
}

struct Made {
    host: String,
    token: String,
    requests: SendRequest<Full<Bytes>>,
}

impl Link {
    /// A link by what is in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            made: None,
        }
    }

    /// Asks for a grant.
    ///
    /// # Errors
    /// When no answer came within `patience`.
    pub async fn ask(&mut self, ask: &Ask, patience: Duration) -> Result<Answer, Error> {
        let body = self.post("/v1/grant", ask, patience).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Answer {
            status: 200,
            text: error.to_string(),
        })
    }

    /// Says that the writer has ended.
    ///
    /// # Errors
    /// When that was not heard within `patience`; then the agent waits until what it granted is over.
    pub async fn closed(&mut self, closed: &Closed, patience: Duration) -> Result<(), Error> {
        self.post("/v1/closed", closed, patience).await.map(drop)
    }

    async fn post(&mut self, path: &str, body: &impl Serialize, patience: Duration) -> Result<Bytes, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Answer {
            status: 0,
            text: error.to_string(),
        })?;
        // A connection is kept only when it was used to the end.
        let made = self.made.take();
        let posted = tokio::time::timeout(patience, async {
            let mut made = match made.filter(|made| made.requests.is_ready()) {
                Some(made) => made,
                None => connect(&self.directory).await?,
            };
            let answer = send(&mut made, path, body).await?;
            Ok::<_, Error>((made, answer))
        });
        let (made, answer) = posted.await.map_err(|_| Error::Late(patience))??;
        self.made = Some(made);
        Ok(answer)
    }
}

async fn connect(directory: &Path) -> Result<Made, Error> {
    let Directory { agent, roots, token } = Directory::read(directory)?;
    let fault = |source| Error::Connect {
        agent: agent.clone(),
        source,
    };
    let (host, _) = agent
        .rsplit_once(':')
        .ok_or_else(|| fault(io::Error::other("expected HOST:PORT")))?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| fault(io::Error::other(error)))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(io::Error::other(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(&agent).await.map_err(fault)?;
    let _ = stream.set_nodelay(true);
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(fault)?;
    let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(Made {
        host: agent,
        token,
        requests,
    })
}

async fn send(made: &mut Made, path: &str, body: Vec<u8>) -> Result<Bytes, Error> {
    let request = http::Request::post(path)
        .header(http::header::HOST, &made.host)
        .header(http::header::AUTHORIZATION, format!("Bearer {}", made.token))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::from(body));
    let answer = |status: u16, text: String| Error::Answer { status, text };
    let request = request.map_err(|error| answer(0, error.to_string()))?;
    made.requests.ready().await?;
    let response = made.requests.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    let body = body
        .map_err(|error| answer(status.as_u16(), error.to_string()))?
        .to_bytes();
    if status.is_success() {
        Ok(body)
    } else {
        Err(answer(
            status.as_u16(),
            String::from_utf8_lossy(&body).trim().to_owned(),
        ))
    }
}
