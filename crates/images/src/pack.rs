//! Makes an OCI image of files: deterministic, so that unchanged files give an unchanged digest.
//!
//! A layer is an uncompressed tar with every time and owner zero: packing costs one read of the files, and the layer's
//! digest is its `diff_id`. Nothing is kept in memory: [`image`] reads the files once to hash them, and
//! [`OciImage::store`] or [`push()`] reads them again only where the layer is not there already.
//!
//! ```no_run
//! # fn main() -> Result<(), leeward_images::pack::PackError> {
//! use std::path::Path;
//! use leeward_images::pack::{self, Config, Entry};
//!
//! let mut entries = pack::executable(Path::new("/proc/self/exe"), "/usr/bin/leeward")?;
//! entries.push(Entry::directory("/tmp", 0o1777));
//! let config = Config { entrypoint: vec!["/usr/bin/leeward".into(), "sample".into()], ..Config::default() };
//! let image = pack::image(vec![entries], &config)?;
//! # Ok(()) }
//! ```

mod archive;
mod executable;
mod layer;
mod push;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci_spec::image::{
    Arch, ConfigBuilder, DescriptorBuilder, ImageConfigurationBuilder, ImageManifestBuilder, MediaType, Os,
    RootFsBuilder, SCHEMA_VERSION,
};

use crate::digest::Digest;
use crate::reference::{Reference, Selector};
use crate::store::{Store, StoreError};

pub use executable::executable;
pub use layer::{Entry, Source};
pub use push::push;

use layer::Layer;

/// What a container of the image runs with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a pod specification's `args` replaces.
    pub cmd: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `UID[:GID]`, or names of the image's own `/etc/passwd`; empty for root.
    pub user: String,
    /// Where the program starts; empty for `/`.
    pub working_dir: String,
}

/// An image, its layers still being the files that it was made of.
#[derive(Debug, Clone)]
pub struct OciImage {
    layers: Vec<Layer>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

/// Why an image was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file could not be read.
    #[error("cannot read {} for the image: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A path within the image is not absolute and plain.
    #[error("`{0}` cannot be a path within an image: write an absolute path without `..`")]
    Path(String),
    /// The layer could not be written.
    #[error("cannot write the image's layer: {0}")]
    Write(#[source] std::io::Error),
    /// Not an executable that can be run from an image.
    #[error("{} cannot be packed as a program: {why}", path.display())]
    Executable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A shared library that the program needs was not found.
    #[error("{} needs the shared library {library}, which is in none of the places where it is looked for: {}", path.display(), places.join(", "))]
    Library {
        /// Who needs it.
        path: PathBuf,
        /// The library's name.
        library: String,
        /// Where it was looked for.
        places: Vec<String>,
    },
    /// A document of the image could not be built.
    #[error("cannot describe the image: {0}")]
    Describe(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry did not take it.
    #[error("the registry at {base_url} did not take the image: {why}")]
    Registry {
        /// Which registry.
        base_url: String,
        /// What it said.
        why: String,
    },
}

/// Packs layers of files, the lowest first. Blocks while the files are read and hashed.
pub fn image(layers: Vec<Vec<Entry>>, config: &Config) -> Result<OciImage, PackError> {
    let layers = layers.into_iter().map(Layer::measure).collect::<Result<Vec<_>, _>>()?;
    let config = describe_config(&layers, config)?;
    let manifest = describe_manifest(&layers, &config)?;
    Ok(OciImage {
        layers,
        config,
        manifest,
    })
}

fn describe_config(layers: &[Layer], config: &Config) -> Result<Vec<u8>, PackError> {
    let mut process = ConfigBuilder::default().entrypoint(config.entrypoint.clone()).env(
        config
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>(),
    );
    if !config.cmd.is_empty() {
        process = process.cmd(config.cmd.clone());
    }
    if !config.user.is_empty() {
        process = process.user(config.user.clone());
    }
    if !config.working_dir.is_empty() {
        process = process.working_dir(config.working_dir.clone());
    }
    let process = process.build().map_err(describe)?;
    let diff_ids = layers.iter().map(|layer| layer.digest.to_string()).collect::<Vec<_>>();
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(diff_ids)
        .build()
        .map_err(describe)?;
    let document = ImageConfigurationBuilder::default()
        .architecture(Arch::default())
        .os(Os::default())
        .rootfs(rootfs)
        .config(process)
        .build()
        .map_err(describe)?;
    // Through a map, whose keys are sorted: the labels' own map has no order of its own.
    let mut document = serde_json::to_value(&document).map_err(describe)?;
    if !config.labels.is_empty() {
        document["config"]["Labels"] = serde_json::to_value(&config.labels).map_err(describe)?;
    }
    serde_json::to_vec(&document).map_err(describe)
}

fn describe_manifest(layers: &[Layer], config: &[u8]) -> Result<Vec<u8>, PackError> {
    let descriptor = |media_type: MediaType, digest: Digest, size: u64| {
        let digest = digest
            .to_string()
            .parse::<oci_spec::image::Digest>()
            .map_err(describe)?;
        DescriptorBuilder::default()
            .media_type(media_type)
            .digest(digest)
            .size(size)
            .build()
            .map_err(describe)
    };
    let size = config.len() as u64;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(MediaType::ImageConfig, Digest::of(config), size)?)
        .layers(
            layers
                .iter()
                .map(|layer| descriptor(MediaType::ImageLayer, layer.digest, layer.size))
                .collect::<Result<Vec<_>, _>>()?,
        )
        .build()
        .map_err(describe)?;
    serde_json::to_vec(&manifest).map_err(describe)
}

fn describe(error: impl std::fmt::Display) -> PackError {
    PackError::Describe(error.to_string())
}

impl OciImage {
    /// The manifest's digest: what the image is known by.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The layers' length together, in bytes.
    pub fn layers_len(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// Writes the image into a store as a push at the time `now` does. Blocks.
    pub fn store(&self, store: &Store, reference: &Reference, now: SystemTime) -> Result<Digest, PackError> {
        for layer in &self.layers {
            if store.blob_len(&layer.digest).is_none() {
                let writer = layer.write(store.writer()?)?;
                writer.commit(&layer.digest)?;
            }
        }
        let mut writer = store.writer()?;
        writer.append(&self.config)?;
        writer.commit(&Digest::of(&self.config))?;
        let selector = selector_for_push(reference);
        let media_type = Some(crate::manifest::OCI_MANIFEST);
        Ok(store.push_manifest(&reference.repository, &selector, media_type, &self.manifest, now)?)
    }
}

/// A tag is what a push gives; only a reference without one is pushed by its digest.
fn selector_for_push(reference: &Reference) -> Selector {
    reference
        .tag
        .clone()
        .map_or_else(|| reference.selector(), Selector::Tag)
}

/// An absolute, plain path within an image, without its leading slash.
fn inner_path(path: &str) -> Result<&Path, PackError> {
    let bad = || PackError::Path(path.to_owned());
    let relative = path.strip_prefix('/').filter(|rest| !rest.is_empty()).ok_or_else(bad)?;
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if relative.split('/').all(plain) {
        Ok(Path::new(relative))
    } else {
        Err(bad())
    }
}

#[cfg(test)]
#[path = "pack/pack_tests.rs"]
mod tests;
