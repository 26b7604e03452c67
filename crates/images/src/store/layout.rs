//! Where things are in a store's directory, and how a file is replaced so that a crash leaves the old one or the new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::StoreError;
use crate::digest::Digest;
use crate::reference::{Repository, Tag};

pub(super) const TAGS: &str = "_tags";
pub(super) const MANIFESTS: &str = "_manifests";

/// Paths below a store's root.
pub(super) struct Layout {
    pub(super) root: PathBuf,
}

impl Layout {
    /// Makes the directories that are absent, for the owner only.
    pub(super) fn create(root: &Path) -> Result<Self, StoreError> {
        let layout = Self { root: root.to_owned() };
        for name in ["blobs/sha256", "repositories", "uploads", "verified", "quarantine"] {
            layout.make_dir(&root.join(name))?;
        }
        Ok(layout)
    }

    /// Takes the store for this process; the kernel gives it back when the process ends, however it ends.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let path = self.root.join("lock");
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = open.map_err(|error| StoreError::io("open", &path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse(self.root.clone())),
            Err(fs::TryLockError::Error(error)) => Err(StoreError::io("lock", &path, error)),
        }
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs/sha256").join(&hex[..2]).join(hex)
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    pub(super) fn tag(&self, repository: &Repository, tag: &Tag) -> PathBuf {
        self.repositories()
            .join(repository.as_str())
            .join(TAGS)
            .join(tag.as_str())
    }

    pub(super) fn manifest(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.repositories()
            .join(repository.as_str())
            .join(MANIFESTS)
            .join(digest.hex())
    }

    pub(super) fn stamp(&self, digest: &Digest) -> PathBuf {
        self.root.join("verified").join(digest.hex())
    }

    /// A place in quarantine that is free.
    pub(super) fn quarantine(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("quarantine")
            .join(format!("{}.{}", digest.hex(), uuid::Uuid::new_v4().simple()))
    }

    pub(super) fn make_dir(&self, path: &Path) -> Result<(), StoreError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| StoreError::io("make the directory", path, error))
    }

    pub(super) fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        let uploads = self.root.join("uploads");
        NamedTempFile::new_in(&uploads).map_err(|error| StoreError::io("write in", &uploads, error))
    }

    pub(super) fn clear_uploads(&self) -> Result<(), StoreError> {
        let uploads = self.root.join("uploads");
        let clear = || {
            for entry in fs::read_dir(&uploads)? {
                fs::remove_file(entry?.path())?;
            }
            Ok(())
        };
        clear().map_err(|error| StoreError::io("clear", &uploads, error))
    }

    /// Gives a finished temporary file its name, durably: the bytes before the name, the name before the answer.
    pub(super) fn publish(&self, temporary: NamedTempFile, path: &Path) -> Result<(), StoreError> {
        temporary
            .as_file()
            .sync_all()
            .map_err(|error| StoreError::io("sync", temporary.path(), error))?;
        let parent = path.parent().unwrap_or(&self.root);
        let new_parent = !parent.is_dir();
        self.make_dir(parent)?;
        temporary
            .persist(path)
            .map_err(|error| StoreError::io("rename a file to", path, error.error))?;
        sync_dir(parent)?;
        if new_parent {
            for above in parent
                .ancestors()
                .skip(1)
                .take_while(|above| above.starts_with(&self.root))
            {
                sync_dir(above)?;
            }
        }
        Ok(())
    }

    /// Replaces a small file atomically and durably.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let mut temporary = self.temporary()?;
        temporary
            .write_all(bytes)
            .map_err(|error| StoreError::io("write", path, error))?;
        self.publish(temporary, path)
    }
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let sync: io::Result<()> = File::open(path).and_then(|dir| dir.sync_all());
    sync.map_err(|error| StoreError::io("sync", path, error))
}
