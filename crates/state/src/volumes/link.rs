//! The way to a role's target in another region, over the peer link.

use std::{
    fs::File,
    io::{Seek, Write},
    time::Duration,
};

use futures::StreamExt;
use leeward_core::name::{Epoch, RoleKey};
use reqwest::{Client, Response, header::CONTENT_LENGTH};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use super::{
    Point,
    manifest::Manifest,
    patch,
    source::Taken,
    target::{
        Head,
        http::{Reason, Refusal},
    },
    wire::{Body, Header, WireError},
};

/// Why a request to a target had no success.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No answer: whether the target has the point is unknown, its head tells.
    #[error("the standby region cannot be reached: {0}")]
    Unreachable(#[from] reqwest::Error),
    /// The target took the request and then said nothing.
    #[error("the standby region said nothing for {0:?}")]
    Silent(Duration),
    /// The target refused it.
    #[error("the standby region refused: {}", .0.message)]
    Refused(Refusal),
    /// The target answered with something that is not of this protocol.
    #[error("the standby region answered {0} without a reason that can be read; it may run another version")]
    Answer(reqwest::StatusCode),
    /// What came or was to be sent could not be read or written.
    #[error(transparent)]
    Body(#[from] WireError),
}

impl LinkError {
    /// Why the target refused, if it did.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            _ => None,
        }
    }
}

/// A role's target, by a client that the agent set up (certificates, the peer's address) and the peer link's base address.
#[derive(Debug, Clone)]
pub struct Link {
    client: Client,
    base: String,
}

const SHORT: Duration = Duration::from_secs(5);
const HASHING: Duration = Duration::from_secs(600);

impl Link {
    /// The target of `role` at a peer link, such as `https://127.0.32.4:7443`.
    pub fn new(client: Client, peer: &str, role: &RoleKey) -> Self {
        let base = format!("{}/v1/mirror/{role}", peer.trim_end_matches('/'));
        Self { client, base }
    }

    /// What the target has, for who would go on from there at `epoch`.
    pub async fn head(&self, epoch: Epoch) -> Result<Head, LinkError> {
        let request = self
            .client
            .get(format!("{}/head?epoch={epoch}", self.base))
            .timeout(SHORT);
        Ok(good(request.send().await?).await?.json().await?)
    }

    /// What the target's tree holds, the point that it is, and how many bytes that took.
    pub(super) async fn manifest(&self) -> Result<(Manifest, Option<Point>, u64), LinkError> {
        let request = self.client.get(format!("{}/manifest", self.base));
        // Hashing a large tree takes its time before the first byte; after it, bytes keep coming.
        let answer = timeout(HASHING, request.send())
            .await
            .map_err(|_| LinkError::Silent(HASHING))?;
        let mut chunks = good(answer?).await?.bytes_stream();
        let mut file = tempfile::tempfile().map_err(WireError::from)?;
        let mut length = 0;
        while let Some(chunk) = timeout(SHORT, chunks.next())
            .await
            .map_err(|_| LinkError::Silent(SHORT))?
        {
            let chunk = chunk?;
            length += chunk.len() as u64;
            file.write_all(&chunk).map_err(WireError::from)?;
        }
        let read = tokio::task::spawn_blocking(move || {
            let body = Body::open(file)?;
            let Header::Manifest { point, .. } = body.header.clone() else {
                return Err(WireError::Malformed("it is no manifest".into()));
            };
            Ok((patch::read_manifest(&body)?, point, length))
        });
        Ok(read.await.map_err(|e| WireError::Io(std::io::Error::other(e)))??)
    }

    /// Sends a point and waits until it is durable there.
    pub(super) async fn put(&self, taken: &Taken) -> Result<(), LinkError> {
        let Point { epoch, sequence, .. } = taken.point;
        let mut file: File = taken.body.try_clone().map_err(WireError::from)?;
        file.rewind().map_err(WireError::from)?;
        let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 << 10);
        let request = self
            .client
            .put(format!("{}/points/{epoch}/{sequence}", self.base))
            .header(CONTENT_LENGTH, taken.length)
            // At least a megabyte a second; a slower link is taken for a broken one.
            .timeout(SHORT + Duration::from_millis(taken.length / 1000))
            .body(reqwest::Body::wrap_stream(stream));
        good(request.send().await?).await?.bytes().await?;
        Ok(())
    }
}

async fn good(response: Response) -> Result<Response, LinkError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    match response.json().await {
        Ok(refusal) => Err(LinkError::Refused(refusal)),
        Err(_) => Err(LinkError::Answer(status)),
    }
}
