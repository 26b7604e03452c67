//! A region's own store of images: a content-addressed directory.
//!
//! ```text
//! ROOT/lock                                    held by the one process that has the store open
//! ROOT/blobs/sha256/ab/abcd...                 every blob and manifest, by digest, whatever repository it is of
//! ROOT/repositories/HOST/PATH/_tags/TAG        a tag's record (JSON), replaced atomically
//! ROOT/repositories/HOST/PATH/_manifests/HEX   a manifest's record (JSON)
//! ROOT/uploads/*                               what is being written; emptied when the store is opened
//! ROOT/verified/HEX                            what was re-hashed here and what the file looked like then
//! ROOT/quarantine/*                            files whose bytes were found not to be what their name says
//! ```
//!
//! Invariants: nothing gets a name before all its bytes are on the disk and hash to it (temporary file, fsync, rename,
//! fsync of the directory); a manifest is named after everything that it refers to, a tag after its manifest. Blobs are
//! shared between repositories: whoever may read the registry may read all of it. Nothing is ever deleted but by name:
//! deleting a tag or a manifest leaves a record of that, and the bytes.
//!
//! The methods block (files); callers on an async runtime use `spawn_blocking`, or [`Store::run`].

mod layout;
mod names;
mod records;
mod verify;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{Notify, broadcast};

use crate::digest::Digest;
use crate::manifest::{self, ManifestError};
use crate::reference::{Repository, Selector};

pub use records::{Listing, Manifest, ManifestRecord, Pushed, RepositoryRecords, TagRecord};
pub use verify::BlobState;
pub(crate) use verify::unix_ms;
pub use writer::BlobWriter;

use layout::Layout;

/// How many pushes a slow subscriber may be behind before it is told that it missed some.
const PUSH_BACKLOG: usize = 256;

/// A store, open. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    /// Tags and manifests, as on disk. Written under `writing`.
    listing: RwLock<Arc<Listing>>,
    /// Serialises changes of records and of blobs' names.
    writing: Mutex<()>,
    stamps: verify::Stamps,
    /// Blobs that a kept manifest refers to and that are not here.
    damaged: Mutex<BTreeMap<Digest, Damage>>,
    damage: Notify,
    pushes: broadcast::Sender<Pushed>,
    _lock: File,
}

/// What happened to a blob that ought to be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It is gone.
    Lost,
    /// Its bytes were wrong, and are in quarantine.
    Corrupt,
}

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the image store {} is in use by another process: stop that one first", .0.display())]
    InUse(PathBuf),
    /// No space, or no quota, left. What was being written is gone; everything else is as it was. Worth a retry later.
    #[error("no space left for images under {}: nothing was stored; free some space and try again", .0.display())]
    DiskFull(PathBuf),
    /// Another failure of the file system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The bytes that came hash to something else than was promised. Nothing was stored.
    #[error("the bytes received hash to {actual}, not to the promised {expected}: nothing was stored")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The bytes are not as many as was promised. Nothing was stored.
    #[error("{actual} bytes were received where {expected} were promised: nothing was stored")]
    LengthMismatch {
        /// How many were promised.
        expected: u64,
        /// How many came.
        actual: u64,
    },
    /// Not a manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest refers to bytes that are not here. Push those first.
    #[error("the manifest refers to blobs that are not in this registry: {}", list(.0))]
    MissingParts(Vec<Digest>),
    /// The manifest is not here.
    #[error("{repository} has no manifest {selector}")]
    NoManifest {
        /// In which repository it was looked for.
        repository: Repository,
        /// What was looked for.
        selector: Selector,
    },
    /// The thread that did the work is gone.
    #[error("the work on the image store was cut short: {0}")]
    Cancelled(String),
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(", ")
}

impl StoreError {
    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull(path.to_owned()),
            _ => Self::Io {
                action,
                path: path.to_owned(),
                source,
            },
        }
    }

    /// Whether the same call may succeed later without anything else being done to the store's content.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::DiskFull(_) | Self::Io { .. } | Self::Cancelled(_))
    }
}

impl Store {
    /// Opens the store in a directory, making what is absent and clearing what an earlier process left half written.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let layout = Layout::create(root)?;
        let lock = layout.lock()?;
        layout.clear_uploads()?;
        let listing = names::load(&layout)?;
        let (pushes, _) = broadcast::channel(PUSH_BACKLOG);
        let store = Self {
            inner: Arc::new(Inner {
                listing: RwLock::new(Arc::new(listing)),
                writing: Mutex::new(()),
                stamps: verify::Stamps::default(),
                damaged: Mutex::default(),
                damage: Notify::new(),
                pushes,
                _lock: lock,
                layout,
            }),
        };
        store.survey();
        Ok(store)
    }

    /// Runs blocking work on the store from async code.
    pub async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|error| StoreError::Cancelled(error.to_string()))?
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        &self.inner.layout.root
    }

    /// Begins to write a blob.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        BlobWriter::create(self.clone())
    }

    /// Opens a blob for reading, with its length in bytes. A file that was not re-hashed since it last changed is hashed
    /// first, so that wrong bytes are never served: `None` if it is absent or proves to be wrong.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<(File, u64)>, StoreError> {
        match self.blob_state(digest) {
            BlobState::Verified => {}
            BlobState::Absent => return Ok(None),
            BlobState::Unverified => {
                if self.verify(digest)? != BlobState::Verified {
                    return Ok(None);
                }
            }
        }
        let path = self.inner.layout.blob(digest);
        let open = || {
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            Ok::<_, io::Error>((file, size))
        };
        match open() {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("open", &path, error)),
        }
    }

    /// Reads a blob that must be small (a manifest): `None` if it is absent, wrong, or larger than a manifest may be.
    pub fn read_small(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((mut file, size)) = self.open_blob(digest)? else {
            return Ok(None);
        };
        if size > manifest::MAX_MANIFEST as u64 {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(size as usize);
        io::Read::read_to_end(&mut file, &mut bytes)
            .map_err(|error| StoreError::io("read", &self.inner.layout.blob(digest), error))?;
        Ok(Some(bytes))
    }

    /// Whether a blob's file is here at all, and how long it is. Says nothing about its bytes.
    pub fn blob_len(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.inner.layout.blob(digest))
            .ok()
            .filter(fs::Metadata::is_file)
            .map(|m| m.len())
    }

    /// Marks a blob as wanted although it is not here, and wakes whoever mends the store if that was not known.
    pub fn report_damage(&self, digest: Digest, damage: Damage) {
        if lock(&self.inner.damaged).insert(digest, damage).is_none() {
            tracing::warn!(%digest, ?damage, "an image's blob is not in this region's store; it will be fetched again");
            self.inner.damage.notify_one();
        }
    }

    /// The blobs that are wanted and not here.
    pub fn damaged(&self) -> BTreeMap<Digest, Damage> {
        lock(&self.inner.damaged).clone()
    }

    /// Notes that a blob is here again.
    pub(crate) fn forget_damage(&self, digest: &Digest) {
        lock(&self.inner.damaged).remove(digest);
    }

    /// Waits until damage is reported. For one waiter.
    pub async fn wait_for_damage(&self) {
        self.inner.damage.notified().await;
    }

    /// Everything pushed to this region from now on; copies from other regions are not pushes.
    pub fn pushes(&self) -> broadcast::Receiver<Pushed> {
        self.inner.pushes.subscribe()
    }

    /// Notes what kept manifests refer to and is not here.
    fn survey(&self) {
        for digest in self.listing().live_manifests() {
            let missing = match self.read_small(&digest) {
                Ok(Some(bytes)) => match manifest::parse(&bytes, None) {
                    Ok((_, document)) => document.references().into_iter().map(|part| part.digest).collect(),
                    Err(_) => Vec::new(),
                },
                Ok(None) => vec![digest],
                Err(error) => {
                    tracing::warn!(%digest, %error, "cannot read a manifest in the image store");
                    Vec::new()
                }
            };
            for digest in missing.into_iter().filter(|digest| self.blob_len(digest).is_none()) {
                self.report_damage(digest, Damage::Lost);
            }
        }
    }
}

/// Locks, going on after a panic elsewhere: what the locks guard is replaced whole, never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "store/store_tests.rs"]
mod tests;
