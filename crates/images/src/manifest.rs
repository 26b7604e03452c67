//! What a manifest refers to: a pure reading of OCI and Docker manifests and indexes.
//!
//! Only what a registry must know is read: which bytes must be present before the manifest may be, and which of an index's
//! manifests belongs to this machine. Everything else in the document is carried, byte for byte.

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};
use serde::Deserialize;

use crate::digest::{Digest, DigestError};

/// The largest manifest that is taken, in bytes (OCI distribution-spec 1.1 asks for at least 4 MiB).
pub const MAX_MANIFEST: usize = 4 << 20;

/// The media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The media types that a client of ours accepts, for an `Accept` header.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Whether a media type is that of an index of manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// Why bytes are no manifest. Not worth a retry.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than [`MAX_MANIFEST`].
    #[error("the manifest has {0} bytes, more than the 4 MiB that are taken")]
    TooLarge(usize),
    /// Not JSON, or not the JSON of a manifest.
    #[error("not an image manifest: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A media type that is neither an image nor an index.
    #[error("manifests of type `{0}` are not kept: push an OCI or Docker (schema 2) image or index")]
    MediaType(String),
    /// The document's own `mediaType` is not the one it was sent with.
    #[error("the manifest was sent as `{sent}` but says that it is `{stated}`")]
    MediaTypeMismatch {
        /// The request's `Content-Type`.
        sent: String,
        /// The document's `mediaType`.
        stated: String,
    },
    /// A descriptor's digest is malformed or of another algorithm.
    #[error("the manifest refers to a bad digest: {0}")]
    Digest(#[from] DigestError),
}

/// Bytes that a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Their digest.
    pub digest: Digest,
    /// Their length in bytes, as the manifest states it.
    pub size: u64,
}

/// A member of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The member's manifest.
    pub part: Part,
    /// Operating system and architecture as the index states them; `None` where it does not.
    pub platform: Option<(String, String)>,
}

/// A manifest's references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image: its configuration and its layers.
    Image {
        /// Configuration first, then the layers in order.
        parts: Vec<Part>,
    },
    /// Several manifests, usually one a platform.
    Index {
        /// In the index's order.
        members: Vec<Member>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde_json::Value>,
}

/// Reads a manifest. `sent_as` is the `Content-Type` it came with; without one the document's own `mediaType` counts, and
/// without that a document with `manifests` is an index. Returns the media type to serve it with.
pub fn parse(bytes: &[u8], sent_as: Option<&str>) -> Result<(String, Document), ManifestError> {
    if bytes.len() > MAX_MANIFEST {
        return Err(ManifestError::TooLarge(bytes.len()));
    }
    let envelope: Envelope = serde_json::from_slice(bytes)?;
    let sent = sent_as
        .map(|t| t.split(';').next().unwrap_or(t).trim().to_owned())
        .filter(|t| !t.is_empty());
    if let (Some(sent), Some(stated)) = (&sent, &envelope.media_type)
        && sent != stated
    {
        return Err(ManifestError::MediaTypeMismatch {
            sent: sent.clone(),
            stated: stated.clone(),
        });
    }
    let fallback = if envelope.manifests.is_some() {
        OCI_INDEX
    } else {
        OCI_MANIFEST
    };
    let media_type = sent.or(envelope.media_type).unwrap_or_else(|| fallback.to_owned());
    let document = match media_type.as_str() {
        OCI_MANIFEST | DOCKER_MANIFEST => image(&serde_json::from_slice(bytes)?)?,
        OCI_INDEX | DOCKER_LIST => index(&serde_json::from_slice(bytes)?)?,
        _ => return Err(ManifestError::MediaType(media_type)),
    };
    Ok((media_type, document))
}

fn image(manifest: &ImageManifest) -> Result<Document, ManifestError> {
    let parts = std::iter::once(manifest.config())
        .chain(manifest.layers())
        .map(part)
        .collect::<Result<_, _>>()?;
    Ok(Document::Image { parts })
}

fn index(index: &ImageIndex) -> Result<Document, ManifestError> {
    let member = |descriptor: &Descriptor| {
        let platform = descriptor
            .platform()
            .as_ref()
            .map(|p| (p.os().to_string(), p.architecture().to_string()));
        Ok::<_, ManifestError>(Member {
            part: part(descriptor)?,
            platform,
        })
    };
    Ok(Document::Index {
        members: index.manifests().iter().map(member).collect::<Result<_, _>>()?,
    })
}

fn part(descriptor: &Descriptor) -> Result<Part, ManifestError> {
    Ok(Part {
        digest: descriptor.digest().to_string().parse()?,
        size: descriptor.size(),
    })
}

impl Document {
    /// Every digest that the document refers to directly.
    pub fn references(&self) -> Vec<Part> {
        match self {
            Self::Image { parts } => parts.clone(),
            Self::Index { members } => members.iter().map(|m| m.part.clone()).collect(),
        }
    }

    /// Of an index, the member that this machine would run: the one for its platform, else the first that states none.
    /// `None` for an image, and for an index without one.
    pub fn for_this_platform(&self) -> Option<&Part> {
        let Self::Index { members } = self else { return None };
        let (os, arch) = (Os::default().to_string(), Arch::default().to_string());
        let here = |m: &&Member| m.platform.as_ref().is_some_and(|(o, a)| *o == os && *a == arch);
        members
            .iter()
            .find(here)
            .or_else(|| members.iter().find(|m| m.platform.is_none()))
            .map(|m| &m.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(of: &str) -> String {
        Digest::of(of.as_bytes()).to_string()
    }

    fn image_json() -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":1}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":2}}]}}"#,
            digest("c"),
            digest("l")
        )
    }

    fn index_json(platforms: &[Option<(&str, &str)>]) -> String {
        let members = platforms.iter().enumerate().map(|(i, platform)| {
            let platform = platform
                .map(|(os, arch)| format!(r#","platform":{{"os":"{os}","architecture":"{arch}"}}"#))
                .unwrap_or_default();
            format!(
                r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":9{platform}}}"#,
                digest(&i.to_string())
            )
        });
        let members = members.collect::<Vec<_>>().join(",");
        format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":[{members}]}}"#)
    }

    #[test]
    fn an_image_refers_to_its_configuration_and_layers() {
        for sent in [
            None,
            Some(OCI_MANIFEST),
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
        ] {
            let (media_type, document) = parse(image_json().as_bytes(), sent).unwrap();
            assert_eq!(media_type, OCI_MANIFEST);
            let expected = [(Digest::of(b"c"), 1), (Digest::of(b"l"), 2)].map(|(digest, size)| Part { digest, size });
            assert_eq!(document.references(), expected);
        }
        assert_eq!(
            parse(image_json().as_bytes(), Some(DOCKER_MANIFEST)).unwrap().0,
            DOCKER_MANIFEST
        );
    }

    #[test]
    fn an_index_offers_the_member_of_this_platform() {
        let (os, arch) = (Os::default().to_string(), Arch::default().to_string());
        let here = Some((os.as_str(), arch.as_str()));
        let table = [
            (vec![Some(("windows", "arm")), here], Some("1")),
            (vec![None, here], Some("1")),
            (vec![Some(("windows", "arm")), None], Some("1")),
            (vec![Some(("windows", "arm"))], None),
            (vec![], None),
        ];
        for (platforms, expected) in table {
            let (media_type, document) = parse(index_json(&platforms).as_bytes(), None).unwrap();
            assert_eq!(media_type, DOCKER_LIST);
            let chosen = document.for_this_platform().map(|part| part.digest);
            assert_eq!(chosen, expected.map(|of: &str| Digest::of(of.as_bytes())));
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let spaces = " ".repeat(MAX_MANIFEST + 1);
        let bad_digest = image_json().replace("sha256:", "sha257:");
        let texts = [
            "",
            "{",
            "[]",
            "null",
            "{}",
            r#"{"layers":[]}"#,
            r#"{"manifests":7}"#,
            &spaces,
            &bad_digest,
        ];
        for text in texts {
            assert!(parse(text.as_bytes(), None).is_err(), "{}", &text[..text.len().min(60)]);
        }
        assert!(matches!(
            parse(image_json().as_bytes(), Some("text/html")),
            Err(ManifestError::MediaType(_))
        ));
        let mismatch = parse(index_json(&[]).as_bytes(), Some(OCI_INDEX));
        assert!(matches!(mismatch, Err(ManifestError::MediaTypeMismatch { .. })));
    }
}
