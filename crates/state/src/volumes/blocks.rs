//! Reads a file block by block and finds what differs from what the target has.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek64},
};

use super::manifest::{BLOCK, Blocks, ZERO, hash};

/// A change of a file against what the target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// `length` bytes that lie in the spool at `at`.
    Data {
        offset: u64,
        length: u64,
        at: u64,
    },
    Zero {
        offset: u64,
        length: u64,
    },
}

/// Changed bytes, kept until they are encoded: in memory up to 8 MiB, then in a file of the staging directory.
pub(super) struct Spool {
    file: Option<tempfile::SpooledTempFile>,
    length: u64,
}

impl Spool {
    pub(super) fn new(staging: &Path) -> Self {
        Self {
            file: Some(tempfile::spooled_tempfile_in(8 << 20, staging)),
            length: 0,
        }
    }

    /// One that keeps nothing, for when only the hashes are wanted.
    pub(super) fn discard() -> Self {
        Self { file: None, length: 0 }
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.length;
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)?;
        }
        self.length += bytes.len() as u64;
        Ok(at)
    }

    pub(super) fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("nothing was kept"));
        };
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(buffer)
    }
}

/// Reads a file, skipping its holes, and compares it block by block with what the target has.
pub(super) fn compare(
    file: &File,
    size: u64,
    base: Option<(u64, &Blocks)>,
    spool: &mut Spool,
) -> io::Result<(Blocks, Vec<Change>)> {
    let (base_size, base_blocks) = base.unwrap_or((0, const { &Blocks::EMPTY }));
    let mut blocks = Blocks::default();
    let mut changes = Vec::new();
    let mut buffer = [0; BLOCK];
    let mut data_at = 0;
    for index in 0..size.div_ceil(BLOCK as u64) {
        let offset = index * BLOCK as u64;
        let length = (size - offset).min(BLOCK as u64) as usize;
        if data_at <= offset {
            data_at = next_data(file, offset)?;
        }
        let bytes = &mut buffer[..length];
        let now = if data_at >= offset + length as u64 {
            ZERO
        } else {
            file.read_exact_at(bytes, offset)?;
            hash(bytes)
        };
        blocks.set(index, now);
        let known = base_size.saturating_sub(offset).min(BLOCK as u64) as usize;
        let before = base_blocks.get(index);
        if known == length && before == now || known < length && before == ZERO && now == ZERO {
            continue;
        }
        if now == ZERO {
            push(
                &mut changes,
                Change::Zero {
                    offset,
                    length: length as u64,
                },
            );
            continue;
        }
        // A file that grew: when the target's part of the block is still its start, only the rest travels.
        let kept = match known < length && hash(&bytes[..known]) == before {
            true => known,
            false => 0,
        };
        let rest = &bytes[kept..];
        let at = spool.push(rest)?;
        push(
            &mut changes,
            Change::Data {
                offset: offset + kept as u64,
                length: rest.len() as u64,
                at,
            },
        );
    }
    Ok((blocks, changes))
}

/// Where the next data is, the file's size at least when there is none.
pub(super) fn next_data(file: &File, offset: u64) -> io::Result<u64> {
    match lseek64(file, i64::try_from(offset).unwrap_or(i64::MAX), Whence::SeekData) {
        Ok(at) => Ok(u64::try_from(at).unwrap_or(0)),
        Err(Errno::ENXIO) => Ok(u64::MAX),
        // A file system that does not know holes has only data.
        Err(Errno::EINVAL) => Ok(offset),
        Err(e) => Err(e.into()),
    }
}

fn push(changes: &mut Vec<Change>, next: Change) {
    match (changes.last_mut(), next) {
        (
            Some(Change::Data { offset, length, at }),
            Change::Data {
                offset: o,
                length: l,
                at: a,
            },
        ) if *offset + *length == o && *at + *length == a => {
            *length += l;
        }
        (Some(Change::Zero { offset, length }), Change::Zero { offset: o, length: l }) if *offset + *length == o => {
            *length += l;
        }
        _ => changes.push(next),
    }
}
