//! One command at a time: held while the directory is made or removed, and while what is in it changes.

use std::{
    fs::File,
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Error, config::Layout, files};

pub(super) fn absolute(dir: &Path) -> Result<PathBuf, Error> {
    Ok(std::path::absolute(dir).map_err(files::fault("find", dir))?)
}

/// Held while the directory is made or removed: of the directory that it lies in, since a lock inside would go with it.
pub(super) fn turn(dir: &Path) -> Result<Option<File>, Error> {
    let dir = absolute(dir)?;
    let Some(parent) = dir.parent() else { return Ok(None) };
    let file = match File::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(dir)),
        opened => opened.map_err(files::fault("open", parent))?,
    };
    file.lock().map_err(files::fault("lock", parent))?;
    Ok(Some(file))
}

/// Held until it is dropped. The directory may have been removed while it was waited for.
pub(super) fn lock(layout: &Layout) -> Result<File, Error> {
    let path = layout.lock();
    if !layout.dir().exists() {
        return Err(Error::Missing(layout.dir().to_owned()));
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(files::fault("open", &path))?;
    file.lock().map_err(files::fault("lock", &path))?;
    let held = file.metadata().map_err(files::fault("read", &path))?;
    let is_there = std::fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino()));
    if is_there {
        Ok(file)
    } else {
        Err(Error::Missing(layout.dir().to_owned()))
    }
}
