//! Files that only their owner reads: directories 0700, files 0600, a whole file at a time.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A file or directory of an instance could not be made, read or written. Worth another try once the cause, often a full or
/// read-only disk, is removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}{hint}", path = path.display(), hint = hint(source))]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Error {
    /// Whether the file or directory was not there.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull => "; the disk is full: free some space, or choose another directory, and try again",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a directory that you may write to"
        }
        _ => "",
    }
}

/// Puts a path and what was tried into an error.
pub(crate) fn fault<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Makes a directory and its parents for the owner alone. One that exists gets the mode, too.
pub fn directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .map_err(fault("make the directory", path))
}

/// Replaces a file as a whole: a reader, and a machine that stops half way, see the old one or the new one.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut next = path.as_os_str().to_owned();
    next.push(".new");
    let next = PathBuf::from(next);
    File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&next)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&next, path))
        .map_err(fault("write", path))
}

/// Writes a value as JSON.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(io::Error::other)
        .map_err(fault("write", path))?;
    write(path, &text)
}

/// Reads a file as text.
pub fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(fault("read", path))
}

/// Removes a directory with all that is in it; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), Error> {
    // Containers leave directories that refuse their owner.
    crate::container::path::remove_tree(path).map_err(fault("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        directory(&inner).unwrap();
        write(&inner.join("f"), b"x").unwrap();
        write(&inner.join("f"), b"y").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&inner.join("f"))), (0o700, 0o600));
        assert_eq!(read(&inner.join("f")).unwrap(), "y");
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "nothing half written is left");
    }

    #[test]
    fn a_directory_that_lets_nobody_in_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        directory(&home.join("image/etc")).unwrap();
        write(&home.join("image/etc/passwd"), b"x").unwrap();
        fs::set_permissions(home.join("image/etc"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(home.join("image"), fs::Permissions::from_mode(0o500)).unwrap();
        remove(&home).unwrap();
        remove(&home).unwrap();
        assert!(!home.exists());
    }

    #[test]
    fn an_error_names_the_path_and_what_was_tried() {
        let error = read(Path::new("/nonexistent/x")).unwrap_err();
        assert!(error.is_missing());
        assert!(error.to_string().starts_with("cannot read /nonexistent/x: "), "{error}");
    }
}
