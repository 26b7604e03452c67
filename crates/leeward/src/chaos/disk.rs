//! Disks of their own for regions, so that one can be full: a file system in memory over a region's directory, in a mount namespace
//! that ends with this program.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use crate::output;

/// What a region may hold. Its images are most of it.
const SIZE: &str = "size=3g";
/// The file that fills it.
const BALLAST: &str = "ballast";

/// Leaves the machine's mounts; before any second thread is started.
pub(crate) fn isolate() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("cannot keep mounts to this program")
}

/// A region's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// Puts a region's directory on a disk of its own, with what is in it. Nothing may run in it yet.
    pub(crate) fn mount(directory: &Path) -> anyhow::Result<Self> {
        let aside = tempfile::tempdir()?;
        copy(directory, aside.path())?;
        mount(
            Some("leeward-region"),
            directory,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(SIZE),
        )
        .with_context(|| format!("cannot mount a disk at {}", directory.display()))?;
        copy(aside.path(), directory)?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// Fills it to its last byte.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let path = self.directory.join(BALLAST);
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let (mut length, mut step) = (0, 256 << 20);
        while step > 0 {
            match fallocate(&file, FallocateFlags::empty(), length, step) {
                Ok(()) => length += step,
                Err(Errno::ENOSPC) => step /= 4,
                Err(error) => return Err(error).context("the disk cannot be filled"),
            }
        }
        Ok(())
    }

    /// Gives the room back.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.directory.join(BALLAST)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("the disk cannot be freed")
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    /// Its directory can be removed then; what still uses it keeps it until it ends.
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.directory, MntFlags::MNT_DETACH) {
            output::say(format_args!(
                "the disk at {} stays until this program ends: {error}",
                self.directory.display()
            ));
        }
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let done = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    ensure!(
        done.context("cp cannot be started")?.success(),
        "{} cannot be copied",
        from.display()
    );
    Ok(())
}
