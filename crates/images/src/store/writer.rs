//! Writing a blob: hashed as it comes, named only when the hash is right.

use std::io::{self, Write};

use tempfile::NamedTempFile;

use super::{Store, StoreError, lock};
use crate::digest::{Digest, Hasher};

/// A blob being written. Dropped before [`BlobWriter::commit`], it leaves nothing behind.
pub struct BlobWriter {
    store: Store,
    file: NamedTempFile,
    hasher: Hasher,
    len: u64,
}

impl BlobWriter {
    pub(super) fn create(store: Store) -> Result<Self, StoreError> {
        let file = store.inner.layout.temporary()?;
        Ok(Self {
            store,
            file,
            hasher: Hasher::default(),
            len: 0,
        })
    }

    /// How many bytes were written.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends bytes. After an error the writer is of no more use.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all(bytes)
            .map_err(|error| StoreError::io("write", self.file.path(), error))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Makes the blob visible if it is what was promised; otherwise nothing is stored.
    pub fn commit(self, expected: &Digest) -> Result<(), StoreError> {
        let actual = self.hasher.finish();
        if actual != *expected {
            return Err(StoreError::DigestMismatch {
                expected: *expected,
                actual,
            });
        }
        let inner = &self.store.inner;
        // A file that is there and known to be right stays; any other is replaced by these bytes, which are right.
        if self.store.blob_state(expected) != super::BlobState::Verified {
            let _writing = lock(&inner.writing);
            inner.layout.publish(self.file, &inner.layout.blob(expected))?;
        }
        self.store.forget_damage(expected);
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
