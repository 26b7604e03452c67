//! Directories of etcd's data: copied, moved and given to their owner, durably.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

use super::Error;

/// Puts a path and what was tried into an error.
pub(super) fn fault(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::File { action, path, source }
}

/// Makes a directory that only its owner reads, unless it is there.
pub(super) fn private_directory(path: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(fault("make the directory", path))
}

/// Locks a file as etcd locks its own, until what is given back is dropped.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let opened = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = opened.map_err(fault("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::InUse {
            path: path.display().to_string(),
        }),
        Err(fs::TryLockError::Error(error)) => Err(fault("lock", path)(error)),
    }
}

/// A file's content; none where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(fault("read", path)),
    }
}

/// Writes a value as JSON: the file is there as a whole or not at all.
pub(super) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Error> {
    let next = path.with_extension("part");
    let written = serde_json::to_vec_pretty(value)
        .map_err(io::Error::other)
        .and_then(|text| {
            fs::write(&next, text)?;
            File::open(&next)?.sync_all()
        });
    written.map_err(fault("write", path))?;
    rename(&next, path)
}

/// Removes a directory with all that is in it, or does nothing where there is none.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(fault("remove", path)),
    }
}

/// Moves a file or a directory, durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(fault("move", from))?;
    for path in [from, to] {
        let parent = path.parent().unwrap_or(Path::new("."));
        // The parent of what was moved away may be what was moved.
        if let Ok(parent) = File::open(parent) {
            parent.sync_all().map_err(fault("write", path))?;
        }
    }
    Ok(())
}

/// Copies a directory.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    private_directory(to)?;
    for entry in fs::read_dir(from).map_err(fault("read", from))? {
        let entry = entry.map_err(fault("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(fault("read", &source))?.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(fault("copy", &source))?;
        }
    }
    Ok(())
}

/// Gives a directory and all in it to the owner of `like`, and has it on the disk.
pub(super) fn give(path: &Path, like: &Path) -> Result<(), Error> {
    let meta = |path: &Path| fs::symlink_metadata(path).map_err(fault("read", path));
    let (own, wanted) = (meta(path)?, meta(like)?);
    if (own.uid(), own.gid()) != (wanted.uid(), wanted.gid()) {
        let given = std::os::unix::fs::lchown(path, Some(wanted.uid()), Some(wanted.gid()));
        given.map_err(fault("give to its owner", path))?;
    }
    if own.is_dir() {
        for entry in fs::read_dir(path).map_err(fault("read", path))? {
            give(&entry.map_err(fault("read", path))?.path(), like)?;
        }
    }
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(fault("write", path))
}
