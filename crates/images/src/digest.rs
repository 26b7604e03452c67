//! Content digests: the only name by which a store knows bytes.
//!
//! Invariant: a [`Digest`] is always a well-formed SHA-256, so that its hexadecimal form is safe as a file name. OCI knows
//! other algorithms; registries need only this one (OCI image-spec 1.1, "Registered algorithms"), and every tool uses it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A SHA-256 digest, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Why a text is no digest. Not worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not `ALGORITHM:HEX` with the right length and lower-case digits.
    #[error("`{0}` is not a digest: write `sha256:` and 64 lower-case hexadecimal digits")]
    Malformed(String),
    /// A well-formed digest of an algorithm that this registry does not keep.
    #[error("digest algorithm `{0}` is not supported: use sha256")]
    Unsupported(String),
}

impl Digest {
    /// The digest of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Malformed(text.chars().take(160).collect());
        let (algorithm, digits) = text.split_once(':').ok_or_else(malformed)?;
        if algorithm != "sha256" {
            let named = !algorithm.is_empty() && algorithm.len() <= 64 && algorithm.bytes().all(is_algorithm_byte);
            return Err(if named {
                DigestError::Unsupported(algorithm.to_owned())
            } else {
                malformed()
            });
        }
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| malformed())?;
        Ok(Self(bytes))
    }
}

fn is_algorithm_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+._-".contains(&byte)
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Hashes bytes as they stream by.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_round_trips_through_its_text() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn malformed_digests_are_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        let long = format!("sha256:{}", "a".repeat(65));
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:zz",
            "sha256:../../etc/passwd",
            &upper,
            &long,
            ":aa",
            "../x:aa",
        ] {
            assert!(
                matches!(text.parse::<Digest>(), Err(DigestError::Malformed(_))),
                "{text}"
            );
        }
        let other = format!("sha512:{}", "a".repeat(128));
        assert_eq!(other.parse::<Digest>(), Err(DigestError::Unsupported("sha512".into())));
    }

    #[test]
    fn streamed_and_whole_hashes_agree() {
        let mut hasher = Hasher::default();
        hasher.update(b"ab");
        hasher.update(b"c");
        assert_eq!(hasher.finish(), Digest::of(b"abc"));
    }
}
