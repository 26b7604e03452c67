//! Copying what was pushed in other regions into this one.
//!
//! ```text
//! push here -> tell the peers (POST /v2/_leeward/changed)
//! told, or every interval -> fetch each peer's listing (ETag) -> plan (pure) -> blobs, manifests, tags -> this store
//! ```
//!
//! Each region pulls; none writes to another. Order gives completeness: blobs before the manifest that refers to them,
//! manifests before the tag that names them, so that a name appears only when all of it is here. Which of two records wins is
//! the store's rule (the newest push). A round that breaks off costs nothing: what is here is not fetched again, and a
//! blob that broke off goes on where it was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, StreamExt, stream};
use http::{StatusCode, header};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use crate::digest::Digest;
use crate::manifest::{self, Document, Part};
use crate::peers::{Peer, PeerError, Peers};
use crate::reference::{Repository, Selector, Tag};
use crate::store::{Listing, ManifestRecord, Store, TagRecord, unix_ms};

/// The largest listing that is taken from a peer, in bytes.
const MAX_LISTING: usize = 64 << 20;
/// How deep indexes of indexes are followed.
const MAX_DEPTH: usize = 4;
/// How far ahead of this region's clock a peer's push may be. A record from farther ahead could not be replaced by any
/// push until then.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);
/// How long until a region that was not told is told again: at a start it may just not have been up yet.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// How long a peer may take to hear of a push.
const TELLING: Duration = Duration::from_secs(2);
/// The first pause after a failure; it doubles with each one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Something to copy. What a step needs is in the steps before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    /// A manifest with everything that it refers to, or its deletion.
    Manifest {
        /// Where it is named.
        repository: Repository,
        /// Which one.
        digest: Digest,
        /// The peer's record of it.
        record: ManifestRecord,
    },
    /// A tag, or its deletion.
    Tag {
        /// Where it is named.
        repository: Repository,
        /// Which one.
        tag: Tag,
        /// The peer's record of it.
        record: TagRecord,
    },
}

/// What this region must copy to have everything that the other one has and that wins over what is here. Manifests come
/// first, indexes after the images that they may name, then tags, then deletions of manifests.
pub fn plan(local: &Listing, remote: &Listing) -> Vec<Copy> {
    let (mut images, mut indexes, mut tags, mut deletions) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (repository, theirs) in &remote.repositories {
        let ours = local.repositories.get(repository);
        let mut live: BTreeSet<Digest> = ours
            .map(|ours| {
                ours.manifests
                    .iter()
                    .filter(|(_, m)| !m.deleted)
                    .map(|(digest, _)| *digest)
                    .collect()
            })
            .unwrap_or_default();
        for (digest, record) in &theirs.manifests {
            let known = ours.and_then(|ours| ours.manifests.get(digest));
            if known.is_some_and(|known| !record.supersedes(known)) {
                continue;
            }
            let copy = Copy::Manifest {
                repository: repository.clone(),
                digest: *digest,
                record: record.clone(),
            };
            if record.deleted {
                live.remove(digest);
                deletions.push(copy);
            } else {
                live.insert(*digest);
                let group = if manifest::is_index(&record.media_type) {
                    &mut indexes
                } else {
                    &mut images
                };
                group.push(copy);
            }
        }
        for (tag, record) in &theirs.tags {
            let known = ours.and_then(|ours| ours.tags.get(tag));
            let wins = known.is_none_or(|known| record.supersedes(known));
            // A tag whose manifest was deleted since names nothing.
            if wins && (record.deleted || live.contains(&record.digest)) {
                tags.push(Copy::Tag {
                    repository: repository.clone(),
                    tag: tag.clone(),
                    record: record.clone(),
                });
            }
        }
    }
    [images, indexes, tags, deletions].concat()
}

/// How long to wait before the next round. `failures` is how many rounds in a row failed; `jitter` is from 0 to 1 and
/// spreads regions that failed together.
pub fn pause(interval: Duration, failures: u32, jitter: f64) -> Duration {
    let jitter = jitter.clamp(0.0, 1.0);
    match failures.checked_sub(1) {
        None => interval.mul_f64(0.8 + 0.4 * jitter),
        Some(doublings) => {
            let grown = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(doublings.min(16)).unwrap_or(u32::MAX));
            grown
                .min(LONGEST_PAUSE)
                .min(interval.max(FIRST_PAUSE))
                .mul_f64(0.5 + 0.5 * jitter)
        }
    }
}

/// How a region copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How often regions compare when nobody said that something changed.
    pub interval: Duration,
    /// How many manifests are copied at a time.
    pub manifests_at_once: usize,
    /// How many blobs of a manifest are fetched at a time.
    pub blobs_at_once: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            manifests_at_once: 2,
            blobs_at_once: 3,
        }
    }
}

/// Keeps a store equal to its peers'.
pub struct Replicator {
    store: Store,
    peers: Peers,
    config: Config,
}

/// A round's outcome: everything that is not here although a peer has it.
#[derive(Debug, Default)]
pub struct Round {
    /// How many steps were done.
    pub copied: usize,
    /// What failed, in words, by what it was.
    pub failed: BTreeMap<String, PeerError>,
}

impl Replicator {
    /// With the usual settings.
    pub fn new(store: Store, peers: Peers) -> Self {
        Self::with_config(store, peers, Config::default())
    }

    /// With settings of one's own.
    pub fn with_config(store: Store, peers: Peers, config: Config) -> Self {
        Self { store, peers, config }
    }

    /// Copies for as long as it is polled, and tells peers of pushes. Dropping the future at any point loses nothing.
    pub async fn run(self) {
        futures::join!(self.tell(), self.follow());
    }

    /// Tells the peers that something was pushed here.
    async fn tell(&self) {
        let mut pushes = self.store.pushes();
        loop {
            let peers = self.peers.list();
            let told = join_all(peers.iter().map(|peer| async {
                let url = format!("{}/v2/_leeward/changed", peer.base_url);
                let told = timeout(TELLING, self.peers.ask(peer, peer.send(peer.client.post(url)))).await;
                let told = matches!(told, Ok(Ok(_)));
                if !told {
                    tracing::debug!(
                        region = peer.region,
                        "a region was not told of a push; it is told again"
                    );
                }
                told
            }))
            .await;
            let all = told.into_iter().all(|told| told);
            tokio::select! {
                () = tokio::time::sleep(TELL_AGAIN), if !all => {}
                pushed = pushes.recv() => if matches!(pushed, Err(RecvError::Closed)) { return },
                // Who is new may have compared before what was pushed here in between.
                () = self.peers.introduced() => {}
            }
            // One word is enough for everything pushed up to now.
            while pushes.try_recv().is_ok() {}
        }
    }

    /// Compares and copies when told to, when something here is damaged, and at the interval.
    async fn follow(&self) {
        let mut known = HashMap::new();
        let mut failures = 0;
        loop {
            let round = self.round(&mut known).await;
            for (what, error) in &round.failed {
                // Said once; a region that stays away is no news.
                match failures {
                    0 => tracing::warn!(what, %error, "images could not be copied to this region; trying again"),
                    _ => tracing::debug!(what, %error, "images could not be copied to this region; trying again"),
                }
            }
            self.peers.note(round.copied, round.failed.len());
            if round.copied > 0 {
                tracing::info!(copied = round.copied, "images were copied to this region");
            }
            failures = if round.failed.is_empty() { 0 } else { failures + 1 };
            tokio::select! {
                () = tokio::time::sleep(pause(self.config.interval, failures, rand::random())) => {}
                () = self.peers.nudged() => {}
                () = self.store.wait_for_damage() => {}
            }
        }
    }

    /// One comparison with every peer. `known` keeps the `ETag` of the listings that were copied completely.
    pub async fn round(&self, known: &mut HashMap<String, String>) -> Round {
        let mut round = Round::default();
        self.mend(&mut round).await;
        let peers = self.peers.list();
        let listings = join_all(peers.iter().map(|peer| {
            let etag = known.get(&peer.region).map(String::as_str);
            self.peers.ask(peer, listing(peer, etag))
        }))
        .await;
        for (peer, answer) in peers.iter().zip(listings) {
            match answer {
                Ok(None) => {}
                Ok(Some((listing, etag))) => {
                    let failed_before = round.failed.len();
                    self.execute(plan(&self.store.listing(), &listing), &mut round).await;
                    match etag.filter(|_| round.failed.len() == failed_before) {
                        Some(etag) => known.insert(peer.region.clone(), etag),
                        None => known.remove(&peer.region),
                    };
                }
                Err(error) => {
                    round.failed.insert(format!("the listing of {}", peer.region), error);
                }
            }
        }
        round
    }

    /// Fetches again what was lost here or had wrong bytes.
    async fn mend(&self, round: &mut Round) {
        let damaged = self.store.damaged();
        // Blobs are shared between repositories: any name that exists will do.
        let listing = self.store.listing();
        let Some(repository) = listing.repositories.keys().next() else {
            return;
        };
        for digest in damaged.keys() {
            match self.peers.fetch_blob(&self.store, repository, digest, None).await {
                Ok(()) => round.copied += 1,
                Err(error) => {
                    round.failed.insert(digest.to_string(), error);
                }
            }
        }
    }

    async fn execute(&self, steps: Vec<Copy>, round: &mut Round) {
        let (manifests, rest): (Vec<_>, Vec<_>) = steps
            .into_iter()
            .partition(|step| matches!(step, Copy::Manifest { record, .. } if !manifest::is_index(&record.media_type)));
        let copies = manifests
            .into_iter()
            .map(|step| async { (name(&step), self.copy(step).await) });
        let mut outcomes: Vec<_> = stream::iter(copies)
            .buffer_unordered(self.config.manifests_at_once)
            .collect()
            .await;
        for step in rest {
            outcomes.push((name(&step), self.copy(step).await));
        }
        for (what, outcome) in outcomes {
            match outcome {
                Ok(()) => round.copied += 1,
                Err(error) => {
                    round.failed.insert(what, error);
                }
            }
        }
    }

    async fn copy(&self, step: Copy) -> Result<(), PeerError> {
        match step {
            Copy::Tag {
                repository,
                tag,
                record,
            } => Ok(self
                .store
                .run(move |store| store.adopt_tag(&repository, &tag, &record))
                .await?),
            Copy::Manifest {
                repository,
                digest,
                record,
            } => {
                let bytes = if record.deleted {
                    None
                } else {
                    Some(self.fetch(&repository, digest, MAX_DEPTH).await?)
                };
                let adopt = move |store: &Store| store.adopt_manifest(&repository, &digest, &record, bytes.as_deref());
                Ok(self.store.run(adopt).await?)
            }
        }
    }

    /// Brings everything that a manifest refers to into the store, and returns the manifest's bytes.
    fn fetch<'a>(
        &'a self,
        repository: &'a Repository,
        digest: Digest,
        depth: usize,
    ) -> BoxFuture<'a, Result<Vec<u8>, PeerError>> {
        async move {
            let bytes = match self.store.run(move |store| store.read_small(&digest)).await? {
                Some(bytes) => bytes,
                None => {
                    self.peers
                        .fetch_manifest(repository, &Selector::Digest(digest))
                        .await?
                        .bytes
                }
            };
            let (_, document) = manifest::parse(&bytes, None).map_err(crate::store::StoreError::from)?;
            if let (Document::Index { members }, 1..) = (&document, depth) {
                for member in members {
                    self.fetch(repository, member.part.digest, depth - 1).await?;
                }
            }
            let fetch = |part: Part| async move {
                self.peers
                    .fetch_blob(&self.store, repository, &part.digest, Some(part.size))
                    .await
            };
            let fetches = document.references().into_iter().map(fetch);
            let mut fetches = stream::iter(fetches).buffer_unordered(self.config.blobs_at_once);
            while let Some(fetched) = fetches.next().await {
                fetched?;
            }
            Ok(bytes)
        }
        .boxed()
    }
}

fn name(step: &Copy) -> String {
    match step {
        Copy::Manifest { repository, digest, .. } => format!("{repository}@{digest}"),
        Copy::Tag { repository, tag, .. } => format!("{repository}:{tag}"),
    }
}

/// A peer's listing with its `ETag`; `None` if it is the one that is known.
async fn listing(peer: &Peer, known: Option<&str>) -> Result<Option<(Listing, Option<String>)>, PeerError> {
    let what = "its listing of images";
    let mut request = peer.get("_leeward/inventory");
    if let Some(etag) = known {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    let response = peer.send(request).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok(None),
        status => return Err(peer.unreachable(format!("it answered {status} for {what}"))),
    }
    let etag = response
        .headers()
        .get(header::ETAG)
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned);
    let bytes = peer.read(response, MAX_LISTING, what).await?;
    let listing: Listing = serde_json::from_slice(&bytes).map_err(|error| peer.wrong(what, error))?;
    let horizon = unix_ms(SystemTime::now() + MAX_AHEAD);
    if let Some(newest) = listing.newest().filter(|newest| *newest > horizon) {
        let why = format!("it has a push of {newest} ms since 1970, more than a day ahead: set both regions' clocks");
        return Err(peer.wrong(what, why));
    }
    Ok(Some((listing, etag)))
}

#[cfg(test)]
#[path = "replicate_tests.rs"]
mod tests;
