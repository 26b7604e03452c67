//! A role's turn: this region begins to write, takes over from its mirror, or follows another writer again.
//!
//! Each first makes the epoch durable, so that what still arrives of an older one is refused, then writes down what moves
//! where, then moves it by renames, each of which is recognised as done by the directory's inode when it is run again.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use leeward_core::name::{Epoch, RoleKey};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{
    Kept, Promoted, Target, TargetError,
    store::{Phase, Steps, Store, Swap, empty, make_directories},
};
use crate::volumes::{
    Claim,
    scan::next_data,
    tree::{FoundKind, Root, sync_directory},
    unix_ms,
    wire::{Base, Body, Record, is_name, path},
};

impl Target {
    /// Says that this region writes in the role from its own directories, at its first epoch or at a new one. A region that
    /// mirrors the role has to be promoted instead.
    pub fn begin(&self, role: &RoleKey, epoch: Epoch) -> Result<(), TargetError> {
        self.with(role, true, |store| {
            store.raise(epoch)?;
            match store.state.phase {
                Phase::Writer { .. } => store.write_from(epoch),
                Phase::Standby if store.head().is_none() => store.write_from(epoch),
                _ => Err(TargetError::Mirroring),
            }
        })
    }

    /// Makes the newest complete point this region's data: raises the highest epoch, finishes applying, and puts the
    /// mirror in the place of each claim's directory. No pod may use those. Run again after a kill, it goes on; run again
    /// after it was done, it says the same.
    pub fn promote(&self, role: &RoleKey, epoch: Epoch, claims: &[Claim]) -> Result<Promoted, TargetError> {
        names(claims)?;
        self.with(role, false, |store| {
            store.raise(epoch)?;
            store.finish_follow()?;
            if store.state.phase == Phase::Standby {
                store.apply_pending()?;
                if store.state.applied.is_none() {
                    return Err(TargetError::NoPoint);
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
    /// first point overwrites it, see [`Target::kept`]. No pod may use the directories; they are empty afterwards.
    pub fn follow(&self, role: &RoleKey, epoch: Epoch, claims: &[Claim]) -> Result<(), TargetError> {
        names(claims)?;
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
                store.state.phase = Phase::Following { swaps, kept };
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
        })
    };
    claims.iter().map(swap).collect()
}

fn inode(directory: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(directory) {
        Ok(meta) => Ok(Some(meta.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.next().is_none())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
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
        for swap in &swaps {
            self.swap_in(swap, &kept).map_err(|source| TargetError::Swap {
                claim: swap.claim.clone(),
                directory: swap.directory.clone(),
                source,
            })?;
        }
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
            Some(_) => {
                renameat2(
                    AT_FDCWD,
                    &mirror,
                    AT_FDCWD,
                    &swap.directory,
                    RenameFlags::RENAME_EXCHANGE,
                )?;
            }
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

    /// Counts what a promotion found in the directories.
    fn keep_whole(&mut self, kept: &Path) -> Result<(), TargetError> {
        let failed = TargetError::io(kept);
        if inode(kept).map_err(&failed)?.is_none() || self.state.kept.iter().any(|k| k.path == kept) {
            return Ok(());
        }
        let mut sum = Kept {
            path: kept.to_owned(),
            bytes: 0,
            files: 0,
        };
        for found in Root::open(kept).and_then(|r| r.walk()).map_err(&failed)? {
            match found.kind {
                FoundKind::File { size } => (sum.files, sum.bytes) = (sum.files + 1, sum.bytes + size),
                FoundKind::Link(_) => sum.files += 1,
                _ => {}
            }
        }
        self.state.kept.push(sum);
        Ok(())
    }

    fn finish_follow(&mut self) -> Result<(), TargetError> {
        let Phase::Following { swaps, kept } = self.state.phase.clone() else {
            return Ok(());
        };
        for swap in &swaps {
            self.swap_out(swap).map_err(|source| TargetError::Swap {
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
        self.state.phase = Phase::Returned { kept };
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
        sync_parent(&swap.directory)?;
        sync_parent(&mirror)
    }
}

/// Copies what a patch would overwrite or take away from `tree` into `kept`, and measures it. Nothing is made where there
/// is nothing of that kind.
pub(super) fn keep(body: &Body, tree: &Path, kept: &Path, steps: &Steps) -> Result<Kept, TargetError> {
    let partial = kept.with_extension("partial");
    let failed = TargetError::io(&partial);
    if inode(&partial).map_err(&failed)?.is_some() {
        fs::remove_dir_all(&partial).map_err(&failed)?;
    }
    let done = inode(kept).map_err(&failed)?.is_some();
    let mut keeping = Keeping {
        tree,
        into: (!done).then(|| partial.clone()),
        claim: None,
        file: None,
        sum: Kept {
            path: kept.to_owned(),
            bytes: 0,
            files: 0,
        },
    };
    let mut records = body.records()?;
    while let Some(record) = records.next()? {
        steps.step().map_err(&failed)?;
        keeping.one(record, &records.payload).map_err(|e| match e {
            crate::volumes::wire::WireError::Io(e) => failed(e),
            other => TargetError::Body(other),
        })?;
    }
    keeping.end_file().map_err(&failed)?;
    if !done && keeping.sum.files > 0 {
        let finish = || {
            Root::open(&partial)?.sync_all()?;
            steps.step()?;
            fs::rename(&partial, kept)?;
            steps.step()?;
            sync_parent(kept)
        };
        finish().map_err(&failed)?;
    }
    Ok(keeping.sum)
}

/// A file that a patch changes, and how much of it differs so far.
struct Changing {
    path: PathBuf,
    file: File,
    size: u64,
    differs: u64,
}

struct Keeping<'a> {
    tree: &'a Path,
    into: Option<PathBuf>,
    claim: Option<(String, Root)>,
    file: Option<Changing>,
    sum: Kept,
}

impl Keeping<'_> {
    fn one(&mut self, record: Record, payload: &[u8]) -> Result<(), crate::volumes::wire::WireError> {
        match record {
            Record::Data { offset, .. } => self.differs(offset, payload)?,
            Record::Zero { offset, length } => {
                let zeros = [0; 64 << 10];
                let mut done = 0;
                while done < length {
                    let part = (length - done).min(zeros.len() as u64);
                    self.differs(offset + done, &zeros[..part as usize])?;
                    done += part;
                }
            }
            _ => self.end_file()?,
        }
        match record {
            Record::Claim { name } => {
                let directory = self.tree.join(&name);
                self.claim = match inode(&directory)? {
                    Some(_) => Some((name, Root::open(&directory)?)),
                    None => None,
                };
            }
            Record::Delete {
                path: p,
                directory: false,
            }
            | Record::Move { path: p, .. } => self.whole(&path(&p)?)?,
            Record::Link { path: p, target, .. } => {
                let at = path(&p)?;
                let found = self
                    .claim
                    .as_ref()
                    .and_then(|(_, root)| root.look(&at).transpose())
                    .transpose()?;
                if found.is_some_and(|f| f.kind != FoundKind::Link(target)) {
                    self.whole(&at)?;
                }
            }
            Record::File {
                path: p,
                base: Base::Present,
                size,
                ..
            } => {
                let at = path(&p)?;
                let Some((_, root)) = &self.claim else { return Ok(()) };
                if let Some((file, found)) = root.read(&at)?
                    && let FoundKind::File { size: old } = found.kind
                {
                    let differs = old.saturating_sub(size);
                    self.file = Some(Changing {
                        path: at,
                        file,
                        size: old,
                        differs,
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn differs(&mut self, offset: u64, new: &[u8]) -> io::Result<()> {
        let Some(changing) = &mut self.file else { return Ok(()) };
        let length = changing.size.saturating_sub(offset).min(new.len() as u64) as usize;
        let mut old = vec![0; length];
        changing.file.read_exact_at(&mut old, offset)?;
        changing.differs += old.iter().zip(new).filter(|(a, b)| a != b).count() as u64;
        Ok(())
    }

    fn end_file(&mut self) -> io::Result<()> {
        if let Some(changing) = self.file.take()
            && changing.differs > 0
        {
            self.sum.bytes += changing.differs;
            self.copy(&changing.path)?;
        }
        Ok(())
    }

    /// Keeps all of what is at a path.
    fn whole(&mut self, at: &Path) -> io::Result<()> {
        if let Some((_, root)) = &self.claim
            && let Some(found) = root.look(at)?
        {
            if let FoundKind::File { size } = found.kind {
                self.sum.bytes += size;
            }
            self.copy(at)?;
        }
        Ok(())
    }

    fn copy(&mut self, at: &Path) -> io::Result<()> {
        self.sum.files += 1;
        let (Some(into), Some((name, root))) = (&self.into, &self.claim) else {
            return Ok(());
        };
        let to = into.join(name);
        make_directories(&to).map_err(io::Error::other)?;
        let to = Root::open(&to)?;
        let mut above: Vec<_> = at.ancestors().skip(1).collect();
        above.reverse();
        above
            .into_iter()
            .try_for_each(|directory| to.make_directory(directory))?;
        if let Some((file, found)) = root.read(at)? {
            let copy = to.write(at)?;
            copy_data(&file, &copy)?;
            return crate::volumes::tree::dress(&copy, &found.meta);
        }
        match root.look(at)? {
            Some(found) => match &found.kind {
                FoundKind::Link(target) => to.make_link(at, target, &found.meta),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// Copies a file, its holes as holes.
fn copy_data(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut buffer = vec![0; 64 << 10];
    let mut at = next_data(from, 0)?;
    while at < size {
        let part = (size - at).min(buffer.len() as u64) as usize;
        from.read_exact_at(&mut buffer[..part], at)?;
        to.write_all_at(&buffer[..part], at)?;
        at = next_data(from, at + part as u64)?;
    }
    Ok(())
}
