//! The directory of an installation's authority: what only the platform's engineers may read.
//!
//! ```text
//! installation.json        what the installation is; without secrets; written last
//! authority-N.pem          an authority's certificate and key
//! spec-N.key               a key that specifications are encrypted with
//! etcd-ca.crt              the authority of etcd's members, where it is another one
//! certificates/NAME.pem    a certificate and its key: of a cluster, of `witness`
//! gates/NAME.key           what a cluster's gates' tokens are derived from
//! members/NAME.pem         of a member of etcd
//! ```
//!
//! Invariants: the directory comes into being as a whole, by one rename; each file is replaced as a whole, a certificate together with its key;
//! `installation.json` names only what is there already. So whatever interrupts a command, the next one finds what was before or what is after.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use leeward_local::instance::files;
use nix::fcntl::{Flock, FlockArg};

use super::installation::{Holder, Installation, VERSION};

const STATE: &str = "installation.json";
/// The authority of etcd's members.
const ETCD_CA: &str = "etcd-ca.crt";

/// An installation's directory, which nobody else changes meanwhile.
pub(super) struct Directory {
    path: PathBuf,
    _lock: Flock<File>,
}

/// Makes the directory, filled by `fill`; or leaves nothing behind.
pub(super) fn create(path: &Path, fill: impl FnOnce(&Directory) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} is no name for a directory", path.display()))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let next = parent.join(format!(".{name}.being-made"));
    let beginning = || format!("{} cannot be made", path.display());
    ensure!(
        parent.is_dir(),
        "{}: there is no directory {}",
        beginning(),
        parent.display()
    );
    files::directory(&next).with_context(beginning)?;
    let directory = Directory {
        _lock: lock(&next)?,
        path: next.clone(),
    };
    // What an interrupted one has left.
    for entry in fs::read_dir(&next).with_context(beginning)? {
        let entry = entry.with_context(beginning)?.path();
        let removed = match entry.is_dir() {
            true => fs::remove_dir_all(&entry),
            false => fs::remove_file(&entry),
        };
        removed.with_context(beginning)?;
    }
    for part in ["certificates", "gates", "members"] {
        files::directory(&next.join(part)).with_context(beginning)?;
    }
    let made = fill(&directory).and_then(|()| {
        sync(&next)?;
        // Onto an empty directory this is one step, too; onto any other it is refused.
        fs::rename(&next, path).with_context(beginning)?;
        sync(parent)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&next);
    }
    made
}

/// Opens the directory, and gives what it says; nothing where there is none, or an empty one.
pub(super) fn open(path: &Path) -> anyhow::Result<Option<(Directory, Installation)>> {
    let entries = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    if !entries {
        return Ok(None);
    }
    let file = path.join(STATE);
    ensure!(
        fs::symlink_metadata(&file).is_ok(),
        "{} is not empty and holds no installation: there is no {STATE} in it; nothing was changed; choose another directory with --dir",
        path.display()
    );
    let directory = Directory {
        _lock: lock(path)?,
        path: path.to_owned(),
    };
    let text = files::read(&file)?;
    let damaged = "it is damaged, and nothing was changed: bring it back from a copy";
    let installation: Installation =
        serde_json::from_str(&text).with_context(|| format!("{}: {damaged}", file.display()))?;
    if installation.version != VERSION {
        bail!(
            "{} is of version {}, and this program knows version {VERSION}: use the program that wrote it",
            file.display(),
            installation.version
        );
    }
    Ok(Some((directory, installation)))
}

fn lock(path: &Path) -> anyhow::Result<Flock<File>> {
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .with_context(|| {
            format!(
                "another command changes {} at this moment: try again once it has ended",
                path.display()
            )
        })
}

fn sync(path: &Path) -> anyhow::Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("{} cannot be written to the disk", path.display()))
}

impl Directory {
    /// Writes down what the installation is.
    pub(super) fn save(&self, installation: &Installation) -> anyhow::Result<()> {
        files::write_json(&self.path.join(STATE), installation)?;
        sync(&self.path)
    }

    /// The file of an authority.
    pub(super) fn authority(&self, number: u32) -> PathBuf {
        self.path.join(format!("authority-{number}.pem"))
    }

    /// The file of a key of specifications.
    pub(super) fn spec_key(&self, number: u32) -> PathBuf {
        self.path.join(format!("spec-{number}.key"))
    }

    /// The file of the authority of etcd's members, where it is another one.
    pub(super) fn etcd_ca(&self) -> PathBuf {
        self.path.join(ETCD_CA)
    }

    /// The file of a cluster's key for its gates.
    pub(super) fn gates(&self, cluster: &str) -> PathBuf {
        self.path.join("gates").join(format!("{cluster}.key"))
    }

    /// The file of a certificate and its key.
    pub(super) fn certificate(&self, holder: &Holder) -> PathBuf {
        match holder {
            Holder::Member(name) => self.path.join("members").join(format!("{name}.pem")),
            other => self.path.join("certificates").join(format!("{}.pem", other.key())),
        }
    }

    /// Replaces a file as a whole.
    pub(super) fn write(&self, file: &Path, text: &str) -> anyhow::Result<()> {
        files::write(file, text.as_bytes())?;
        file.parent().map_or(Ok(()), sync)
    }

    /// Reads a file; nothing where there is none.
    pub(super) fn read(&self, file: &Path) -> anyhow::Result<Option<String>> {
        match files::read(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file.
    pub(super) fn remove(&self, file: &Path) -> anyhow::Result<()> {
        match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be removed", file.display()))
            }
            _ => Ok(()),
        }
    }
}
