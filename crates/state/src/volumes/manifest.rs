//! What a role's claims hold at a point: every path with its metadata, and for a file a hash of each block.
//!
//! A block is 16 KiB (the last one of a file may be shorter) and its hash the first 16 bytes of BLAKE3; a block of zeros
//! has the hash zero, so that a hole and written zeros are the same. 1 GiB of data takes about 1 MiB here; holes
//! take nothing.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::tree::{Identity, Meta};

/// The length of a block in bytes.
pub(super) const BLOCK: usize = 16 * 1024;

/// A block's hash.
pub(super) type Hash = [u8; 16];

/// The hash of a block that holds only zeros.
pub(super) const ZERO: Hash = [0; 16];

const SEGMENT: usize = 256;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The hash of one block, at most [`BLOCK`] bytes.
pub(super) fn hash(block: &[u8]) -> Hash {
    if ZEROS.get(..block.len()) == Some(block) {
        return ZERO;
    }
    let mut hash = ZERO;
    hash.copy_from_slice(&blake3::hash(block).as_bytes()[..16]);
    hash
}

/// The hashes of a file's blocks. Segments that hold nothing but zeros take no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Blocks(Vec<Option<Box<[Hash; SEGMENT]>>>);

impl Blocks {
    /// A file without data.
    pub(super) const EMPTY: Self = Self(Vec::new());

    /// The hash of block `index`, zero where there is none.
    pub(super) fn get(&self, index: u64) -> Hash {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        match self.0.get(index / SEGMENT) {
            Some(Some(segment)) => segment[index % SEGMENT],
            _ => ZERO,
        }
    }

    /// Sets the hash of block `index`.
    pub(super) fn set(&mut self, index: u64, hash: Hash) {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if hash == ZERO && self.0.get(index / SEGMENT).is_none_or(Option::is_none) {
            return;
        }
        if self.0.len() <= index / SEGMENT {
            self.0.resize(index / SEGMENT + 1, None);
        }
        self.0[index / SEGMENT].get_or_insert_with(|| Box::new([ZERO; SEGMENT]))[index % SEGMENT] = hash;
    }

    /// The hashes that are not zero, in runs: the first block's index, and one hash after the other.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, &[Hash])> {
        self.0
            .iter()
            .zip((0u64..).step_by(SEGMENT))
            .filter_map(|(segment, first)| segment.as_ref().map(|s| (first, &s[..])))
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Link(Vec<u8>),
    File { size: u64, blocks: Blocks },
}

/// One path of a claim.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) meta: Meta,
    pub(super) kind: Kind,
    /// Which inode it was; absent in a manifest that came from a target.
    pub(super) identity: Option<Identity>,
    /// The file may have changed after it was read without its times saying so: read it again.
    pub(super) unsettled: bool,
}

/// A claim's paths, relative to its directory, which itself is the empty path.
pub(super) type Paths = BTreeMap<PathBuf, Arc<Entry>>;

/// What a role's claims hold, by the claim's name.
#[derive(Debug, Clone, Default)]
pub(super) struct Manifest(pub(super) BTreeMap<String, Paths>);

impl Manifest {
    /// The entry at a path of a claim.
    pub(super) fn get(&self, claim: &str, path: &std::path::Path) -> Option<&Arc<Entry>> {
        self.0.get(claim)?.get(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_take_no_memory_and_read_as_zero() {
        let mut blocks = Blocks::default();
        blocks.set(1 << 20, ZERO);
        assert!(blocks.0.is_empty());
        blocks.set(700, [7; 16]);
        assert_eq!(
            (blocks.get(700), blocks.get(699), blocks.get(1 << 40)),
            ([7; 16], ZERO, ZERO)
        );
        assert_eq!(blocks.runs().map(|(first, _)| first).collect::<Vec<_>>(), [512]);
    }

    #[test]
    fn zeros_of_any_length_have_the_hash_of_a_hole() {
        assert_eq!(hash(&[0; 100]), ZERO);
        assert_eq!(hash(&[0; BLOCK]), ZERO);
        assert_ne!(hash(&[1; 100]), ZERO);
    }
}
