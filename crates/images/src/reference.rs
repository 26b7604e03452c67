//! Names of images: pure parsing and normalisation, so that one image has one name in every region.
//!
//! Two roads lead to a [`Repository`]: a reference in a pod specification ([`Reference::parse`], Docker's rules: `sample:1` is
//! `docker.io/library/sample:1`), and a request to a registry ([`Repository::from_request`], containerd's mirror convention:
//! the host is in `?ns=`, or is the path's first component, or is `docker.io`).
//!
//! Invariant: every component of a repository begins with a letter or a digit (a host may begin with `[`), so that a
//! repository is safe as a relative path and never meets the store's own names, which begin with `_`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

/// The registry of a name that states none.
pub const DEFAULT_HOST: &str = "docker.io";
/// The longest repository name with its host, in bytes.
const MAX_NAME: usize = 255;

/// Why a text names no image. Not worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The repository part breaks the grammar.
    #[error("`{name}` is not a repository name: {why}")]
    Name {
        /// What was given, shortened.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// The host part breaks the grammar.
    #[error("`{0}` is not a registry host: write a DNS name or an address, with `:PORT` if need be")]
    Host(String),
    /// The tag breaks the grammar.
    #[error("`{0}` is not a tag: use up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`")]
    Tag(String),
    /// The digest breaks the grammar.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// A repository's full name, its registry's host included: `docker.io/library/sample`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    full: String,
    host_len: usize,
}

impl Repository {
    /// Builds the name from a host and a path below it, checking both.
    pub fn new(host: &str, path: &str) -> Result<Self, ReferenceError> {
        let host = normal_host(host)?;
        check_path(path)?;
        let library = host == DEFAULT_HOST && !path.contains('/');
        let full = if library {
            format!("{host}/library/{path}")
        } else {
            format!("{host}/{path}")
        };
        if full.len() > MAX_NAME {
            return Err(name_error(path, "it is longer than 255 characters"));
        }
        Ok(Self {
            host_len: host.len(),
            full,
        })
    }

    /// The repository that a registry request means: `name` is the path between `/v2/` and the verb, `ns` the mirror
    /// convention's parameter with the host that the client believes it speaks to.
    pub fn from_request(name: &str, ns: Option<&str>) -> Result<Self, ReferenceError> {
        match ns.filter(|ns| !ns.is_empty()) {
            Some(host) => Self::new(host, name),
            None => Self::parse(name),
        }
    }

    /// Parses a name by Docker's rules: the first component is a host if it has a `.` or `:` or is `localhost`.
    pub fn parse(name: &str) -> Result<Self, ReferenceError> {
        match name.split_once('/') {
            Some((host, path)) if looks_like_host(host) => Self::new(host, path),
            _ => Self::new(DEFAULT_HOST, name),
        }
    }

    /// The registry's host, as `docker.io` or `registry.example.com:5000`.
    pub fn host(&self) -> &str {
        &self.full[..self.host_len]
    }

    /// The path below the host, as `library/sample`.
    pub fn path(&self) -> &str {
        &self.full[self.host_len + 1..]
    }

    /// Host and path, as `docker.io/library/sample`.
    pub fn as_str(&self) -> &str {
        &self.full
    }
}

fn looks_like_host(component: &str) -> bool {
    component.contains(['.', ':']) || component == "localhost"
}

fn normal_host(host: &str) -> Result<String, ReferenceError> {
    let error = || ReferenceError::Host(shorten(host));
    if host.is_empty() || host.len() > MAX_NAME {
        return Err(error());
    }
    let lower = host.to_ascii_lowercase();
    let (name, port) = match lower.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or_else(error)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| error())?;
            (None, rest.strip_prefix(':').or((!rest.is_empty()).then_some("")))
        }
        None => match lower.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(lower.as_str()), None),
        },
    };
    let name_is_good = name.is_none_or(|name| {
        name.split('.').all(|label| {
            let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = label.as_bytes();
            edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        })
    });
    let port_is_good = port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    if !name_is_good || !port_is_good {
        return Err(error());
    }
    // Docker Hub answers under three names.
    let hub = matches!(lower.as_str(), "index.docker.io" | "registry-1.docker.io");
    Ok(if hub { DEFAULT_HOST.to_owned() } else { lower })
}

fn check_path(path: &str) -> Result<(), ReferenceError> {
    if path.is_empty() {
        return Err(name_error(path, "it is empty"));
    }
    if path.len() > MAX_NAME {
        return Err(name_error(path, "it is longer than 255 characters"));
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(name_error(path, "it must be lower case"));
    }
    if path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(name_error(
            path,
            "64 hexadecimal digits would be taken for an image's identifier",
        ));
    }
    if !path.split('/').all(is_component) {
        return Err(name_error(
            path,
            "its components are lower-case letters and digits, with `.`, `_`, `__` or dashes between them",
        ));
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (OCI distribution-spec 1.1, "Pulling manifests").
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edges = [component.bytes().next(), component.bytes().next_back()];
    if !edges.into_iter().all(|edge| edge.is_some_and(alphanumeric)) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii() && alphanumeric(c as u8))
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

fn name_error(name: &str, why: &'static str) -> ReferenceError {
    ReferenceError::Name {
        name: shorten(name),
        why,
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(160).collect()
}

/// A tag: up to 128 characters of `[A-Za-z0-9_.-]`, the first a letter, a digit or `_`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag of a reference that states neither tag nor digest.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let good = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::Tag(shorten(text)))
        }
    }
}

/// What of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Whatever the tag names at the moment.
    Tag(Tag),
    /// Exactly this manifest.
    Digest(Digest),
}

impl FromStr for Selector {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            Ok(Self::Tag(text.parse()?))
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(&tag.0),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// An image reference as a pod specification states it, normalised.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Where the image lives.
    pub repository: Repository,
    /// The tag stated, or `latest` when there is neither tag nor digest.
    pub tag: Option<Tag>,
    /// The digest stated; it decides when there is a tag too.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Parses `[HOST/]PATH[:TAG][@DIGEST]` by Docker's rules.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; before it, a port.
        let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[after_slash..].find(':') {
            Some(colon) => (
                &rest[..after_slash + colon],
                Some(rest[after_slash + colon + 1..].parse()?),
            ),
            None => (rest, None),
        };
        let repository = Repository::parse(name)?;
        let tag = if tag.is_none() && digest.is_none() {
            Some(Tag::latest())
        } else {
            tag
        };
        Ok(Self {
            repository,
            tag,
            digest,
        })
    }

    /// What decides which manifest is meant: the digest if there is one.
    pub fn selector(&self) -> Selector {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Selector::Digest(*digest),
            (None, Some(tag)) => Selector::Tag(tag.clone()),
            (None, None) => Selector::Tag(Tag::latest()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.repository.as_str())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{}", tag.0)?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Repository {
    type Error = ReferenceError;

    /// A full name, the host first; unlike [`Repository::parse`] nothing is guessed.
    fn try_from(full: String) -> Result<Self, ReferenceError> {
        let (host, path) = full
            .split_once('/')
            .ok_or_else(|| name_error(&full, "it has no host"))?;
        Self::new(host, path)
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.full
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

impl TryFrom<String> for Tag {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
