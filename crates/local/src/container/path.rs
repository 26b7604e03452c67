//! Resolves paths inside a root directory that is not trusted.
//!
//! An image decides what its symlinks say. Every path that is made from one, or mounted into one, is resolved here as the
//! container itself would resolve it: absolute targets start again at the root. Unlike a kernel, which stops `..` at the
//! root, a path that would climb out is refused, since only a broken or hostile image does that. Nothing else may change
//! the tree while a path is in use (true for stores and fresh root file systems, which are private until they are done).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// As many symlinks as Linux follows in one path.
const MAX_LINKS: u32 = 40;

/// Why a path was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It leads out of the root.
    #[error("the path {path} leads out of its root directory{via}; refused")]
    Escapes {
        /// The path as given.
        path: String,
        /// The symlink that does it, or nothing.
        via: String,
    },
    /// More symlinks than Linux would follow.
    #[error("the path {path} goes through more than {MAX_LINKS} symlinks; refused")]
    Loop {
        /// The path as given.
        path: String,
    },
    /// A component is a file where a directory is needed.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// The component.
        path: String,
    },
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// What was being looked at.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// It contains a NUL or is empty where it may not be.
    #[error("{path:?} is not a usable path")]
    Malformed {
        /// The path as given.
        path: String,
    },
}

/// What happens to the last component.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Last {
    /// A symlink there is followed.
    Follow,
    /// A symlink there is the result itself.
    Keep,
}

/// Where `path` lies on the machine when `root` is `/`. Components that do not exist are taken as they are.
///
/// # Errors
/// When the path leads out of the root, loops, or goes through a file.
pub fn resolve(root: &Path, path: &Path, last: Last) -> Result<PathBuf, Error> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(Error::Malformed {
            path: path.display().to_string(),
        });
    }
    let mut pending: VecDeque<Part> = parts(path);
    let mut at: Vec<OsString> = Vec::new();
    let mut links = 0;
    let mut via = String::new();
    while let Some(part) = pending.pop_front() {
        let name = match part {
            Part::Root => {
                at.clear();
                continue;
            }
            Part::Up => {
                if at.pop().is_none() {
                    return Err(Error::Escapes {
                        path: path.display().to_string(),
                        via,
                    });
                }
                continue;
            }
            Part::Name(name) => name,
        };
        let mut here = root.to_path_buf();
        here.extend(&at);
        here.push(&name);
        let metadata = match here.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                at.push(name);
                continue;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(Error::NotADirectory {
                    path: here.display().to_string(),
                });
            }
            Err(source) => {
                return Err(Error::Io {
                    path: here.display().to_string(),
                    source,
                });
            }
        };
        if !metadata.is_symlink() || (pending.is_empty() && last == Last::Keep) {
            at.push(name);
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Error::Loop {
                path: path.display().to_string(),
            });
        }
        let target = std::fs::read_link(&here).map_err(|source| Error::Io {
            path: here.display().to_string(),
            source,
        })?;
        via = format!(
            " through the symlink {} -> {}",
            Path::new(&name).display(),
            target.display()
        );
        let mut next = parts(&target);
        next.append(&mut pending);
        pending = next;
    }
    let mut resolved = root.to_path_buf();
    resolved.extend(&at);
    Ok(resolved)
}

enum Part {
    Root,
    Up,
    Name(OsString),
}

fn parts(path: &Path) -> VecDeque<Part> {
    path.components()
        .filter_map(|component| match component {
            Component::RootDir => Some(Part::Root),
            Component::ParentDir => Some(Part::Up),
            Component::Normal(name) => Some(Part::Name(name.to_owned())),
            Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// Removes a tree even where directories inside refuse their owner, as an overlay's work directory does.
///
/// # Errors
/// The first failure that is not that something was already gone.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            unlock(path)?;
            std::fs::remove_dir_all(path)
        }
    }
}

fn unlock(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = directory.symlink_metadata()?;
    if !metadata.is_dir() {
        return Ok(());
    }
    if metadata.permissions().mode() & 0o700 != 0o700 {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
    }
    for entry in std::fs::read_dir(directory)? {
        unlock(&entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        std::fs::create_dir_all(at.join("usr/lib")).unwrap();
        std::fs::create_dir_all(at.join("run")).unwrap();
        std::fs::write(at.join("file"), b"").unwrap();
        symlink("usr/lib", at.join("lib")).unwrap();
        std::fs::create_dir(at.join("var")).unwrap();
        symlink("/run", at.join("var/run")).unwrap();
        symlink("../../outside", at.join("up")).unwrap();
        symlink("self", at.join("self")).unwrap();
        root
    }

    #[test]
    fn symlinks_are_followed_inside_the_root() {
        let root = tree();
        for (path, wanted) in [
            ("lib/x", "usr/lib/x"),
            ("/lib/x", "usr/lib/x"),
            ("var/run/pid", "run/pid"),
            ("./usr/../usr/lib", "usr/lib"),
            ("missing/deep", "missing/deep"),
        ] {
            assert_eq!(
                resolve(root.path(), Path::new(path), Last::Follow).unwrap(),
                root.path().join(wanted),
                "{path}"
            );
        }
        assert_eq!(
            resolve(root.path(), Path::new("lib"), Last::Keep).unwrap(),
            root.path().join("lib")
        );
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let root = tree();
        for path in ["../etc/passwd", "usr/../../x", "up/passwd", "/var/run/../../x"] {
            assert!(
                matches!(
                    resolve(root.path(), Path::new(path), Last::Follow),
                    Err(Error::Escapes { .. })
                ),
                "{path}"
            );
        }
        assert!(matches!(
            resolve(root.path(), Path::new("self/x"), Last::Follow),
            Err(Error::Loop { .. })
        ));
        assert!(matches!(
            resolve(root.path(), Path::new("file/x"), Last::Follow),
            Err(Error::NotADirectory { .. })
        ));
    }

    #[test]
    fn a_tree_with_a_locked_directory_is_removed() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("top");
        std::fs::create_dir_all(top.join("work/work")).unwrap();
        std::fs::set_permissions(top.join("work/work"), std::fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }
}
