//! Pushing, adopting and deleting what a store names, and reading the names back when it is opened.
//!
//! Every change is on the disk before it is in the listing, and in the listing before anybody is told.

use std::fs;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use super::layout::{Layout, MANIFESTS, TAGS};
use super::records::{Listing, Manifest, ManifestRecord, Pushed, RepositoryRecords, TagRecord};
use super::verify::unix_ms;
use super::{Store, StoreError, lock};
use crate::digest::Digest;
use crate::manifest;
use crate::reference::{Repository, Selector, Tag};

/// Reads every record. One that cannot be read is left out with a warning: the next push or copy replaces it.
pub(super) fn load(layout: &Layout) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    let base = layout.repositories();
    let mut open = vec![base.clone()];
    while let Some(dir) = open.pop() {
        for entry in entries(&dir)? {
            let path = entry.path();
            match entry.file_name().to_str() {
                Some(name @ (TAGS | MANIFESTS)) => load_records(&mut listing, &base, &dir, name)?,
                _ if path.is_dir() => open.push(path),
                _ => {}
            }
        }
    }
    Ok(listing)
}

fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    let read = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| StoreError::io("read the directory", dir, error))
}

fn load_records(listing: &mut Listing, base: &Path, dir: &Path, kind: &str) -> Result<(), StoreError> {
    let name = dir.strip_prefix(base).ok().and_then(Path::to_str).map(str::to_owned);
    let Some(Ok(repository)) = name.map(Repository::try_from) else {
        tracing::warn!(directory = %dir.display(), "not a repository's name: left out");
        return Ok(());
    };
    let records = listing.repositories.entry(repository).or_default();
    for entry in entries(&dir.join(kind))? {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = fs::read(&path).map_err(|error| StoreError::io("read", &path, error))?;
        let loaded = if kind == TAGS {
            name.parse()
                .ok()
                .zip(serde_json::from_slice(&bytes).ok())
                .map(|(tag, record)| {
                    records.tags.insert(tag, record);
                })
        } else {
            format!("sha256:{name}")
                .parse()
                .ok()
                .zip(serde_json::from_slice(&bytes).ok())
                .map(|(digest, record)| {
                    records.manifests.insert(digest, record);
                })
        };
        if loaded.is_none() {
            tracing::warn!(file = %path.display(), "a record of the image store is not readable: left out");
        }
    }
    Ok(())
}

impl Store {
    /// What the store names at the moment.
    pub fn listing(&self) -> Arc<Listing> {
        Arc::clone(&self.inner.listing.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a pushed manifest, everything that it refers to being here already. Returns its digest.
    pub fn push_manifest(
        &self,
        repository: &Repository,
        selector: &Selector,
        media_type: Option<&str>,
        bytes: &[u8],
        now: SystemTime,
    ) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if let Selector::Digest(expected) = selector
            && *expected != digest
        {
            return Err(StoreError::DigestMismatch {
                expected: *expected,
                actual: digest,
            });
        }
        let media_type = self.keep_manifest_bytes(&digest, media_type, bytes)?;
        let writing = lock(&self.inner.writing);
        let listing = self.listing();
        let known = listing.repositories.get(repository);
        let now = unix_ms(now);
        let after = |previous: Option<u64>| previous.map_or(now, |previous| now.max(previous.saturating_add(1)));
        let pushed_ms = after(
            known
                .and_then(|k| k.manifests.get(&digest))
                .map(|record| record.pushed_ms),
        );
        self.write_manifest_record(
            repository,
            &digest,
            ManifestRecord {
                media_type,
                pushed_ms,
                deleted: false,
            },
        )?;
        if let Selector::Tag(tag) = selector {
            let pushed_ms = after(known.and_then(|k| k.tags.get(tag)).map(|record| record.pushed_ms));
            self.write_tag_record(
                repository,
                tag,
                TagRecord {
                    digest,
                    pushed_ms,
                    deleted: false,
                },
            )?;
        }
        drop(writing);
        self.announce(repository, selector, digest);
        Ok(digest)
    }

    /// Takes a manifest and its record from another region, everything that it refers to being here already, unless this
    /// region's record is newer. The record may be a deletion, then without bytes.
    pub fn adopt_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        record: &ManifestRecord,
        bytes: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        if let Some(bytes) = bytes {
            let actual = Digest::of(bytes);
            if actual != *digest {
                return Err(StoreError::DigestMismatch {
                    expected: *digest,
                    actual,
                });
            }
            self.keep_manifest_bytes(digest, Some(&record.media_type), bytes)?;
        } else if !record.deleted {
            let (repository, selector) = (repository.clone(), Selector::Digest(*digest));
            return Err(StoreError::NoManifest { repository, selector });
        }
        let _writing = lock(&self.inner.writing);
        let listing = self.listing();
        let known = listing
            .repositories
            .get(repository)
            .and_then(|k| k.manifests.get(digest));
        if known.is_none_or(|known| record.supersedes(known)) {
            self.write_manifest_record(repository, digest, record.clone())?;
        }
        Ok(())
    }

    /// Takes a tag's record from another region, its manifest being here already, unless this region's record is newer.
    pub fn adopt_tag(&self, repository: &Repository, tag: &Tag, record: &TagRecord) -> Result<(), StoreError> {
        let _writing = lock(&self.inner.writing);
        let listing = self.listing();
        if !record.deleted && listing.manifest(repository, &record.digest).is_none() {
            let (repository, selector) = (repository.clone(), Selector::Digest(record.digest));
            return Err(StoreError::NoManifest { repository, selector });
        }
        let known = listing.repositories.get(repository).and_then(|k| k.tags.get(tag));
        if known.is_none_or(|known| record.supersedes(known)) {
            self.write_tag_record(repository, tag, record.clone())?;
        }
        Ok(())
    }

    /// Takes a tag away, or a manifest and every tag that names it. The bytes stay.
    pub fn delete_manifest(
        &self,
        repository: &Repository,
        selector: &Selector,
        now: SystemTime,
    ) -> Result<Digest, StoreError> {
        let writing = lock(&self.inner.writing);
        let listing = self.listing();
        let absent = || StoreError::NoManifest {
            repository: repository.clone(),
            selector: selector.clone(),
        };
        let digest = listing.resolve(repository, selector).ok_or_else(absent)?;
        let records = listing.repositories.get(repository).ok_or_else(absent)?;
        let now = unix_ms(now);
        let named = |tag: &Tag, record: &TagRecord| match selector {
            Selector::Tag(selected) => tag == selected,
            Selector::Digest(_) => record.digest == digest && !record.deleted,
        };
        for (tag, record) in records.tags.iter().filter(|(tag, record)| named(tag, record)) {
            let pushed_ms = now.max(record.pushed_ms.saturating_add(1));
            self.write_tag_record(
                repository,
                tag,
                TagRecord {
                    digest,
                    pushed_ms,
                    deleted: true,
                },
            )?;
        }
        if let (Selector::Digest(_), Some(record)) = (selector, records.manifests.get(&digest)) {
            let pushed_ms = now.max(record.pushed_ms.saturating_add(1));
            let record = ManifestRecord {
                pushed_ms,
                deleted: true,
                ..record.clone()
            };
            self.write_manifest_record(repository, &digest, record)?;
        }
        drop(writing);
        self.announce(repository, selector, digest);
        Ok(digest)
    }

    /// The manifest that a selector means, with its bytes: `None` if it is not here, or its bytes proved to be wrong.
    pub fn manifest(&self, repository: &Repository, selector: &Selector) -> Result<Option<Manifest>, StoreError> {
        let listing = self.listing();
        let Some(digest) = listing.resolve(repository, selector) else {
            return Ok(None);
        };
        let Some(record) = listing.manifest(repository, &digest) else {
            return Ok(None);
        };
        let Some(bytes) = self.read_small(&digest)? else {
            return Ok(None);
        };
        Ok(Some(Manifest {
            digest,
            media_type: record.media_type.clone(),
            bytes,
        }))
    }

    /// Stores a manifest's bytes after its parts were found here. Returns the media type to serve it with.
    fn keep_manifest_bytes(
        &self,
        digest: &Digest,
        media_type: Option<&str>,
        bytes: &[u8],
    ) -> Result<String, StoreError> {
        let (media_type, document) = manifest::parse(bytes, media_type)?;
        let parts = document.references().into_iter();
        let missing: Vec<_> = parts.map(|p| p.digest).filter(|d| self.blob_len(d).is_none()).collect();
        if !missing.is_empty() {
            return Err(StoreError::MissingParts(missing));
        }
        let mut writer = self.writer()?;
        writer.append(bytes)?;
        writer.commit(digest)?;
        Ok(media_type)
    }

    fn write_manifest_record(
        &self,
        repository: &Repository,
        digest: &Digest,
        record: ManifestRecord,
    ) -> Result<(), StoreError> {
        let path = self.inner.layout.manifest(repository, digest);
        self.write_record(&path, &record)?;
        self.change_listing(repository, |records| {
            records.manifests.insert(*digest, record);
        });
        Ok(())
    }

    fn write_tag_record(&self, repository: &Repository, tag: &Tag, record: TagRecord) -> Result<(), StoreError> {
        let path = self.inner.layout.tag(repository, tag);
        self.write_record(&path, &record)?;
        self.change_listing(repository, |records| {
            records.tags.insert(tag.clone(), record);
        });
        Ok(())
    }

    fn write_record(&self, path: &Path, record: &impl Serialize) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(record).map_err(|error| StoreError::io("write", path, error.into()))?;
        self.inner.layout.replace(path, &bytes)
    }

    /// The caller holds `writing`.
    fn change_listing(&self, repository: &Repository, change: impl FnOnce(&mut RepositoryRecords)) {
        let mut listing = self.inner.listing.write().unwrap_or_else(PoisonError::into_inner);
        change(
            Arc::make_mut(&mut listing)
                .repositories
                .entry(repository.clone())
                .or_default(),
        );
    }

    fn announce(&self, repository: &Repository, selector: &Selector, digest: Digest) {
        let pushed = Pushed {
            repository: repository.clone(),
            selector: selector.clone(),
            digest,
        };
        // Nobody listening is no error: the periodic comparison finds the push too.
        let _ = self.inner.pushes.send(pushed);
    }
}
