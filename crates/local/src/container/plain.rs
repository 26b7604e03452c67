//! The stand-in for machines that refuse user namespaces: an ordinary process, from an image that says it can bear that.
//!
//! The program comes from the unpacked image; everything else is the machine's. The working directory is the container's
//! scratch directory, where `mounts/<n>` is a symlink to the n-th volume and `LEEWARD_MOUNT_<n>` its path. What the
//! application leaves behind is found as the keeper's own children, since the keeper adopts orphans.

use std::convert::Infallible;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, chdir};

use super::keeper::Ties;
use super::path::{Last, resolve};
use super::{Context, Error, Mount, Run, init};

/// Makes processes whose parent dies children of this one.
pub(super) fn adopt_orphans() -> Result<(), Error> {
    prctl::set_child_subreaper(true).context(|| "cannot adopt orphans".to_owned())
}

/// Kills what is left of this process's descendants.
pub(super) fn end_orphans() {
    for _ in 0..64 {
        let children = children();
        if children.is_empty() {
            return;
        }
        for child in &children {
            let _ = kill(*child, Signal::SIGKILL);
        }
        for child in children {
            let _ = waitpid(child, None);
        }
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
    }
}

fn children() -> Vec<Pid> {
    let path = format!("/proc/self/task/{}/children", std::process::id());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// Never returns when it worked.
pub(super) fn become_application(run: &Run, ties: &mut Ties) -> Error {
    match prepare(run, ties) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare(run: &Run, ties: &Ties) -> Result<Infallible, Error> {
    ties.die_with_keeper()?;
    let mounts = run.scratch.join("mounts");
    std::fs::create_dir_all(&mounts).context(|| format!("cannot make {}", mounts.display()))?;
    let mut process = run.process.clone();
    for (index, volume) in run.mounts.iter().enumerate() {
        let link = mounts.join(index.to_string());
        symlink(source(volume)?, &link).context(|| format!("cannot make {}", link.display()))?;
        process
            .env
            .push((format!("LEEWARD_MOUNT_{index}"), link.display().to_string()));
    }
    process
        .env
        .push(("LEEWARD_MOUNTS".to_owned(), table(&run.mounts, &mounts)));
    chdir(&run.scratch).context(|| format!("cannot enter {}", run.scratch.display()))?;
    init::finish(&process, &run.image_root, ties)
}

/// `TARGET=PLACE`, separated by colons, so that a program can find a volume by the path that the pod gives it.
fn table(volumes: &[Mount], mounts: &Path) -> String {
    let pair = |(index, volume): (usize, &Mount)| {
        format!(
            "{}={}",
            volume.target.display(),
            mounts.join(index.to_string()).display()
        )
    };
    volumes.iter().enumerate().map(pair).collect::<Vec<_>>().join(":")
}

fn source(volume: &Mount) -> Result<PathBuf, Error> {
    match &volume.sub_path {
        Some(sub) => Ok(resolve(&volume.source, Path::new(sub), Last::Follow)?),
        None => Ok(volume.source.clone()),
    }
}
