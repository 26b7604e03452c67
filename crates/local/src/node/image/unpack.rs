//! Unpacks a layer onto a root file system, as the OCI image layer specification says.
//!
//! A layer is not trusted: every path is resolved inside the root (see [`crate::container::path`]), hard links too; device
//! nodes, owners, set-id bits and extended attributes are left out, since nothing of them has a meaning inside a user
//! namespace with one id. Directories stay writable for their owner, files readable: a container is that owner.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

use crate::container::path::{self, Last, resolve};

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A path that leads out, loops, or runs into a file.
    #[error(transparent)]
    Path(#[from] path::Error),
    /// The archive or the disk.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The content is not what the image's configuration says.
    #[error("its content is {found}, and the image's configuration says {wanted}")]
    DiffId {
        /// By the configuration.
        wanted: String,
        /// By the bytes.
        found: String,
    },
    /// An entry that cannot be made.
    #[error("entry {path}: {source}")]
    Entry {
        /// In the layer.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

/// A name that hides what lower layers have under the rest of it.
const WHITEOUT: &[u8] = b".wh.";
/// A file that hides everything that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Unpacks the layer in `file` (tar, plain or compressed with gzip or zstd, told by its first bytes) onto `root`.
pub(super) fn layer(file: &Path, root: &Path, diff_id: &str) -> Result<(), Error> {
    let mut input = BufReader::with_capacity(128 << 10, File::open(file)?);
    let magic = io::BufRead::fill_buf(&mut input)?;
    let plain: Box<dyn Read> = match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(input)?),
        _ => Box::new(input),
    };
    let mut hashed = Hashed {
        inner: plain,
        hash: Sha256::new(),
    };
    let mut own = Vec::new();
    let mut archive = Archive::new(&mut hashed);
    for entry in archive.entries()? {
        apply(&mut entry?, root, &mut own)?;
    }
    // The hash covers what follows the archive's last entry too.
    io::copy(&mut hashed, &mut io::sink())?;
    let found = format!("sha256:{}", hex::encode(hashed.hash.finalize()));
    if found == diff_id {
        Ok(())
    } else {
        Err(Error::DiffId {
            wanted: diff_id.to_owned(),
            found,
        })
    }
}

struct Hashed {
    inner: Box<dyn Read>,
    hash: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// `own` collects what this layer itself made: an opaque marker that comes late must not hide it.
fn apply<R: Read>(entry: &mut Entry<'_, R>, root: &Path, own: &mut Vec<PathBuf>) -> Result<(), Error> {
    let name = entry.path()?.into_owned();
    let Some(last) = name.components().rfind(|part| *part != Component::CurDir) else {
        return Ok(());
    };
    let Component::Normal(last) = last else {
        return Err(path::Error::Escapes {
            path: name.display().to_string(),
            via: String::new(),
        }
        .into());
    };
    let parent = resolve(root, name.parent().unwrap_or(Path::new("")), Last::Follow)?;
    fs::create_dir_all(&parent)?;
    if last.as_bytes() == OPAQUE {
        return hide_all(&parent, own);
    }
    if let Some(hidden) = last.as_bytes().strip_prefix(WHITEOUT) {
        let hidden = Path::new(std::ffi::OsStr::from_bytes(hidden));
        // `.wh...` would name the parent.
        if !hidden.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(path::Error::Escapes {
                path: name.display().to_string(),
                via: String::new(),
            }
            .into());
        }
        return Ok(remove(&parent.join(hidden))?);
    }
    let place = parent.join(last);
    make(entry, root, &place).map_err(|error| match error {
        Error::Io(source) => Error::Entry {
            path: name.display().to_string(),
            source,
        },
        other => other,
    })?;
    own.push(place);
    Ok(())
}

fn make<R: Read>(entry: &mut Entry<'_, R>, root: &Path, place: &Path) -> Result<(), Error> {
    let kind = entry.header().entry_type();
    let mode = entry.header().mode().unwrap_or(0o644) & 0o1777;
    let there = place.symlink_metadata().ok();
    if kind == EntryType::Directory {
        if !there.is_some_and(|there| there.is_dir()) {
            remove(place)?;
            fs::create_dir(place)?;
        }
        return Ok(fs::set_permissions(place, fs::Permissions::from_mode(mode | 0o700))?);
    }
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            remove(place)?;
            let mut file = File::create_new(place)?;
            io::copy(entry, &mut file)?;
            file.set_permissions(fs::Permissions::from_mode(mode & 0o777 | 0o400))?;
        }
        EntryType::Symlink => {
            let target = entry
                .link_name()?
                .ok_or_else(|| io::Error::other("a symlink without a target"))?;
            remove(place)?;
            symlink(target, place)?;
        }
        EntryType::Link => {
            let target = entry
                .link_name()?
                .ok_or_else(|| io::Error::other("a hard link without a target"))?;
            let target = resolve(root, &target, Last::Keep)?;
            if target != place {
                remove(place)?;
                fs::hard_link(target, place)?;
            }
        }
        // Device nodes and fifos: a container gets /dev from its node, and nothing ships a fifo that it needs.
        _ => {}
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(there) if there.is_dir() => path::remove_tree(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn hide_all(directory: &Path, own: &[PathBuf]) -> Result<(), Error> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if own.iter().any(|mine| mine == &path) {
            continue;
        }
        if own.iter().any(|mine| mine.starts_with(&path)) {
            hide_all(&path, own)?;
        } else {
            remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, Header};

    enum Item<'a> {
        File(&'a str, &'a str),
        Dir(&'a str),
        Link(&'a str, &'a str),
        Hard(&'a str, &'a str),
    }
    use Item::{Dir, File as F, Hard, Link};

    fn tar(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for item in items {
            let mut header = Header::new_gnu();
            let (name, data, kind, link) = match item {
                F(name, data) => (name, *data, EntryType::Regular, None),
                Dir(name) => (name, "", EntryType::Directory, None),
                Link(name, to) => (name, "", EntryType::Symlink, Some(to)),
                Hard(name, to) => (name, "", EntryType::Link, Some(to)),
            };
            // Written by hand: the builder itself refuses the hostile names.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            if let Some(to) = link {
                header.as_gnu_mut().unwrap().linkname[..to.len()].copy_from_slice(to.as_bytes());
            }
            header.set_entry_type(kind);
            header.set_mode(if kind == EntryType::Directory { 0o555 } else { 0o4755 });
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack(root: &Path, items: &[Item<'_>]) -> Result<(), Error> {
        put(root, &tar(items), &tar(items))
    }

    fn put(root: &Path, bytes: &[u8], plain: &[u8]) -> Result<(), Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        layer(
            file.path(),
            root,
            &format!("sha256:{}", hex::encode(Sha256::digest(plain))),
        )
    }

    #[test]
    fn later_layers_replace_and_hide() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        unpack(
            root.path(),
            &[
                Dir("etc/"),
                F("etc/a", "1"),
                F("etc/b", "1"),
                Dir("opt/"),
                F("opt/old", "1"),
            ],
        )
        .unwrap();
        unpack(
            root.path(),
            &[
                F("etc/.wh.a", ""),
                F("./etc/b", "2"),
                F("opt/new", "1"),
                F("opt/.wh..wh..opq", ""),
                Hard("etc/c", "etc/b"),
            ],
        )
        .unwrap();
        assert!(!at("etc/a").exists());
        assert_eq!(fs::read_to_string(at("etc/b")).unwrap(), "2");
        assert_eq!(fs::read_to_string(at("etc/c")).unwrap(), "2");
        assert!(!at("opt/old").exists() && at("opt/new").exists());
        assert_eq!(fs::metadata(at("etc/b")).unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn every_compression_is_told_by_its_first_bytes() {
        let plain = tar(&[F("x", "content")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &plain).unwrap();
        for bytes in [
            plain.clone(),
            gzip.finish().unwrap(),
            zstd::encode_all(plain.as_slice(), 1).unwrap(),
        ] {
            let root = tempfile::tempdir().unwrap();
            put(root.path(), &bytes, &plain).unwrap();
            assert_eq!(fs::read_to_string(root.path().join("x")).unwrap(), "content");
        }
    }

    #[test]
    fn what_leads_out_of_the_root_is_refused() {
        for items in [
            &[F("../evil", "x")][..],
            &[F("a/../../evil", "x")],
            &[Link("a", "../.."), F("a/evil", "x")],
            &[Link("a", "../../etc"), Hard("b", "a/passwd")],
            &[Hard("b", "../../etc/passwd")],
            &[F("a/..", "x")],
            &[F(".wh...", "")],
        ] {
            let outer = tempfile::tempdir().unwrap();
            let root = outer.path().join("deep/root");
            fs::create_dir_all(&root).unwrap();
            assert!(unpack(&root, items).is_err());
            assert!(!outer.path().join("evil").exists() && !outer.path().join("deep/evil").exists());
        }
    }

    #[test]
    fn an_absolute_symlink_stays_inside() {
        let root = tempfile::tempdir().unwrap();
        unpack(root.path(), &[Dir("run/"), Link("var", "/run"), F("var/pid", "1")]).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("run/pid")).unwrap(), "1");
    }

    #[test]
    fn content_that_is_not_what_the_configuration_says_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(
            put(root.path(), &tar(&[F("x", "1")]), b"other"),
            Err(Error::DiffId { .. })
        ));
    }
}
