//! The other regions' registries, as this region reads them.
//!
//! [`Peers`] is one handle for the gateway (a pull of something that is not here) and for replication: it knows who the
//! peers are at the moment, makes sure that a blob is fetched once at a time, and carries the wish for a comparison now.
//! Whatever a peer sends is hashed before it is stored or answered with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use http::{StatusCode, header};
use reqwest::{Client, RequestBuilder, Response};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::digest::Digest;
use crate::manifest::{self, MAX_MANIFEST};
use crate::reference::{Repository, Selector};
use crate::store::{BlobWriter, Manifest, Store, StoreError};

/// How long a peer may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a peer may take to go on with one.
const SILENCE: Duration = Duration::from_secs(10);
/// How often a blob that breaks off is asked for again at once, going on where it broke off.
const RESUMES: usize = 3;
/// How long a peer that did not answer is left alone, so that a pull that needs many blobs waits for it once.
const COOL_DOWN: Duration = Duration::from_secs(2);
/// How many bytes are handed to the disk at a time.
const BATCH: usize = 1 << 20;

/// Another region's registry.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The region's name, for messages.
    pub region: String,
    /// What `/v2/` is appended to, without a slash at its end.
    pub base_url: String,
    /// The client, which knows how to prove who both sides are.
    pub client: Client,
}

/// The peers, shared. Clones are the same handle.
#[derive(Clone, Default)]
pub struct Peers {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    peers: Mutex<Arc<[Peer]>>,
    flights: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// When peers last did not answer, by region.
    silent: Mutex<HashMap<String, Instant>>,
    nudge: Notify,
    introduced: Notify,
    copied: AtomicU64,
    failed: AtomicU64,
}

/// Why something could not be had from a peer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The peer did not answer, or broke off. Worth a retry.
    #[error("region {region} cannot be reached for images: {why}")]
    Unreachable {
        /// Which peer.
        region: String,
        /// What happened.
        why: String,
    },
    /// The peer does not have it. Worth a retry once the peer says that it changed.
    #[error("region {region} does not have {what}")]
    Absent {
        /// Which peer.
        region: String,
        /// What was asked for.
        what: String,
    },
    /// The peer answered with something that is not what was asked for. Nothing was stored.
    #[error("region {region} answered with something else than {what}: {why}")]
    Wrong {
        /// Which peer.
        region: String,
        /// What was asked for.
        what: String,
        /// What came.
        why: String,
    },
    /// There are no peers.
    #[error("{0} is not in this region, and there is no other region to ask")]
    NoPeers(String),
    /// This region's store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PeerError {
    /// Whether the same may succeed soon without anybody acting.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Absent { .. } | Self::Wrong { .. } | Self::NoPeers(_) => false,
            Self::Store(error) => error.is_transient(),
        }
    }
}

impl Peer {
    /// A request for a path below `/v2/`.
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}/v2/{path}", self.base_url))
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, PeerError> {
        match timeout(ANSWER, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(chain(&error))),
            Err(_) => Err(self.unreachable(format!("no answer within {} s", ANSWER.as_secs()))),
        }
    }

    /// Reads a whole answer, up to a number of bytes.
    pub(crate) async fn read(&self, response: Response, limit: usize, what: &str) -> Result<Vec<u8>, PeerError> {
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = self.next(&mut stream).await? {
            if bytes.len() + chunk.len() > limit {
                return Err(self.wrong(what, format!("it is longer than {limit} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn next<S>(&self, stream: &mut S) -> Result<Option<bytes::Bytes>, PeerError>
    where
        S: futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin,
    {
        match timeout(SILENCE, stream.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(Some(Err(error))) => Err(self.unreachable(chain(&error))),
            Err(_) => Err(self.unreachable(format!("nothing came for {} s", SILENCE.as_secs()))),
        }
    }

    pub(crate) fn unreachable(&self, why: String) -> PeerError {
        PeerError::Unreachable {
            region: self.region.clone(),
            why,
        }
    }

    pub(crate) fn wrong(&self, what: &str, why: impl ToString) -> PeerError {
        PeerError::Wrong {
            region: self.region.clone(),
            what: what.to_owned(),
            why: why.to_string(),
        }
    }

    fn absent(&self, what: &str) -> PeerError {
        PeerError::Absent {
            region: self.region.clone(),
            what: what.to_owned(),
        }
    }

    /// Fetches a manifest; what is asked for by digest is checked against it.
    pub async fn manifest(&self, repository: &Repository, selector: &Selector) -> Result<Manifest, PeerError> {
        let what = format!("{repository} {selector}");
        let path = format!("{}/manifests/{selector}", repository.path());
        let request = self
            .get(&path)
            .query(&[("ns", repository.host())])
            .header(header::ACCEPT, manifest::ACCEPT);
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(self.absent(&what)),
            status => return Err(self.unreachable(format!("it answered {status} for {what}"))),
        }
        let sent_as = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let bytes = self.read(response, MAX_MANIFEST, &what).await?;
        let digest = Digest::of(&bytes);
        if let Selector::Digest(expected) = selector
            && *expected != digest
        {
            return Err(self.wrong(&what, format!("its bytes hash to {digest}")));
        }
        let (media_type, _) = manifest::parse(&bytes, sent_as.as_deref()).map_err(|error| self.wrong(&what, error))?;
        Ok(Manifest {
            digest,
            media_type,
            bytes,
        })
    }

    /// Fetches a blob into the store, going on where it broke off. `size` is its length where that is known.
    async fn blob(
        &self,
        store: &Store,
        repository: &Repository,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<(), PeerError> {
        let what = digest.to_string();
        let mut writer = store.writer()?;
        let mut attempt = 0;
        loop {
            match self.blob_part(&mut writer, repository, digest, size).await {
                Ok(()) => break,
                Err(error @ PeerError::Unreachable { .. }) if attempt < RESUMES && !writer.is_empty() => {
                    tracing::debug!(%digest, %error, at = writer.len(), "an image's blob broke off; going on from there");
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
        let digest = *digest;
        match store.run(move |_| writer.commit(&digest)).await {
            Err(error @ StoreError::DigestMismatch { .. }) => Err(self.wrong(&what, error)),
            done => Ok(done?),
        }
    }

    async fn blob_part(
        &self,
        writer: &mut BlobWriter,
        repository: &Repository,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<(), PeerError> {
        let what = digest.to_string();
        let path = format!("{}/blobs/{digest}", repository.path());
        let mut request = self.get(&path).query(&[("ns", repository.host())]);
        if !writer.is_empty() {
            request = request.header(header::RANGE, format!("bytes={}-", writer.len()));
        }
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::OK if writer.is_empty() => {}
            StatusCode::PARTIAL_CONTENT if !writer.is_empty() => {}
            StatusCode::NOT_FOUND => return Err(self.absent(&what)),
            status => return Err(self.wrong(&what, format!("it answered {status}"))),
        }
        let announced = response.content_length().map(|rest| writer.len().saturating_add(rest));
        let too_long = |size: u64| self.wrong(&what, format!("it is not as long as promised, {size} bytes"));
        let size = match (size, announced) {
            (Some(size), Some(announced)) if size != announced => return Err(too_long(size)),
            (Some(size), _) | (None, Some(size)) => size,
            (None, None) => return Err(self.wrong(&what, "it does not say how long it is")),
        };
        let mut stream = response.bytes_stream();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let next = self.next(&mut stream).await;
            let over = !matches!(next, Ok(Some(_)));
            if let Ok(Some(chunk)) = &next {
                batch.extend_from_slice(chunk);
            }
            if writer.len() + batch.len() as u64 > size {
                return Err(too_long(size));
            }
            if batch.len() >= BATCH || over {
                // Hashing and writing a batch takes about a millisecond: not worth a thread's hand-over.
                writer.append(&batch)?;
                batch.clear();
            }
            if over {
                return next.map(|_| ());
            }
        }
    }
}

/// An error with its causes: reqwest's own text leaves out the reason.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Peers {
    /// A handle with these peers.
    pub fn new(peers: Vec<Peer>) -> Self {
        let handle = Self::default();
        handle.set(peers);
        handle
    }

    /// Replaces the peers; both sides will compare what they have.
    pub fn set(&self, peers: Vec<Peer>) {
        *self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner) = peers.into();
        self.nudge();
        self.inner.introduced.notify_one();
    }

    /// The peers at the moment.
    pub fn list(&self) -> Arc<[Peer]> {
        Arc::clone(&self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes what a comparison took over and what of it failed.
    pub(crate) fn note(&self, copied: usize, failed: usize) {
        self.inner.copied.fetch_add(copied as u64, Ordering::Relaxed);
        self.inner.failed.fetch_add(failed as u64, Ordering::Relaxed);
    }

    /// How many manifests, tags and blobs were taken over from the peers so far, and how many attempts at that failed.
    pub fn noted(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.inner.copied), of(&self.inner.failed))
    }

    /// Asks for a comparison with the peers now: one of them said that it changed.
    pub fn nudge(&self) {
        self.inner.nudge.notify_one();
    }

    /// Waits for a nudge. For one waiter.
    pub(crate) async fn nudged(&self) {
        self.inner.nudge.notified().await;
    }

    /// Waits until the peers were replaced. For one waiter.
    pub(crate) async fn introduced(&self) {
        self.inner.introduced.notified().await;
    }

    /// Fetches a manifest from the first peer that has it.
    pub async fn fetch_manifest(&self, repository: &Repository, selector: &Selector) -> Result<Manifest, PeerError> {
        let mut last = PeerError::NoPeers(format!("{repository} {selector}"));
        for peer in self.list().iter() {
            match self.ask(peer, peer.manifest(repository, selector)).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => last = worse(last, error),
            }
        }
        Err(last)
    }

    /// Fetches a blob into the store from the first peer that has it, unless it is there already. `size` is its length in
    /// bytes where a manifest states it; a peer that sends more, or announces another, is not believed.
    pub async fn fetch_blob(
        &self,
        store: &Store,
        repository: &Repository,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<(), PeerError> {
        let flight = self.flight(digest);
        let result = {
            let _alone = flight.lock().await;
            self.fetch_blob_alone(store, repository, digest, size).await
        };
        drop(flight);
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        result
    }

    /// Asks a peer, unless it did not answer a moment ago.
    pub(crate) async fn ask<T>(
        &self,
        peer: &Peer,
        question: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, PeerError> {
        let silent = || self.inner.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent()
            .get(&peer.region)
            .is_some_and(|since| since.elapsed() < COOL_DOWN)
        {
            return Err(peer.unreachable("it did not answer a moment ago".to_owned()));
        }
        let answer = question.await;
        match &answer {
            Err(PeerError::Unreachable { .. }) => silent().insert(peer.region.clone(), Instant::now()),
            _ => silent().remove(&peer.region),
        };
        answer
    }

    fn flight(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(flights.entry(*digest).or_default())
    }

    async fn fetch_blob_alone(
        &self,
        store: &Store,
        repository: &Repository,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<(), PeerError> {
        if store.blob_len(digest).is_some() {
            store.forget_damage(digest);
            return Ok(());
        }
        let mut last = PeerError::NoPeers(digest.to_string());
        for peer in self.list().iter() {
            match self.ask(peer, peer.blob(store, repository, digest, size)).await {
                Ok(()) => return Ok(()),
                Err(error @ PeerError::Store(_)) => return Err(error),
                Err(error) => {
                    tracing::debug!(%digest, %error, "a peer did not give a blob");
                    last = worse(last, error);
                }
            }
        }
        Err(last)
    }
}

/// The error that says more: one that a retry may cure, or that shows a peer to be wrong, before "it does not have it".
fn worse(first: PeerError, second: PeerError) -> PeerError {
    match (&first, &second) {
        (PeerError::Unreachable { .. } | PeerError::Wrong { .. }, PeerError::Absent { .. }) => first,
        _ => second,
    }
}
