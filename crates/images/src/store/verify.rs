//! Which blobs were re-hashed in this store, and what their files looked like then.
//!
//! A blob counts as verified while its file has the device, inode, length and times that it had when it was read from this
//! disk and hashed. Any change makes it unverified again, and a wrong hash moves it to quarantine. The stamps are kept in
//! `verified/`; one that is lost or torn only costs another hash, so they are not synced.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Damage, Store, StoreError, lock};
use crate::digest::{Digest, Hasher};

/// How often a blob whose file is replaced while it is hashed is hashed again at once.
const REPLACED: usize = 3;

/// What is known of a blob's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// It is not there.
    Absent,
    /// It is there, and was not re-hashed since it last changed.
    Unverified,
    /// It is there and its bytes, read from this disk, hashed to its name.
    Verified,
}

/// What a file looked like when it was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Verified {
    stamp: Stamp,
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
}

/// The stamps in memory, read from disk as they are asked for.
#[derive(Default)]
pub(super) struct Stamps {
    known: Mutex<HashMap<Digest, Verified>>,
    /// Held while a blob is hashed, so that nobody hashes it beside.
    hashing: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

pub(crate) fn unix_ms(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

impl Store {
    /// What is known of a blob, at the price of one `stat`.
    pub fn blob_state(&self, digest: &Digest) -> BlobState {
        let Ok(metadata) = fs::metadata(self.inner.layout.blob(digest)) else {
            return BlobState::Absent;
        };
        if !metadata.is_file() {
            return BlobState::Absent;
        }
        match self.stamp(digest) {
            Some(verified) if verified.stamp == Stamp::of(&metadata) => BlobState::Verified,
            _ => BlobState::Unverified,
        }
    }

    /// How long ago a blob was last re-hashed; `None` if that is not known.
    pub fn verified_age(&self, digest: &Digest, now: SystemTime) -> Option<Duration> {
        let at_ms = self.stamp(digest)?.at_ms;
        Some(Duration::from_millis(unix_ms(now).saturating_sub(at_ms)))
    }

    /// Re-hashes a blob from the disk unless it is known to be right. One whose bytes are wrong is moved to quarantine,
    /// reported as damage, and absent from then on.
    pub fn verify(&self, digest: &Digest) -> Result<BlobState, StoreError> {
        self.alone(digest, || {
            // Whoever held the blob before may have hashed it; a file that was replaced meanwhile is hashed once more.
            for _ in 0..REPLACED {
                match self.blob_state(digest) {
                    BlobState::Unverified => self.rehash(digest)?,
                    known => return Ok(known),
                };
            }
            Ok(self.blob_state(digest))
        })
    }

    /// Re-hashes a blob from the disk, whatever is known of it.
    pub fn verify_again(&self, digest: &Digest) -> Result<BlobState, StoreError> {
        self.alone(digest, || self.rehash(digest))
    }

    fn alone<T>(&self, digest: &Digest, work: impl FnOnce() -> T) -> T {
        let hashing = &self.inner.stamps.hashing;
        let turn = Arc::clone(lock(hashing).entry(*digest).or_default());
        let done = {
            let _turn = lock(&turn);
            work()
        };
        drop(turn);
        lock(hashing).retain(|_, turn| Arc::strong_count(turn) > 1);
        done
    }

    fn rehash(&self, digest: &Digest) -> Result<BlobState, StoreError> {
        let path = self.inner.layout.blob(digest);
        let hash = || {
            let mut file = File::open(&path)?;
            let before = Stamp::of(&file.metadata()?);
            let mut hasher = Hasher::default();
            let mut buffer = vec![0; 256 << 10];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    n => hasher.update(&buffer[..n]),
                }
            }
            Ok::<_, io::Error>((before, Stamp::of(&file.metadata()?), hasher.finish()))
        };
        let (before, after, actual) = match hash() {
            Ok(hashed) => hashed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BlobState::Absent),
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        if actual == *digest && before == after {
            self.keep_stamp(
                digest,
                Verified {
                    stamp: after,
                    at_ms: unix_ms(SystemTime::now()),
                },
            );
            return Ok(BlobState::Verified);
        }
        let _writing = lock(&self.inner.writing);
        self.drop_stamp(digest);
        // Another file may have taken the name meanwhile; that one was not hashed here and is not to blame.
        let same = fs::metadata(&path).is_ok_and(|now| Stamp::of(&now).inode == before.inode);
        if actual == *digest || !same {
            return Ok(self.blob_state(digest));
        }
        let away = self.inner.layout.quarantine(digest);
        fs::rename(&path, &away).map_err(|error| StoreError::io("move aside", &path, error))?;
        tracing::error!(%digest, %actual, moved_to = %away.display(), "a stored blob's bytes are not what its name says");
        self.report_damage(*digest, Damage::Corrupt);
        Ok(BlobState::Absent)
    }

    fn stamp(&self, digest: &Digest) -> Option<Verified> {
        if let Some(verified) = lock(&self.inner.stamps.known).get(digest) {
            return Some(*verified);
        }
        let bytes = fs::read(self.inner.layout.stamp(digest)).ok()?;
        let verified: Verified = serde_json::from_slice(&bytes).ok()?;
        lock(&self.inner.stamps.known).insert(*digest, verified);
        Some(verified)
    }

    fn keep_stamp(&self, digest: &Digest, verified: Verified) {
        lock(&self.inner.stamps.known).insert(*digest, verified);
        let path = self.inner.layout.stamp(digest);
        let kept = serde_json::to_vec(&verified)
            .map_err(io::Error::other)
            .and_then(|bytes| fs::write(&path, bytes));
        if let Err(error) = kept {
            tracing::debug!(%digest, %error, "cannot keep the record of a verified blob; it will be hashed again after a restart");
        }
    }

    fn drop_stamp(&self, digest: &Digest) {
        lock(&self.inner.stamps.known).remove(digest);
        // Absent already is as good as removed, and a stale stamp matches no file.
        let _ = fs::remove_file(self.inner.layout.stamp(digest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_rot_without_changing_a_files_times_are_found_by_hashing_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = Digest::of(b"content");
        let mut writer = store.writer().unwrap();
        writer.append(b"content").unwrap();
        writer.commit(&digest).unwrap();
        let path = store.inner.layout.blob(&digest);
        fs::write(&path, b"contenu").unwrap();
        // As if nothing but the bytes had changed.
        let stamp = Stamp::of(&fs::metadata(&path).unwrap());
        store.keep_stamp(&digest, Verified { stamp, at_ms: 0 });
        assert_eq!(store.verify(&digest).unwrap(), BlobState::Verified);
        assert_eq!(store.verify_again(&digest).unwrap(), BlobState::Absent);
        assert_eq!(store.damaged().get(&digest), Some(&Damage::Corrupt));
    }
}
