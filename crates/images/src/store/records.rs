//! Tags and manifests of each repository, and the rule for two regions that disagree.
//!
//! Every record carries the time of its push. The **newest push wins**, in every region, whatever order the records arrive
//! in; pushes of the same millisecond are told apart by digest (the greater wins), and a deletion loses a tie. A push
//! takes a time later than the record that it replaces, so that it wins even where this region's clock is behind. A
//! deletion is a record too: absence elsewhere is not deletion.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::reference::{Repository, Selector, Tag};

/// What a tag names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The manifest.
    pub digest: Digest,
    /// When it was pushed, in milliseconds since the Unix epoch.
    pub pushed_ms: u64,
    /// Whether the push took the tag away; `digest` is then what it named before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// A manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRecord {
    /// The type to serve it with.
    pub media_type: String,
    /// When it was pushed, in milliseconds since the Unix epoch.
    pub pushed_ms: u64,
    /// Whether the push took the manifest away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

impl TagRecord {
    /// Whether this record wins over another of the same tag.
    pub fn supersedes(&self, other: &Self) -> bool {
        (self.pushed_ms, !self.deleted, self.digest) > (other.pushed_ms, !other.deleted, other.digest)
    }
}

impl ManifestRecord {
    /// Whether this record wins over another of the same manifest.
    pub fn supersedes(&self, other: &Self) -> bool {
        let key = |r: &Self| (r.pushed_ms, !r.deleted, r.media_type.clone());
        key(self) > key(other)
    }
}

/// One repository's records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRecords {
    /// By tag, deleted ones included.
    #[serde(default)]
    pub tags: BTreeMap<Tag, TagRecord>,
    /// By digest, deleted ones included.
    #[serde(default)]
    pub manifests: BTreeMap<Digest, ManifestRecord>,
}

/// Everything that a store names: what regions compare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// By repository.
    #[serde(default)]
    pub repositories: BTreeMap<Repository, RepositoryRecords>,
}

impl Listing {
    /// The tag's record unless it is absent or deleted.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> Option<&TagRecord> {
        self.repositories
            .get(repository)?
            .tags
            .get(tag)
            .filter(|record| !record.deleted)
    }

    /// The manifest's record unless it is absent or deleted.
    pub fn manifest(&self, repository: &Repository, digest: &Digest) -> Option<&ManifestRecord> {
        self.repositories
            .get(repository)?
            .manifests
            .get(digest)
            .filter(|record| !record.deleted)
    }

    /// The digest that a selector means at the moment.
    pub fn resolve(&self, repository: &Repository, selector: &Selector) -> Option<Digest> {
        let digest = match selector {
            Selector::Tag(tag) => self.tag(repository, tag)?.digest,
            Selector::Digest(digest) => *digest,
        };
        self.manifest(repository, &digest).map(|_| digest)
    }

    /// The time of the newest push, in milliseconds since the Unix epoch.
    pub fn newest(&self) -> Option<u64> {
        let times = |records: &RepositoryRecords| {
            let tags = records.tags.values().map(|record| record.pushed_ms);
            tags.chain(records.manifests.values().map(|record| record.pushed_ms))
                .max()
        };
        self.repositories.values().filter_map(times).max()
    }

    /// Every manifest that some repository keeps.
    pub fn live_manifests(&self) -> Vec<Digest> {
        let all = self.repositories.values().flat_map(|records| &records.manifests);
        all.filter(|(_, record)| !record.deleted)
            .map(|(digest, _)| *digest)
            .collect()
    }
}

/// A manifest with what is needed to serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A push to this region: what other regions are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Where to.
    pub repository: Repository,
    /// The tag or digest that was pushed or deleted.
    pub selector: Selector,
    /// The manifest.
    pub digest: Digest,
}
