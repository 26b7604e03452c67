//! Where a role's directory is: where renames reach the role's claim.
//!
//! That is beside the other roles' directories, or, where the claim is a mount of its own, hidden inside the claim; then a link stands among the
//! others. A mount has no other place to be moved to, so there a promotion and a return exchange what is in the two directories, name by name.
//! Invariants: the link is changed only after the highest epoch is durable in the claim, and nothing is deleted that has data in it.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, symlink},
    },
    path::{Path, PathBuf},
};

use leeward_core::name::{Epoch, RoleKey};
use nix::unistd::geteuid;

use super::{
    Target, TargetError, lock,
    store::{PARTS, Phase, State, Steps, Store, Swap, directory_name, inode, make_directories, sync_parent},
    turn::{exchange, remove_others},
};
use crate::volumes::{
    Claim,
    tree::{HIDDEN, Root, dress, sync_directory},
    unix_ms,
};

/// Where links and directories are on their way from one place to the other; no role's name is without `_`.
const PLACING: &str = "placing";

impl Target {
    /// Sees that the role's directory is where renames reach its claims. A mirror that was begun elsewhere is put aside, and begins anew.
    pub(super) fn place(&self, role: &RoleKey, epoch: Epoch, claims: &[Claim]) -> Result<(), TargetError> {
        let name = directory_name(role)?;
        let slot = lock(&self.roles).entry(role.clone()).or_default().clone();
        let mut slot = lock(&slot);
        let Some(claim) = self.apart(claims)? else {
            return Ok(());
        };
        is_alone(claim, claims)?;
        let failed = TargetError::io(&claim.directory);
        let hidden = claim.directory.canonicalize().map_err(&failed)?.join(HIDDEN);
        let (inside, link) = (hidden.join(&name), self.root.join(&name));
        let new = self.root.join(PLACING).join(&name);
        let aside = self.root.join("kept").join(&name).join(format!("before-{}", unix_ms()));
        put_aside(&new, &aside).map_err(TargetError::io(&new))?;
        if fs::read_link(&link).is_ok_and(|to| to == inside) && inside.join("role.json").exists() {
            return Ok(());
        }
        *slot = None;
        // What is behind a link that leads elsewhere is another volume's.
        let before = match fs::read_link(&link) {
            Ok(_) => None,
            Err(_) => Store::open(&self.root, role, false, &self.steps)?,
        };
        // Who follows nobody newer than itself is refused afterwards.
        if let Some(Phase::Promoting { epoch: own, .. }) = before.as_ref().map(|store| &store.state.phase)
            && epoch <= *own
        {
            return Ok(());
        }
        if inode(&hidden).map_err(&failed)?.is_some() {
            is_own_directory(&hidden)?;
        }
        make_directories(&inside)?;
        is_own(&inside)?;
        let mut store = Store::at(inside.clone(), role, &self.steps)?;
        let before = before.map(|store| (has_data(&store), store.state));
        store.take_over(before.as_ref().map(|(has_data, state)| (*has_data, state)))?;
        self.lead(&link, &inside, &new, &aside)
            .map_err(TargetError::io(&link))?;
        if before.is_some_and(|(has_data, _)| has_data) {
            tracing::warn!(%role, "its mirror begins anew inside the claim, which is a mount of its own; what was mirrored before is among what was kept");
        }
        Ok(())
    }

    /// The first claim that is on another mount than the mirror.
    fn apart<'c>(&self, claims: &'c [Claim]) -> Result<Option<&'c Claim>, TargetError> {
        let own = (self.mount)(&self.root).map_err(TargetError::io(&self.root))?;
        for claim in claims.iter().filter(|claim| claim.directory.is_dir()) {
            let there = (self.mount)(&claim.directory).map_err(TargetError::io(&claim.directory))?;
            if there != own {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// Has a link lead from among the roles into the claim. What was there is put aside, without a moment in which there is neither.
    fn lead(&self, link: &Path, inside: &Path, new: &Path, aside: &Path) -> io::Result<()> {
        make_directories(&self.root.join(PLACING)).map_err(io::Error::other)?;
        symlink(inside, new)?;
        self.steps.step()?;
        match fs::symlink_metadata(link) {
            Ok(there) if there.is_dir() => {
                exchange(new, link, aside)?;
                self.steps.step()?;
                put_aside(new, aside)?;
            }
            _ => fs::rename(new, link)?,
        }
        self.steps.step()?;
        sync_directory(&self.root)
    }
}

/// Takes away what is at a path: a link, or a role's directory. One with a mirror in it goes aside, one without is nothing that anybody misses.
fn put_aside(path: &Path, aside: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(there) if !there.is_dir() => fs::remove_file(path),
        Ok(_) => {
            let is_empty = |part: &str| match fs::read_dir(path.join(part)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
                found => found.map(|mut found| found.next().is_none()),
            };
            if is_empty("tree")? && is_empty("journal")? {
                return fs::remove_dir_all(path);
            }
            if let Some(parent) = aside.parent() {
                make_directories(parent).map_err(io::Error::other)?;
            }
            fs::rename(path, aside)?;
            sync_parent(aside)
        }
    }
}

/// What several mounts hold cannot be exchanged at one instant.
pub(super) fn is_alone(claim: &Claim, claims: &[Claim]) -> Result<(), TargetError> {
    match claims.len() {
        0 | 1 => Ok(()),
        count => Err(TargetError::Several {
            claim: claim.name.clone(),
            count,
        }),
    }
}

fn has_data(store: &Store) -> bool {
    match store.state.phase {
        Phase::Writer { .. } => false,
        Phase::Standby => store.head().is_some(),
        _ => true,
    }
}

/// The mount that a directory is on, by the number that the kernel gives it. A rename never leads from one to another, even on one file system.
pub(super) fn mount(directory: &Path) -> io::Result<u64> {
    let open = File::open(directory)?;
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", open.as_raw_fd()))?;
    let number = told
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or_else(|| io::Error::other("the kernel does not say on which mount it is"))
}

/// Where the link of a role leads; `None` where its directory is beside the others.
pub(super) fn led(link: &Path) -> Result<Option<PathBuf>, TargetError> {
    let Ok(inside) = fs::read_link(link) else {
        return Ok(None);
    };
    is_own(&inside)?;
    // It was written before the link was made.
    match inside.join("role.json").exists() {
        true => Ok(Some(inside)),
        false => Err(away(&inside, NOT_THERE)),
    }
}

const NOT_THERE: &str = "it is not there; see whether the claim's volume is mounted";
const ANOTHER: &str = "what was made here was replaced; see what the application did there, and take it away";

fn away(directory: &Path, reason: &'static str) -> TargetError {
    TargetError::Away {
        directory: directory.to_owned(),
        reason,
    }
}

fn is_own_directory(directory: &Path) -> Result<(), TargetError> {
    match fs::symlink_metadata(directory) {
        Ok(there) if there.is_dir() && there.uid() == geteuid().as_raw() => Ok(()),
        Ok(_) => Err(away(directory, ANOTHER)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(away(directory, NOT_THERE)),
        Err(e) => Err(TargetError::io(directory)(e)),
    }
}

/// Whether a role's directory inside a claim is there and is what was made here. An application may write in its claim: it must not lead what is
/// written here anywhere else.
pub(super) fn is_own(inside: &Path) -> Result<(), TargetError> {
    inside.parent().map_or(Ok(()), is_own_directory)?;
    is_own_directory(inside)?;
    for part in PARTS.map(|part| inside.join(part)) {
        if inode(&part).map_err(TargetError::io(&part))?.is_some() {
            is_own_directory(&part)?;
        }
    }
    Ok(())
}

/// Moves everything in a directory, what is not the application's apart, into another one, and makes that durable. Run again, it goes on.
fn pour(from: &Path, to: &Path, steps: &Steps) -> io::Result<()> {
    let source = Root::open(from)?;
    let all = source.list()?;
    if all.is_empty() {
        return Ok(());
    }
    make_directories(to).map_err(io::Error::other)?;
    let into = Root::open(to)?;
    for found in all {
        if into.look(&found.path)?.is_some() {
            let text = format!("{:?} is in both {from:?} and {to:?}", found.path);
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        source.rename(&found.path, &into, &found.path)?;
        steps.step()?;
    }
    into.sync_directory(Path::new(""))?;
    source.sync_directory(Path::new(""))
}

impl Store {
    /// Whether this directory is inside the claim that would change its place.
    pub(super) fn is_inside(&self, swap: &Swap) -> bool {
        let hidden = self.directory.parent();
        self.placed
            && swap
                .directory
                .canonicalize()
                .is_ok_and(|claim| hidden == Some(claim.join(HIDDEN).as_path()))
    }

    /// Makes durable here what was known of the role elsewhere: the highest epoch in any case, the rest where nothing was known here and
    /// no data goes with it.
    fn take_over(&mut self, before: Option<(bool, &State)>) -> Result<(), TargetError> {
        let Some((has_data, before)) = before else {
            return self.save();
        };
        if self.state.highest_epoch == Epoch(0) && self.head().is_none() {
            self.state.kept.clone_from(&before.kept);
            if !has_data {
                self.state.phase.clone_from(&before.phase);
                self.state.applied.clone_from(&before.applied);
            }
        }
        self.state.highest_epoch = self.state.highest_epoch.max(before.highest_epoch);
        self.save()
    }

    /// Puts what the mirror has into the claim; what was there before goes to `kept`.
    pub(super) fn fill(&mut self, at: usize, swap: &Swap, kept: &Path) -> Result<(), TargetError> {
        if swap.inode.is_none() {
            return Ok(());
        }
        let failed = |source| TargetError::Swap {
            claim: swap.claim.clone(),
            directory: swap.directory.clone(),
            source,
        };
        let mirror = self.tree().join(&swap.claim);
        let root = match &swap.root {
            Some(root) => root.clone(),
            None => {
                pour(&swap.directory, &kept.join(&swap.claim), &self.steps).map_err(failed)?;
                // From here on, all that is in the claim came from the mirror. What the directory itself is to be changes with every name that
                // leaves the mirror, so it is written down with it.
                let root = Root::open(&mirror).and_then(|root| root.meta()).map_err(failed)?;
                if let Phase::Promoting { swaps, .. } = &mut self.state.phase {
                    swaps[at].root = Some(root.clone());
                }
                self.save()?;
                root
            }
        };
        let fill = || {
            if inode(&mirror)?.is_some() {
                pour(&mirror, &swap.directory, &self.steps)?;
                match dress(&File::open(&swap.directory)?, &root) {
                    // A volume's own directory may be another user's; what is in it is what was mirrored.
                    Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                    done => done?,
                }
                self.steps.step()?;
                fs::remove_dir(&mirror)?;
                sync_parent(&mirror)?;
            }
            self.steps.step()
        };
        fill().map_err(failed)
    }

    /// Makes what is in the claim the mirror.
    pub(super) fn drain(&self, swap: &Swap) -> io::Result<()> {
        if swap.inode.is_none() {
            return Ok(());
        }
        let mirror = self.tree().join(&swap.claim);
        make_directories(&mirror).map_err(io::Error::other)?;
        self.steps.step()?;
        pour(&swap.directory, &mirror, &self.steps)?;
        remove_others(&mirror)?;
        sync_directory(&mirror)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mounts_have_two_numbers_and_what_is_on_one_has_one() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        fs::create_dir(&below).unwrap();
        let own = mount(directory.path()).unwrap();
        assert_eq!(mount(&below).unwrap(), own);
        assert_ne!(mount(Path::new("/proc")).unwrap(), own);
    }
}
