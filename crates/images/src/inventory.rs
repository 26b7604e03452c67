//! Whether every byte of the images that an application runs is in this region.
//!
//! An image is [`State::Present`] only if its manifest, its configuration and every layer are in **this** store and were
//! re-hashed from its disk since their files last changed. Of an image for several platforms, the index and the manifest of
//! this machine's platform with its blobs are enough.
//!
//! [`Inventory::check`] is made to be called often: it costs one `stat` a blob. What it finds not yet hashed, or hashed
//! too long ago, is hashed by one thread that lives only while there is something to hash; what it finds missing is
//! reported to the store, so that replication fetches it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::manifest::{self, Document};
use crate::reference::{Reference, Selector};
use crate::store::{BlobState, Damage, Store, StoreError};

/// How long a blob's hash is believed while its file does not change: bits rot without changing a file's times.
const BELIEVED: Duration = Duration::from_secs(6 * 60 * 60);
/// How many parsed manifests are kept.
const KEPT: usize = 4096;
/// What [`Image::lack`] begins with.
pub const LACK: &str = "image ";
/// How deep indexes of indexes are followed.
const MAX_DEPTH: usize = 4;

/// What is in this region of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The reference as it was asked for.
    pub reference: String,
    /// The manifest or index that the reference means in this region, if it means one.
    pub digest: Option<Digest>,
    /// Whether it can be run from here.
    pub state: State,
}

/// Whether an image can be run from this region's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// All of it is here and was re-hashed here.
    Present,
    /// All of it is here; these blobs are still to be hashed, which is under way.
    Unverified {
        /// Which blobs.
        blobs: Vec<Digest>,
    },
    /// Not here: these blobs, or with an empty list the manifest itself.
    Missing {
        /// Which blobs.
        blobs: Vec<Digest>,
    },
    /// These blobs were here with wrong bytes, were moved aside, and are to be fetched again.
    Corrupt {
        /// Which blobs.
        blobs: Vec<Digest>,
    },
    /// The reference is malformed, or what it names is no image for this machine.
    Invalid {
        /// Why, for people.
        why: String,
    },
}

impl State {
    /// Whether the image can be run from here.
    pub fn is_present(&self) -> bool {
        *self == Self::Present
    }
}

impl Image {
    /// What a start from this region would lack of the image, for people; `None` if it could start.
    pub fn lack(&self) -> Option<String> {
        let blobs = |blobs: &[Digest]| format!("{} blob{}", blobs.len(), if blobs.len() == 1 { "" } else { "s" });
        let why = match &self.state {
            State::Present => return None,
            State::Unverified { blobs: list } => format!("{} not yet hashed here", blobs(list)),
            State::Missing { blobs: list } if list.is_empty() => "not in this region's registry".to_owned(),
            State::Missing { blobs: list } => format!("{} not in this region's registry", blobs(list)),
            State::Corrupt { blobs: list } => format!("{} had wrong bytes here, to be fetched again", blobs(list)),
            State::Invalid { why } => why.clone(),
        };
        Some(format!("{LACK}{}: {why}", self.reference))
    }
}

/// The question, with what makes asking it again cheap. Clones share that.
#[derive(Clone)]
pub struct Inventory {
    store: Store,
    shared: Arc<Shared>,
    believed: Duration,
}

#[derive(Default)]
struct Shared {
    documents: Mutex<HashMap<Digest, Arc<Document>>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: BTreeSet<Digest>,
    working: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The blobs of an image, sorted by what is known of them.
#[derive(Default)]
struct Sorted {
    unverified: Vec<Digest>,
    missing: Vec<Digest>,
    corrupt: Vec<Digest>,
}

impl Inventory {
    /// Of a store.
    pub fn new(store: Store) -> Self {
        Self::with_rhythm(store, BELIEVED)
    }

    /// Of a store, re-hashing what was last hashed longer ago than `believed`.
    pub fn with_rhythm(store: Store, believed: Duration) -> Self {
        Self {
            store,
            shared: Arc::default(),
            believed,
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What is here of the images that these references, as pod specifications state them, mean. Does not wait for hashing.
    pub fn check<S: AsRef<str>>(&self, references: &[S]) -> Vec<Image> {
        let now = SystemTime::now();
        references
            .iter()
            .map(|reference| self.check_one(reference.as_ref(), now))
            .collect()
    }

    /// The same, waiting until everything that is here was hashed.
    pub async fn check_verified<S: AsRef<str>>(&self, references: &[S]) -> Result<Vec<Image>, StoreError> {
        loop {
            let images = self.check(references);
            let unverified: Vec<_> = images
                .iter()
                .filter_map(|image| match &image.state {
                    State::Unverified { blobs } => Some(blobs.clone()),
                    _ => None,
                })
                .flatten()
                .collect();
            if unverified.is_empty() {
                return Ok(images);
            }
            for digest in unverified {
                self.store.run(move |store| store.verify(&digest)).await?;
            }
        }
    }

    fn check_one(&self, text: &str, now: SystemTime) -> Image {
        let image = |digest, state| Image {
            reference: text.to_owned(),
            digest,
            state,
        };
        let reference = match Reference::parse(text) {
            Ok(reference) => reference,
            Err(error) => return image(None, State::Invalid { why: error.to_string() }),
        };
        let selector = reference.selector();
        let Some(digest) = self.store.listing().resolve(&reference.repository, &selector) else {
            let stated = if let Selector::Digest(digest) = selector {
                Some(digest)
            } else {
                None
            };
            return image(
                stated,
                State::Missing {
                    blobs: stated.into_iter().collect(),
                },
            );
        };
        let mut sorted = Sorted::default();
        if let Err(why) = self.sort(digest, MAX_DEPTH, now, &mut sorted) {
            return image(Some(digest), State::Invalid { why });
        }
        let state = if !sorted.corrupt.is_empty() {
            State::Corrupt { blobs: sorted.corrupt }
        } else if !sorted.missing.is_empty() {
            State::Missing { blobs: sorted.missing }
        } else if !sorted.unverified.is_empty() {
            State::Unverified {
                blobs: sorted.unverified,
            }
        } else {
            State::Present
        };
        image(Some(digest), state)
    }

    /// Sorts a manifest and, once that is known to be right, what it refers to.
    fn sort(&self, digest: Digest, depth: usize, now: SystemTime, sorted: &mut Sorted) -> Result<(), String> {
        if !self.sort_blob(digest, now, sorted) {
            return Ok(());
        }
        let document = match self.document(digest) {
            Ok(Some(document)) => document,
            Ok(None) => {
                sorted.missing.push(digest);
                return Ok(());
            }
            Err(why) => return Err(why),
        };
        match (&*document, document.for_this_platform()) {
            (Document::Image { parts }, _) => {
                for part in parts {
                    self.sort_blob(part.digest, now, sorted);
                }
                Ok(())
            }
            (Document::Index { .. }, Some(part)) if depth > 0 => self.sort(part.digest, depth - 1, now, sorted),
            (Document::Index { .. }, Some(_)) => Err("its indexes are nested too deep".to_owned()),
            (Document::Index { .. }, None) => {
                let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
                Err(format!("it has no image for this machine's platform ({os}, {arch})"))
            }
        }
    }

    /// Whether the blob is here and verified; if not, notes why not and sees to it.
    fn sort_blob(&self, digest: Digest, now: SystemTime, sorted: &mut Sorted) -> bool {
        match self.store.blob_state(&digest) {
            BlobState::Verified => {
                if self
                    .store
                    .verified_age(&digest, now)
                    .is_none_or(|age| age > self.believed)
                {
                    self.enqueue(digest);
                }
                return true;
            }
            BlobState::Unverified => {
                self.enqueue(digest);
                sorted.unverified.push(digest);
            }
            BlobState::Absent => match self.store.damaged().get(&digest) {
                Some(Damage::Corrupt) => sorted.corrupt.push(digest),
                Some(Damage::Lost) => sorted.missing.push(digest),
                None => {
                    self.store.report_damage(digest, Damage::Lost);
                    sorted.missing.push(digest);
                }
            },
        }
        false
    }

    /// A manifest's references. Kept by digest, so that they never become stale.
    fn document(&self, digest: Digest) -> Result<Option<Arc<Document>>, String> {
        if let Some(document) = lock(&self.shared.documents).get(&digest) {
            return Ok(Some(Arc::clone(document)));
        }
        let Some(bytes) = self.store.read_small(&digest).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let (_, document) = manifest::parse(&bytes, None).map_err(|error| error.to_string())?;
        let document = Arc::new(document);
        let mut documents = lock(&self.shared.documents);
        if documents.len() >= KEPT {
            documents.clear();
        }
        documents.insert(digest, Arc::clone(&document));
        Ok(Some(document))
    }

    /// Has a blob hashed in the background.
    fn enqueue(&self, digest: Digest) {
        let mut queue = lock(&self.shared.queue);
        queue.waiting.insert(digest);
        if queue.working {
            return;
        }
        let (store, shared, believed) = (self.store.clone(), Arc::clone(&self.shared), self.believed);
        let spawned = std::thread::Builder::new()
            .name("image-verifier".to_owned())
            .spawn(move || work(&store, &shared, believed));
        match spawned {
            Ok(_) => queue.working = true,
            // The next check tries again.
            Err(error) => tracing::warn!(%error, "cannot start a thread to hash images"),
        }
    }
}

fn work(store: &Store, shared: &Shared, believed: Duration) {
    loop {
        let next = {
            let mut queue = lock(&shared.queue);
            let next = queue.waiting.pop_first();
            queue.working = next.is_some();
            next
        };
        let Some(digest) = next else { return };
        let old = |age: Duration| age > believed;
        let verified = match store.blob_state(&digest) {
            BlobState::Verified if store.verified_age(&digest, SystemTime::now()).is_none_or(old) => {
                store.verify_again(&digest)
            }
            _ => store.verify(&digest),
        };
        if let Err(error) = verified {
            tracing::warn!(%digest, %error, "cannot hash a blob of the image store");
        }
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
