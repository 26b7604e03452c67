//! Pushing a packed image to a registry over HTTP.

use std::io::{self, Write};

use bytes::Bytes;
use http::{StatusCode, header};
use reqwest::{Body, Client, Response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::layer::Layer;
use super::{OciImage, PackError, selector_for_push};
use crate::digest::Digest;
use crate::manifest::OCI_MANIFEST;
use crate::reference::{Reference, Repository};

/// How many bytes are sent at a time.
const CHUNK: usize = 256 << 10;
/// How many chunks may wait for the network.
const AHEAD: usize = 8;

/// Pushes an image, sending only what the registry does not have. `base_url` is what `/v2/` is appended to. Returns the
/// manifest's digest.
pub async fn push(
    client: &Client,
    base_url: &str,
    reference: &Reference,
    image: &OciImage,
) -> Result<Digest, PackError> {
    let target = Target {
        client,
        base_url: base_url.trim_end_matches('/'),
        repository: &reference.repository,
    };
    for layer in &image.layers {
        if !target.has(&layer.digest).await? {
            target
                .put_blob(&layer.digest, layer.size, stream(layer.clone()))
                .await?;
        }
    }
    let config = Digest::of(&image.config);
    if !target.has(&config).await? {
        target
            .put_blob(&config, image.config.len() as u64, image.config.clone().into())
            .await?;
    }
    let url = target.url(&format!("manifests/{}", selector_for_push(reference)));
    let request = client
        .put(url)
        .query(&[("ns", target.repository.host())])
        .header(header::CONTENT_TYPE, OCI_MANIFEST);
    let response = request
        .body(image.manifest.clone())
        .send()
        .await
        .map_err(|error| target.failed(error))?;
    target.expect(response, StatusCode::CREATED).await?;
    Ok(image.digest())
}

/// A layer's bytes as a request body, made on a thread of their own as the network takes them.
fn stream(layer: Layer) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    tokio::task::spawn_blocking(move || {
        let sink = io::BufWriter::with_capacity(CHUNK, Sender(sender.clone()));
        let written = layer
            .write(sink)
            .map_err(io::Error::other)
            .and_then(|mut sink| sink.flush());
        if let Err(error) = written {
            // A receiver that is gone gave up already.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Body::wrap_stream(ReceiverStream::new(receiver))
}

struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Target<'a> {
    client: &'a Client,
    base_url: &'a str,
    repository: &'a Repository,
}

impl Target<'_> {
    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.base_url, self.repository.path())
    }

    async fn has(&self, digest: &Digest) -> Result<bool, PackError> {
        let request = self
            .client
            .head(self.url(&format!("blobs/{digest}")))
            .query(&[("ns", self.repository.host())]);
        let response = request.send().await.map_err(|error| self.failed(error))?;
        Ok(response.status() == StatusCode::OK)
    }

    async fn put_blob(&self, digest: &Digest, size: u64, body: Body) -> Result<(), PackError> {
        let query = [
            ("ns", self.repository.host().to_owned()),
            ("digest", digest.to_string()),
        ];
        let request = self
            .client
            .post(self.url("blobs/uploads/"))
            .query(&query)
            .header(header::CONTENT_LENGTH, size);
        let response = request.body(body).send().await.map_err(|error| self.failed(error))?;
        self.expect(response, StatusCode::CREATED).await
    }

    async fn expect(&self, response: Response, expected: StatusCode) -> Result<(), PackError> {
        if response.status() == expected {
            return Ok(());
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let message = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|body| Some(body["errors"][0]["message"].as_str()?.to_owned()))
            .unwrap_or_else(|| text.chars().take(300).collect());
        Err(self.failed(format!("it answered {status}: {message}")))
    }

    fn failed(&self, why: impl ToString) -> PackError {
        PackError::Registry {
            base_url: self.base_url.to_owned(),
            why: why.to_string(),
        }
    }
}
