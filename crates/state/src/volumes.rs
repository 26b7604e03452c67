//! Volumes of a writer role, mirrored to a standby as complete points.
//!
//! The flow: [`source`] freezes the role's pods, finds what changed in all of the role's claims, lets the pods go on and
//! encodes what changed as one body (`wire`); [`link`] sends it; [`target`] makes it durable, answers, and applies it to
//! its mirror. [`mirror`] repeats that at an interval and knows the last point that the standby confirmed.
//!
//! Invariants:
//! - A point is all claims of a role at one instant. A target shows complete points only, whatever is killed when.
//! - A target keeps the role and its highest epoch beside the data, durable before anything else of that epoch is
//!   accepted; it refuses lower epochs, and a region that is the writer accepts nothing until it was told to follow.
//! - Nothing that only one region had is deleted: what a returning region had more is kept aside and measured.

mod blocks;
pub mod link;
mod manifest;
pub mod mirror;
mod patch;
mod scan;
pub mod source;
pub mod target;
mod tree;
mod wire;

use std::{fmt, path::PathBuf, str::FromStr};

use leeward_core::name::{Epoch, RoleKey};
use serde::{Deserialize, Serialize};

/// One claim of a role: its name within the role, the same in every region, and where this region has its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The name of the PersistentVolumeClaim.
    pub name: String,
    /// The directory behind it in this region. For a promotion it must be on the mirror's file system.
    pub directory: PathBuf,
}

/// What names a point for good: the first 16 bytes of the BLAKE3 hash of its body, which holds its parent's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PointId([u8; 16]);

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PointId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not the id of a point: expected 32 hexadecimal digits");
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u128::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| wrong())
    }
}

impl Serialize for PointId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for PointId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            Deserialize::deserialize(deserializer).map(Self)
        }
    }
}

/// A complete, consistent copy of a role's data at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The point's id.
    pub id: PointId,
    /// The role whose data it is.
    pub role: RoleKey,
    /// The epoch of the writer that it was taken from.
    pub epoch: Epoch,
    /// Its number: one more than its parent's, 1 where there is no parent.
    pub sequence: u64,
    /// The point that it was made from.
    pub parent: Option<PointId>,
    /// Milliseconds since 1970 by the source's clock: every write that was finished before is in the point.
    pub source_time_ms: u64,
}

/// Milliseconds since 1970, now.
pub(crate) fn unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
