//! A directory tree reached only through descriptors, never through a symbolic link.
//!
//! What is in a claim was put there by an application, and what is in a mirror came from a peer: neither may lead a walk,
//! a read or a write out of the tree. So every step opens one component below an open directory with `O_NOFOLLOW`.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::LazyLock,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat},
    sys::{
        stat::{
            FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, mkdirat, utimensat,
        },
        statfs::{FsType, TMPFS_MAGIC, fstatfs},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, fsync, geteuid, symlinkat, unlinkat},
};
use serde::{Deserialize, Serialize};

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The directory at the top of a claim that is ours, and never part of a point.
pub(super) const HIDDEN: &str = ".leeward";

/// The inode that makers of ext file systems give to `lost+found`.
const LOST_AND_FOUND: u64 = 11;

const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

static IS_ROOT: LazyLock<bool> = LazyLock::new(|| geteuid().is_root());

/// What a file, directory or link carries besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// The permission bits, set-id and sticky bits included.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds of the last change of the content.
    pub(super) mtime: (i64, u32),
}

/// Which file this is and when its inode last changed: as long as both stay, so does the content, see [`super::scan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) ctime: (i64, u32),
}

/// What kind of thing was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FoundKind {
    Directory,
    Link(Vec<u8>),
    File {
        size: u64,
    },
    /// A socket, pipe or device: not mirrored.
    Other,
}

/// One thing that a walk found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) kind: FoundKind,
    pub(super) meta: Meta,
    pub(super) identity: Identity,
}

impl Found {
    fn new(path: PathBuf, stat: &FileStat) -> Self {
        let nanoseconds = |n: i64| u32::try_from(n).unwrap_or(0);
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => FoundKind::Directory,
            SFlag::S_IFLNK => FoundKind::Link(Vec::new()),
            SFlag::S_IFREG => FoundKind::File {
                size: u64::try_from(stat.st_size).unwrap_or(0),
            },
            _ => FoundKind::Other,
        };
        Self {
            path,
            kind,
            meta: Meta {
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            },
            identity: Identity {
                device: stat.st_dev,
                inode: stat.st_ino,
                ctime: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
            },
        }
    }
}

/// An open directory that everything below is reached from.
#[derive(Debug)]
pub(super) struct Root {
    at: OwnedFd,
    in_memory: bool,
}

impl Root {
    /// Opens a directory. Its own path may lead through links: it was named by the caller, not by data.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let at = open(path, flags, Mode::empty())?;
        let kind = fstatfs(&at)?.filesystem_type();
        let in_memory = kind == TMPFS_MAGIC || kind == RAMFS_MAGIC;
        Ok(Self { at, in_memory })
    }

    /// Whether the tree lies in memory, where writes through a memory map never move a file's times.
    pub(super) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Opens the directory at `path` below, or the root itself for an empty path.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut at = self.at.try_clone()?;
        for name in path.iter() {
            at = openat(&at, name, DIRECTORY, Mode::empty())?;
        }
        Ok(at)
    }

    fn parent<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a name"))?;
        Ok((self.directory(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Does something in the directory that `path` is in. Where its owner may not write there, that is allowed first; a point
    /// that changes names in a directory brings the directory's mode with it.
    fn within<T>(&self, path: &Path, work: impl Fn(&OwnedFd, &OsStr) -> nix::Result<T>) -> io::Result<T> {
        let (parent, name) = self.parent(path)?;
        match work(&parent, name) {
            Err(Errno::EACCES) => {
                let mode = fstat(&parent)?.st_mode & 0o7777;
                fchmod(&parent, Mode::from_bits_truncate(mode | 0o700))?;
                Ok(work(&parent, name)?)
            }
            done => Ok(done?),
        }
    }

    /// Everything in the tree, the root first (with an empty path), each directory before what is in it.
    pub(super) fn walk(&self) -> io::Result<Vec<Found>> {
        let mut found = vec![Found::new(PathBuf::new(), &fstat(&self.at)?)];
        let mut directories = vec![PathBuf::new()];
        while let Some(at) = directories.pop() {
            let below = match self.read_directory(&at) {
                Err(e) if gone(&e) && !at.as_os_str().is_empty() => continue,
                other => other?,
            };
            let deeper = below.iter().filter(|one| one.kind == FoundKind::Directory);
            directories.extend(deeper.map(|one| one.path.clone()));
            found.extend(below);
        }
        Ok(found)
    }

    /// What is in the root itself.
    pub(super) fn list(&self) -> io::Result<Vec<Found>> {
        self.read_directory(Path::new(""))
    }

    /// What the root itself carries.
    pub(super) fn meta(&self) -> io::Result<Meta> {
        Ok(Found::new(PathBuf::new(), &fstat(&self.at)?).meta)
    }

    /// What is in a directory, without what is not the application's.
    fn read_directory(&self, at: &Path) -> io::Result<Vec<Found>> {
        let handle = self.directory(at)?;
        let mut found = vec![];
        for entry in Dir::from_fd(handle.try_clone()?)?.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if let Some(one) = look(&handle, name, at.join(name))?
                && !is_foreign(&one)
            {
                found.push(one);
            }
        }
        Ok(found)
    }

    /// Opens a regular file for reading and says what it is now. `None`: it is gone or no longer a regular file.
    pub(super) fn read(&self, path: &Path) -> io::Result<Option<(File, Found)>> {
        let opened = self.parent(path).and_then(|(parent, name)| {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            Ok(openat(parent, name, flags, Mode::empty())?)
        });
        let file = match opened {
            Ok(fd) => File::from(fd),
            Err(e) if gone(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let found = Found::new(path.to_owned(), &fstat(&file)?);
        Ok(matches!(found.kind, FoundKind::File { .. }).then_some((file, found)))
    }

    /// Looks at one thing. `None`: there is nothing.
    pub(super) fn look(&self, path: &Path) -> io::Result<Option<Found>> {
        match self.parent(path) {
            Ok((parent, name)) => look(&parent, name, path.to_owned()),
            Err(e) if gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens a regular file for reading and writing, making it where it is missing.
    pub(super) fn write(&self, path: &Path) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        let opened = self.within(path, |parent, name| match openat(parent, name, flags, mode) {
            Err(Errno::EACCES) if fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink).is_ok() => {
                openat(parent, name, flags, mode)
            }
            other => other,
        });
        Ok(opened?.into())
    }

    /// Makes a directory; one that is there is left as it is.
    pub(super) fn make_directory(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        self.within(path, |parent, name| {
            match mkdirat(parent, name, Mode::from_bits_truncate(0o700)) {
                Err(Errno::EEXIST) => openat(parent, name, DIRECTORY, Mode::empty()).map(drop),
                other => other,
            }
        })
    }

    /// Makes a symbolic link in place of whatever link is there.
    pub(super) fn make_link(&self, path: &Path, target: &[u8], meta: &Meta) -> io::Result<()> {
        self.remove(path, false)?;
        self.within(path, |parent, name| symlinkat(OsStr::from_bytes(target), parent, name))?;
        let (parent, name) = self.parent(path)?;
        if *IS_ROOT {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            fchownat(&parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        let time = time(meta.mtime);
        Ok(utimensat(&parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
    }

    /// Removes a file, link or empty directory; one that is gone already is no error.
    pub(super) fn remove(&self, path: &Path, directory: bool) -> io::Result<()> {
        let flag = match directory {
            true => UnlinkatFlags::RemoveDir,
            false => UnlinkatFlags::NoRemoveDir,
        };
        match self.within(path, |parent, name| unlinkat(parent, name, flag)) {
            Err(e) if gone(&e) => Ok(()),
            done => done,
        }
    }

    /// Moves a file out of this tree or into it.
    pub(super) fn rename(&self, from: &Path, other: &Root, to: &Path) -> io::Result<()> {
        self.within(from, |from_parent, from_name| {
            let (to_parent, to_name) = other.parent(to).map_err(errno)?;
            match renameat(from_parent, from_name, &to_parent, to_name) {
                Err(Errno::EACCES) => {
                    let mode = fstat(&to_parent)?.st_mode & 0o7777;
                    fchmod(&to_parent, Mode::from_bits_truncate(mode | 0o700))?;
                    renameat(from_parent, from_name, &to_parent, to_name)
                }
                done => done,
            }
        })
    }

    /// Gives a directory its owner, mode and times.
    pub(super) fn dress_directory(&self, path: &Path, meta: &Meta) -> io::Result<()> {
        dress(&self.directory(path)?, meta)
    }

    /// Makes a directory's list of names durable.
    pub(super) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        match self.directory(path) {
            Err(e) if gone(&e) => Ok(()),
            other => Ok(fsync(other?)?),
        }
    }

    /// Makes everything on the file system durable.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        Ok(nix::unistd::syncfs(&self.at)?)
    }
}

/// Whether something is not the application's: ours, or the file system's own, which only root reads.
fn is_foreign(found: &Found) -> bool {
    let of_file_system = found.path == Path::new("lost+found")
        && found.kind == FoundKind::Directory
        && (found.meta.uid, found.identity.inode) == (0, LOST_AND_FOUND);
    of_file_system || found.path == Path::new(HIDDEN)
}

fn look(parent: &OwnedFd, name: &OsStr, path: PathBuf) -> io::Result<Option<Found>> {
    let stat = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::ENOENT) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let mut found = Found::new(path, &stat);
    if let FoundKind::Link(target) = &mut found.kind {
        match readlinkat(parent, name) {
            Ok(text) => *target = text.into_vec(),
            Err(Errno::ENOENT | Errno::EINVAL) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Some(found))
}

/// Gives an open file or directory its owner (where we may), mode and times.
pub(super) fn dress(file: &impl AsFd, meta: &Meta) -> io::Result<()> {
    if *IS_ROOT {
        fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    }
    fchmod(file, Mode::from_bits_truncate(meta.mode))?;
    let time = time(meta.mtime);
    Ok(nix::sys::stat::futimens(file, &time, &time)?)
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn time((seconds, nanoseconds): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, i64::from(nanoseconds))
}

/// Whether an error says that what was named is not there (any more), or that a link stands in its place.
pub(super) fn gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO)
    )
}

/// Makes a directory's list of names durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
