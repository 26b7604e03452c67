//! Reads manifests and blobs from the region's registry, and believes nothing that it has not hashed.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::{Error, Reference};

/// As large as a manifest may be (the distribution specification's suggestion).
const MAX_MANIFEST: usize = 4 << 20;
/// How long the registry may say nothing; it may be fetching the image from another region.
const SILENCE: Duration = Duration::from_secs(30);

/// The registry of the region, by plain HTTP on a loopback address.
pub(super) struct Registry {
    base: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Registry {
    pub(super) fn new(base: &str) -> Result<Self, Error> {
        let base = base.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") {
            return Err(Error::Registry(format!("{base} is not an http:// address")));
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(5))
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(connector);
        Ok(Self { base, client })
    }

    /// The manifest or index of `selector` (a tag or digest) with its digest.
    pub(super) async fn manifest(&self, reference: &Reference, selector: &str) -> Result<(Bytes, String), Error> {
        let what = format!("manifest {selector}");
        let body = self.get(reference, "manifests", selector, &what).await?;
        let collected = tokio::time::timeout(SILENCE, Limited::new(body, MAX_MANIFEST).collect()).await;
        let bytes = match collected {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) => return Err(Error::Registry(format!("the manifest of {reference}: {error}"))),
            Err(_) => return Err(Error::Registry(format!("no answer for the manifest of {reference}"))),
        };
        let found = digest(Sha256::digest(&bytes).as_slice());
        if selector.starts_with("sha256:") && selector != found {
            return Err(Error::Digest {
                what: format!("the manifest of {reference}"),
                wanted: selector.to_owned(),
                found,
            });
        }
        Ok((bytes, found))
    }

    /// Writes the blob to `file`; the file is good only when this succeeds.
    pub(super) async fn blob(&self, reference: &Reference, wanted: &str, file: &Path) -> Result<(), Error> {
        let mut body = self.get(reference, "blobs", wanted, &format!("blob {wanted}")).await?;
        let mut output = tokio::fs::File::create(file).await?;
        let mut hash = Sha256::new();
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame())
                .await
                .map_err(|_| Error::Registry(format!("the registry stopped sending blob {wanted}")))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| Error::Registry(format!("blob {wanted}: {error}")))?;
            if let Ok(data) = frame.into_data() {
                hash.update(&data);
                output.write_all(&data).await?;
            }
        }
        output.flush().await?;
        let found = digest(hash.finalize().as_slice());
        if found == wanted {
            Ok(())
        } else {
            Err(Error::Digest {
                what: format!("a blob of {reference}"),
                wanted: wanted.to_owned(),
                found,
            })
        }
    }

    async fn get(&self, reference: &Reference, kind: &str, selector: &str, what: &str) -> Result<Incoming, Error> {
        let uri = format!(
            "{}/v2/{}/{kind}/{selector}?ns={}",
            self.base,
            reference.repository(),
            reference.host()
        );
        let request = http::Request::get(uri)
            .header("accept", ACCEPT)
            .body(Empty::new())
            .map_err(|error| Error::Registry(error.to_string()))?;
        let answer = tokio::time::timeout(SILENCE, self.client.request(request))
            .await
            .map_err(|_| Error::Registry(format!("{} does not answer", self.base)))?
            .map_err(|error| Error::Registry(format!("{}: {}", self.base, root_cause(&error))))?;
        match answer.status().as_u16() {
            200 => Ok(answer.into_body()),
            404 => Err(Error::Missing {
                what: what.to_owned(),
                reference: reference.to_string(),
            }),
            status => {
                let text = Limited::new(answer.into_body(), 4096)
                    .collect()
                    .await
                    .map(|body| body.to_bytes());
                let text = String::from_utf8_lossy(&text.unwrap_or_default()).trim().to_owned();
                Err(Error::Registry(format!(
                    "{what} of {reference}: status {status} {text}"
                )))
            }
        }
    }
}

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

fn digest(hash: &[u8]) -> String {
    format!("sha256:{}", hex::encode(hash))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
