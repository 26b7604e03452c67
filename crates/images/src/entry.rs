//! What an image runs, read from its configuration in this region's store.

use oci_spec::image::ImageConfiguration;

use crate::{
    digest::Digest,
    inventory::Inventory,
    manifest::{self, Document},
    reference::Reference,
    store::Store,
};

/// How deep indexes of indexes are followed.
const MAX_DEPTH: usize = 4;

/// What an image runs where a pod names no command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a pod's `args` replace.
    pub cmd: Vec<String>,
}

impl Inventory {
    /// What the image that a pod names runs, on this machine's platform; none where the region's store does not have it whole enough to know.
    pub fn entry(&self, reference: &str) -> Option<Entry> {
        let reference = Reference::parse(reference).ok()?;
        let store = self.store();
        let digest = store.listing().resolve(&reference.repository, &reference.selector())?;
        let config = read(store, config(store, digest, MAX_DEPTH)?)?;
        let config: ImageConfiguration = serde_json::from_slice(&config).ok()?;
        let config = config.config().as_ref();
        let words = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
        Some(Entry {
            entrypoint: words(config.and_then(|config| config.entrypoint().as_ref())),
            cmd: words(config.and_then(|config| config.cmd().as_ref())),
        })
    }
}

/// The digest of an image's configuration.
fn config(store: &Store, digest: Digest, depth: usize) -> Option<Digest> {
    let (_, document) = manifest::parse(&read(store, digest)?, None).ok()?;
    match (&document, document.for_this_platform()) {
        (Document::Image { parts }, _) => parts.first().map(|part| part.digest),
        (Document::Index { .. }, Some(part)) => config(store, part.digest, depth.checked_sub(1)?),
        (Document::Index { .. }, None) => None,
    }
}

/// A small blob whose bytes are what its digest says.
fn read(store: &Store, digest: Digest) -> Option<Vec<u8>> {
    let bytes = store.read_small(&digest).ok()??;
    (Digest::of(&bytes) == digest).then_some(bytes)
}
