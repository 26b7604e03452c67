//! A role's turn: this region begins to write, takes over from its mirror, or follows another writer again.
//!
//! Each first makes the epoch durable, so that what still arrives of an older one is refused, then writes down what moves
//! where, then moves it by renames, each of which is recognised as done by the directory's inode when it is run again. A claim that is a mount of
//! its own is emptied and filled instead, see [`super::place`].

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use leeward_core::name::{Epoch, RoleKey};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};

use super::{
    Kept, Promoted, Target, TargetError, place,
    store::{Phase, Store, Swap, empty, inode, make_directories, sync_parent},
};
use crate::volumes::{
    Claim,
    tree::{FoundKind, Root, sync_directory},
    unix_ms,
    wire::is_name,
};

impl Target {
    /// Says that this region writes in the role from its own directories, at its first epoch or at a new one. A region that
    /// mirrors the role has to be promoted instead.
    pub fn begin(&self, role: &RoleKey, epoch: Epoch) -> Result<(), TargetError> {
        self.with(role, true, |store| {
            store.raise(epoch)?;
            match store.state.phase {
                Phase::Writer { epoch: e, .. } if e == epoch => Ok(()),
                Phase::Writer { .. } => store.write_from(epoch),
                Phase::Standby if store.head().is_none() => store.write_from(epoch),
                _ => Err(TargetError::Mirroring),
            }
        })
    }

    /// Makes the newest complete point this region's data: raises the highest epoch, finishes applying, and puts the
    /// mirror in the place of each claim's directory, or what it holds into a claim that is a mount of its own. No pod may use those. Run again
    /// after a kill, it goes on; run again after it was done, it says the same.
    pub fn promote(&self, role: &RoleKey, epoch: Epoch, claims: &[Claim]) -> Result<Promoted, TargetError> {
        names(claims)?;
        self.with(role, false, |store| {
            store.raise(epoch)?;
            store.finish_follow()?;
            if store.accepts() {
                // Also the first one after a return, which may have been taken in just before a kill.
                store.apply_pending()?;
            }
            if store.state.phase == Phase::Standby {
                if store.state.applied.is_none() {
                    return Err(TargetError::NoPoint);
                }
                if let Some(claim) = claims.first().filter(|_| store.placed) {
                    place::is_alone(claim, claims)?;
                }
                let tree = store.tree();
                let swaps = swaps(claims, |claim| tree.join(&claim.name))?;
                let kept = store.kept_path(epoch);
                store.state.phase = Phase::Promoting { epoch, swaps, kept };
                store.save()?;
            }
            store.finish_promotion()?;
            match &store.state.phase {
                Phase::Writer { epoch: e, point } if *e == epoch => Ok(Promoted { point: point.clone() }),
                Phase::Writer { .. } => store.write_from(epoch).map(|()| Promoted { point: None }),
                _ => Err(TargetError::NoPoint),
            }
        })
    }

    /// Makes this region a standby of the role: raises the highest epoch, and takes what is in the claims' directories as the
    /// start of the mirror, so that only differences travel. What the new writer does not have is put aside before the
    /// first point overwrites it, see [`Target::kept`]. No pod may use the directories; they are empty afterwards. `since_ms` is when the point was
    /// taken that the new writer went on from, in Unix milliseconds, where that is known.
    pub fn follow(
        &self,
        role: &RoleKey,
        epoch: Epoch,
        claims: &[Claim],
        since_ms: Option<u64>,
    ) -> Result<(), TargetError> {
        names(claims)?;
        self.place(role, epoch, claims)?;
        self.with(role, true, |store| {
            store.finish_promotion()?;
            if let Phase::Writer { epoch: own, .. } = store.state.phase
                && epoch <= own
            {
                let highest = store.state.highest_epoch;
                return Err(TargetError::StaleEpoch { epoch, highest });
            }
            store.raise(epoch)?;
            let starts = match store.state.phase {
                Phase::Writer { .. } => true,
                Phase::Standby => store.head().is_none(),
                _ => false,
            };
            if starts {
                let swaps = swaps(claims, |claim| claim.directory.clone())?;
                let kept = store.kept_path(epoch);
                store.state.phase = Phase::Following { swaps, kept, since_ms };
                store.save()?;
            }
            store.finish_follow()
        })
    }
}

fn names(claims: &[Claim]) -> Result<(), TargetError> {
    match claims.iter().find(|c| !is_name(&c.name)) {
        Some(claim) => Err(TargetError::ClaimName(claim.name.clone())),
        None => Ok(()),
    }
}

/// What moves: the directory that `from` names for each claim, unless it is missing or empty.
fn swaps(claims: &[Claim], from: impl Fn(&Claim) -> PathBuf) -> Result<Vec<Swap>, TargetError> {
    let swap = |claim: &Claim| {
        let from = from(claim);
        let inode = inode(&from).map_err(TargetError::io(&from))?;
        Ok(Swap {
            claim: claim.name.clone(),
            directory: claim.directory.clone(),
            inode,
            root: None,
        })
    };
    claims.iter().map(swap).collect()
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.next().is_none())
}

/// Puts `mirror` in the place of `directory`. Where the file system cannot exchange the two, `directory` goes aside first.
pub(super) fn exchange(mirror: &Path, directory: &Path, aside: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, mirror, AT_FDCWD, directory, RenameFlags::RENAME_EXCHANGE) {
        Err(Errno::EINVAL | Errno::ENOSYS) => {}
        done => return Ok(done?),
    }
    if let Some(parent) = aside.parent() {
        make_directories(parent).map_err(io::Error::other)?;
    }
    fs::rename(directory, aside)?;
    fs::rename(mirror, directory)
}

/// Removes sockets, pipes and devices: they hold no data, and a mirror has none that could be in the way.
pub(super) fn remove_others(directory: &Path) -> io::Result<()> {
    let root = Root::open(directory)?;
    for found in root.walk()?.iter().filter(|f| f.kind == FoundKind::Other) {
        root.remove(&found.path, false)?;
    }
    Ok(())
}

impl Store {
    fn kept_path(&self, epoch: Epoch) -> PathBuf {
        self.kept_root.join(format!("epoch-{epoch}-{}", unix_ms()))
    }

    fn write_from(&mut self, epoch: Epoch) -> Result<(), TargetError> {
        self.state.phase = Phase::Writer { epoch, point: None };
        self.save()
    }

    fn finish_promotion(&mut self) -> Result<(), TargetError> {
        let Phase::Promoting { epoch, swaps, kept } = self.state.phase.clone() else {
            return Ok(());
        };
        for (at, swap) in swaps.iter().enumerate() {
            if self.is_inside(swap) {
                self.fill(at, swap, &kept)?;
                continue;
            }
            self.swap_in(swap, &kept).map_err(|source| TargetError::Swap {
                claim: swap.claim.clone(),
                directory: swap.directory.clone(),
                source,
            })?;
        }
        self.set_rest_aside(&kept)?;
        self.keep_whole(&kept)?;
        let point = self.state.applied.clone();
        self.state.phase = Phase::Writer { epoch, point };
        self.save()
    }

    /// Puts a mirror in the place of a claim's directory; what was in the directory before goes to `kept`.
    fn swap_in(&self, swap: &Swap, kept: &Path) -> io::Result<()> {
        let mirror = self.tree().join(&swap.claim);
        let Some(moving) = swap.inode else { return Ok(()) };
        self.steps.step()?;
        match inode(&swap.directory)? {
            Some(there) if there == moving => {}
            Some(_) => exchange(&mirror, &swap.directory, &kept.join(&swap.claim))?,
            None => {
                if let Some(parent) = swap.directory.parent() {
                    make_directories(parent).map_err(io::Error::other)?;
                }
                fs::rename(&mirror, &swap.directory)?;
            }
        }
        self.steps.step()?;
        sync_parent(&swap.directory)?;
        sync_parent(&mirror)?;
        if inode(&mirror)?.is_some() {
            if is_empty(&mirror)? {
                fs::remove_dir(&mirror)?;
            } else {
                make_directories(kept).map_err(io::Error::other)?;
                fs::rename(&mirror, kept.join(&swap.claim))?;
                sync_directory(kept)?;
            }
        }
        self.steps.step()
    }

    /// Puts aside what the mirror has of claims that the role does not have here.
    fn set_rest_aside(&self, kept: &Path) -> Result<(), TargetError> {
        let tree = self.tree();
        let set_aside = || -> io::Result<()> {
            for rest in fs::read_dir(&tree)? {
                let rest = rest?;
                if is_empty(&rest.path())? {
                    fs::remove_dir(rest.path())?;
                } else {
                    make_directories(kept).map_err(io::Error::other)?;
                    fs::rename(rest.path(), kept.join(rest.file_name()))?;
                    sync_directory(kept)?;
                }
                self.steps.step()?;
            }
            sync_directory(&tree)
        };
        set_aside().map_err(TargetError::io(&tree))
    }

    /// Counts what a promotion found in the directories.
    fn keep_whole(&mut self, kept: &Path) -> Result<(), TargetError> {
        let failed = TargetError::io(kept);
        if inode(kept).map_err(&failed)?.is_none() || self.state.kept.iter().any(|k| k.path == kept) {
            return Ok(());
        }
        let mut sum = Kept::none(kept);
        for found in Root::open(kept).and_then(|r| r.walk()).map_err(&failed)? {
            match found.kind {
                FoundKind::File { size } => sum.bytes += size,
                FoundKind::Link(_) => {}
                _ => continue,
            }
            sum.add(&found.meta);
        }
        self.state.kept.push(sum);
        Ok(())
    }

    fn finish_follow(&mut self) -> Result<(), TargetError> {
        let Phase::Following { swaps, kept, since_ms } = self.state.phase.clone() else {
            return Ok(());
        };
        for swap in &swaps {
            let done = match self.is_inside(swap) {
                true => self.drain(swap),
                false => self.swap_out(swap),
            };
            done.map_err(|source| TargetError::Swap {
                claim: swap.claim.clone(),
                directory: swap.directory.clone(),
                source,
            })?;
        }
        // A mirror of earlier epochs says nothing about what is in the tree now.
        empty(&self.directory.join("journal"))?;
        empty(&self.directory.join("moving"))?;
        self.pending.clear();
        (self.state.applied, self.state.cleared) = (None, None);
        self.state.phase = Phase::Returned { kept, since_ms };
        self.save()
    }

    /// Makes a claim's directory the mirror, and leaves an empty directory like it in its place.
    fn swap_out(&self, swap: &Swap) -> io::Result<()> {
        let mirror = self.tree().join(&swap.claim);
        let Some(moving) = swap.inode else { return Ok(()) };
        self.steps.step()?;
        if inode(&mirror)? != Some(moving) {
            if inode(&mirror)?.is_some() {
                fs::remove_dir(&mirror)?;
            }
            fs::rename(&swap.directory, &mirror)?;
            self.steps.step()?;
        }
        if inode(&swap.directory)?.is_none() {
            let like = fs::metadata(&mirror)?;
            fs::create_dir(&swap.directory)?;
            let made = File::open(&swap.directory)?;
            // Only root may give a directory away; for others it is theirs already.
            let _ = std::os::unix::fs::fchown(&made, Some(like.uid()), Some(like.gid()));
            made.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
            made.sync_all()?;
        }
        self.steps.step()?;
        remove_others(&mirror)?;
        sync_parent(&swap.directory)?;
        sync_parent(&mirror)
    }
}
