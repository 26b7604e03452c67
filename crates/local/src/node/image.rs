//! The node's images: pulled through the region's registry, verified, unpacked once and kept by digest.
//!
//! ```text
//! images/refs/SHA256(REFERENCE).json   which digest a reference was resolved to last
//! images/SHA256/                       one image: rootfs/ and image.json; renamed into place when complete
//! images/tmp/                          what is on the way
//! ```
//!
//! Everything that arrives is hashed: the manifest and index (against the digest that names them), the configuration, each
//! layer as sent, and each layer unpacked (against the configuration's `diff_ids`).

mod reference;
mod registry;
mod unpack;

pub(super) use reference::Reference;

use std::path::PathBuf;

use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use registry::Registry;

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The reference itself is wrong; it never works.
    #[error("{reference:?} is no image reference: {reason}")]
    Invalid {
        /// As the pod has it.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// imagePullPolicy Never, and it is not here.
    #[error("the image {0} is not on this node and its imagePullPolicy is Never")]
    NeverPull(String),
    /// The registry does not have it.
    #[error("the region's registry has no {what} of {reference}")]
    Missing {
        /// Manifest or blob.
        what: String,
        /// The image.
        reference: String,
    },
    /// The registry could not be asked.
    #[error("cannot pull through the region's registry: {0}")]
    Registry(String),
    /// Bytes that are not what their digest says.
    #[error("{what} is corrupt: it should be {wanted} and is {found}; it was not used")]
    Digest {
        /// What was read.
        what: String,
        /// By its descriptor.
        wanted: String,
        /// By its bytes.
        found: String,
    },
    /// It is something else than a container image.
    #[error("{reference} is not a container image: {reason}")]
    NotAnImage {
        /// As the pod has it.
        reference: String,
        /// What it is.
        reason: String,
    },
    /// No variant for this machine.
    #[error("{reference} has no image for {wanted}; it has: {found}")]
    Platform {
        /// As the pod has it.
        reference: String,
        /// This machine.
        wanted: String,
        /// What the index lists.
        found: String,
    },
    /// A layer that cannot be unpacked.
    #[error("a layer of {reference} cannot be unpacked: {reason}")]
    Layer {
        /// The image.
        reference: String,
        /// The cause.
        reason: String,
    },
    /// The node's disk.
    #[error("cannot keep the image: {0}")]
    Io(#[from] std::io::Error),
}

/// An unpacked image.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Image {
    /// `REPOSITORY@DIGEST` of what the reference named.
    pub(super) id: String,
    /// Digest of the image's manifest.
    pub(super) digest: String,
    /// What the image says about its process.
    pub(super) config: Config,
    /// The unpacked root file system.
    #[serde(skip)]
    pub(super) root: PathBuf,
}

/// The part of an image's configuration that a node acts on.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Config {
    pub(super) entrypoint: Vec<String>,
    pub(super) cmd: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) working_dir: String,
    pub(super) user: String,
    pub(super) stop_signal: String,
    /// `dev.leeward.plain-process=true`: it can run without namespaces.
    pub(super) plain_process: bool,
}

/// When to ask the registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Policy {
    Always,
    IfNotPresent,
    Never,
}

impl Policy {
    /// As Kubernetes defaults it: `Always` for the tag `latest`.
    pub(super) fn of(declared: Option<&str>, reference: &Reference) -> Self {
        match declared {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            _ if reference.is_latest() => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

/// The store of a node.
pub(super) struct Images {
    dir: PathBuf,
    registry: Registry,
    /// One pull at a time, as the kubelet does it; whoever waits finds the image there.
    pulling: tokio::sync::Mutex<()>,
}

#[derive(Deserialize, Serialize)]
struct Resolved {
    reference: String,
    image: String,
    id: String,
}

/// The index's digest, the manifest and its digest.
struct Found {
    id_digest: String,
    digest: String,
    manifest: ImageManifest,
}

impl Images {
    /// A store in `dir`, pulling through the registry at `base` (such as `http://127.1.16.2:5000`).
    pub(super) fn new(dir: PathBuf, base: &str) -> Result<Self, Error> {
        // What a node that died was unpacking is of no use.
        let _ = crate::container::path::remove_tree(&dir.join("tmp"));
        std::fs::create_dir_all(dir.join("tmp"))?;
        std::fs::create_dir_all(dir.join("refs"))?;
        Ok(Self {
            dir,
            registry: Registry::new(base)?,
            pulling: tokio::sync::Mutex::new(()),
        })
    }

    /// The image, if it is here and `policy` is content with that.
    pub(super) fn present(&self, reference: &Reference, policy: Policy) -> Option<Image> {
        if policy == Policy::Always {
            return None;
        }
        let resolved: Resolved = serde_json::from_slice(&std::fs::read(self.record(reference)).ok()?).ok()?;
        Some(Image {
            id: resolved.id,
            ..self.load(&resolved.image)?
        })
    }

    /// Pulls what is missing and returns the unpacked image.
    pub(super) async fn pull(&self, reference: &Reference, policy: Policy) -> Result<Image, Error> {
        let _one = self.pulling.lock().await;
        if let Some(image) = self.present(reference, policy) {
            return Ok(image);
        }
        if policy == Policy::Never {
            return Err(Error::NeverPull(reference.to_string()));
        }
        let found = self.find(reference).await?;
        let id = format!("{}@{}", reference.name(), found.id_digest);
        let image = match self.load(&found.digest) {
            Some(image) => image,
            None => self.fetch(reference, &found).await?,
        };
        let record = Resolved {
            reference: reference.to_string(),
            image: found.digest,
            id: id.clone(),
        };
        std::fs::write(
            self.record(reference),
            serde_json::to_vec(&record).map_err(std::io::Error::other)?,
        )?;
        Ok(Image { id, ..image })
    }

    /// Asks for the manifest, by way of an index where there is one.
    async fn find(&self, reference: &Reference) -> Result<Found, Error> {
        let (bytes, id_digest) = self.registry.manifest(reference, &reference.selector()).await?;
        let not_an_image = |reason: String| Error::NotAnImage {
            reference: reference.to_string(),
            reason,
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| not_an_image(format!("its manifest is not JSON ({error})")))?;
        if value.get("manifests").is_none() {
            return Ok(Found {
                digest: id_digest.clone(),
                id_digest,
                manifest: manifest(&bytes).map_err(not_an_image)?,
            });
        }
        let index: ImageIndex = serde_json::from_slice(&bytes)
            .map_err(|error| not_an_image(format!("its index cannot be read ({error})")))?;
        let digest = choose(&index, ARCHITECTURE).map_err(|found| Error::Platform {
            reference: reference.to_string(),
            wanted: format!("linux/{ARCHITECTURE}"),
            found,
        })?;
        let (bytes, digest) = self.registry.manifest(reference, &digest).await?;
        Ok(Found {
            id_digest,
            digest,
            manifest: manifest(&bytes).map_err(not_an_image)?,
        })
    }

    async fn fetch(&self, reference: &Reference, found: &Found) -> Result<Image, Error> {
        let not_an_image = |reason: String| Error::NotAnImage {
            reference: reference.to_string(),
            reason,
        };
        let tmp = tempfile::Builder::new()
            .prefix("pull-")
            .tempdir_in(self.dir.join("tmp"))?;
        let config_file = tmp.path().join("config");
        self.registry
            .blob(reference, found.manifest.config().digest().as_ref(), &config_file)
            .await?;
        let config: ImageConfiguration = serde_json::from_slice(&std::fs::read(&config_file)?)
            .map_err(|error| not_an_image(format!("its configuration cannot be read ({error})")))?;
        let diff_ids = config.rootfs().diff_ids();
        let layers = found.manifest.layers();
        if diff_ids.len() != layers.len() {
            return Err(not_an_image(format!(
                "{} layers but {} diff_ids",
                layers.len(),
                diff_ids.len()
            )));
        }
        let rootfs = tmp.path().join("rootfs");
        std::fs::create_dir(&rootfs)?;
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let blob = tmp.path().join("layer");
            self.registry.blob(reference, layer.digest().as_ref(), &blob).await?;
            let (root, file, diff_id) = (rootfs.clone(), blob.clone(), diff_id.clone());
            tokio::task::spawn_blocking(move || unpack::layer(&file, &root, &diff_id))
                .await
                .map_err(std::io::Error::other)?
                .map_err(|error| Error::Layer {
                    reference: reference.to_string(),
                    reason: error.to_string(),
                })?;
            std::fs::remove_file(&blob)?;
        }
        let image = Image {
            id: String::new(),
            digest: found.digest.clone(),
            config: summary(&config),
            root: PathBuf::new(),
        };
        std::fs::write(
            tmp.path().join("image.json"),
            serde_json::to_vec(&image).map_err(std::io::Error::other)?,
        )?;
        std::fs::remove_file(&config_file)?;
        let place = self.place(&found.digest);
        let _ = crate::container::path::remove_tree(&place);
        std::fs::rename(tmp.keep(), &place)?;
        self.load(&found.digest)
            .ok_or_else(|| std::io::Error::other("the image vanished while it was stored").into())
    }

    fn load(&self, digest: &str) -> Option<Image> {
        let place = self.place(digest);
        let image: Image = serde_json::from_slice(&std::fs::read(place.join("image.json")).ok()?).ok()?;
        Some(Image {
            root: place.join("rootfs"),
            ..image
        })
    }

    fn place(&self, digest: &str) -> PathBuf {
        self.dir.join(digest.trim_start_matches("sha256:"))
    }

    fn record(&self, reference: &Reference) -> PathBuf {
        let name = hex::encode(Sha256::digest(reference.to_string().as_bytes()));
        self.dir.join("refs").join(format!("{name}.json"))
    }
}

/// This machine's architecture in the words of the OCI image specification.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};

/// Picks the manifest for linux on `architecture`, or says what there is.
fn choose(index: &ImageIndex, architecture: &str) -> Result<String, String> {
    let mut seen = Vec::new();
    for entry in index.manifests() {
        let Some(platform) = entry.platform() else {
            // One manifest without a platform is an index that some tools make for a single image.
            if index.manifests().len() == 1 {
                return Ok(entry.digest().to_string());
            }
            continue;
        };
        if platform.os().to_string() == "linux" && platform.architecture().to_string() == architecture {
            return Ok(entry.digest().to_string());
        }
        seen.push(format!("{}/{}", platform.os(), platform.architecture()));
    }
    Err(if seen.is_empty() {
        "nothing that names a platform".to_owned()
    } else {
        seen.join(", ")
    })
}

/// Reads an image manifest; anything else (charts, signatures and other artifacts) is refused with what it is.
fn manifest(bytes: &[u8]) -> Result<ImageManifest, String> {
    let manifest: ImageManifest =
        serde_json::from_slice(bytes).map_err(|error| format!("its manifest cannot be read ({error})"))?;
    let kind = manifest.config().media_type().to_string();
    let known = [
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    ];
    if known.contains(&kind.as_str()) {
        Ok(manifest)
    } else {
        Err(format!("its configuration is of type {kind}"))
    }
}

fn summary(image: &ImageConfiguration) -> Config {
    let Some(config) = image.config() else {
        return Config::default();
    };
    let labels = config.labels().clone().unwrap_or_default();
    Config {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        user: config.user().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone().unwrap_or_default(),
        plain_process: labels
            .get("dev.leeward.plain-process")
            .is_some_and(|value| value == "true"),
    }
}

#[cfg(test)]
mod tests;
