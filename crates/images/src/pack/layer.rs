//! A layer: files in a tar without compression, the same bytes every time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tar::{EntryType, Header};

use super::{PackError, inner_path};
use crate::digest::{Digest, Hasher};

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a file of this machine.
    File(PathBuf),
    /// Here.
    Bytes(Arc<[u8]>),
    /// Nowhere: a directory.
    Directory,
    /// A symbolic link to this path.
    Symlink(String),
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is in the image: absolute, without `..`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub source: Source,
}

impl Entry {
    /// A file with the bytes of a file of this machine.
    pub fn file(path: impl Into<String>, mode: u32, from: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode,
            source: Source::File(from.into()),
        }
    }

    /// A file with these bytes.
    pub fn bytes(path: impl Into<String>, mode: u32, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self {
            path: path.into(),
            mode,
            source: Source::Bytes(bytes.into()),
        }
    }

    /// An empty directory. The directories above files need no entry.
    pub fn directory(path: impl Into<String>, mode: u32) -> Self {
        Self {
            path: path.into(),
            mode,
            source: Source::Directory,
        }
    }

    /// A symbolic link.
    pub fn symlink(path: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            mode: 0o777,
            source: Source::Symlink(target.into()),
        }
    }
}

/// A layer whose bytes are known by digest and length.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// By path, so that the order in which they were given does not matter; a later entry replaces an earlier one.
    entries: BTreeMap<PathBuf, Entry>,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl Layer {
    /// Reads the files once.
    pub(super) fn measure(entries: Vec<Entry>) -> Result<Self, PackError> {
        let mut sorted = BTreeMap::new();
        for entry in entries {
            let path = inner_path(&entry.path)?.to_owned();
            for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                let name = format!("/{}", above.display());
                sorted
                    .entry(above.to_owned())
                    .or_insert_with(|| Entry::directory(name, 0o755));
            }
            sorted.insert(path, entry);
        }
        let measure = write_tar(&sorted, Measure::default())?;
        Ok(Self {
            entries: sorted,
            digest: measure.hasher.finish(),
            size: measure.len,
        })
    }

    /// Writes the tar.
    pub(super) fn write<W: Write>(&self, to: W) -> Result<W, PackError> {
        write_tar(&self.entries, to)
    }
}

fn write_tar<W: Write>(entries: &BTreeMap<PathBuf, Entry>, to: W) -> Result<W, PackError> {
    let mut tar = tar::Builder::new(to);
    for (path, entry) in entries {
        write_entry(&mut tar, path, entry)?;
    }
    tar.into_inner().map_err(PackError::Write)
}

fn write_entry<W: Write>(tar: &mut tar::Builder<W>, path: &Path, entry: &Entry) -> Result<(), PackError> {
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(entry.mode);
    header.set_size(0);
    let written = match &entry.source {
        Source::Directory => {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, path, io::empty())
        }
        Source::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, path, target)
        }
        Source::Bytes(bytes) => {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, &bytes[..])
        }
        Source::File(from) => {
            let read_error = |source| PackError::Read {
                path: from.clone(),
                source,
            };
            let file = File::open(from).map_err(read_error)?;
            let metadata = file.metadata().map_err(read_error)?;
            if !metadata.is_file() {
                return Err(read_error(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is not a regular file",
                )));
            }
            header.set_size(metadata.len());
            // A file that grows or shrinks meanwhile would break the tar: exactly the length stated is taken.
            let mut exact = Exact {
                inner: file,
                left: metadata.len(),
            };
            let appended = tar.append_data(&mut header, path, io::BufReader::with_capacity(1 << 18, &mut exact));
            if appended.is_ok() && exact.left > 0 {
                return Err(read_error(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it shrank while being read",
                )));
            }
            appended
        }
    };
    written.map_err(PackError::Write)
}

/// At most the stated number of bytes of a file.
struct Exact {
    inner: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.inner.read(&mut buffer[..most])?;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Hashes and counts what is written to it.
#[derive(Default)]
struct Measure {
    hasher: Hasher,
    len: u64,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
