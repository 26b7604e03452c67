//! A role's directory at a target, and what of it must be durable before anything else happens.
//!
//! ```text
//! MIRROR/NAMESPACE_APP_ROLE/role.json     highest epoch, phase, the point that tree/ is
//!                           tree/CLAIM/   the mirror
//!                           journal/      complete points that tree/ does not have yet
//!                           moving/       files between their old and their new path, while a point is applied
//!                           incoming/     bodies that are still arriving; emptied at start
//! MIRROR/kept/NAMESPACE_APP_ROLE/...      what a returning region had that nobody else had; never deleted here
//! ```
//!
//! Where a role's directory is a link, it leads into the role's claim, which has the same below `.leeward`; see [`super::place`].

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use leeward_core::name::{Epoch, RoleKey};
use serde::{Deserialize, Serialize};

use super::{Kept, TargetError, place};
use crate::volumes::{
    Point, PointId,
    tree::{Meta, sync_directory},
    wire::{Body, is_name},
};

/// What a role is to this region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Points are accepted.
    Standby,
    /// Its directories are becoming the mirror; interrupted, it is gone on with.
    Following {
        swaps: Vec<Swap>,
        kept: PathBuf,
        #[serde(default)]
        since_ms: Option<u64>,
    },
    /// Points are accepted; what the first one would overwrite is put into `kept` before. The new writer went on from a point that was taken
    /// at `since_ms`, where that is known.
    Returned {
        kept: PathBuf,
        #[serde(default)]
        since_ms: Option<u64>,
    },
    /// The mirror is becoming its directories; interrupted, it is gone on with.
    Promoting {
        epoch: Epoch,
        swaps: Vec<Swap>,
        kept: PathBuf,
    },
    /// This region writes, from this epoch on, and began with this point. No points are accepted.
    Writer { epoch: Epoch, point: Option<Point> },
}

/// A directory that changes its place, known by its inode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Swap {
    pub(super) claim: String,
    pub(super) directory: PathBuf,
    /// The inode of the one that moves; `None` where there is nothing to move.
    pub(super) inode: Option<u64>,
    /// Where what is in a claim is exchanged, and not its directory: what the claim's own directory is to be. Written once nothing is in the
    /// claim any more that was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<Meta>,
}

/// What `role.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) version: u32,
    pub(super) role: RoleKey,
    pub(super) highest_epoch: Epoch,
    pub(super) phase: Phase,
    /// The point that `tree/` is, or that the writer started from.
    pub(super) applied: Option<Point>,
    /// The point whose first half (what it takes away) is done.
    pub(super) cleared: Option<PointId>,
    /// What was kept here, the newest last.
    pub(super) kept: Vec<Kept>,
}

/// Where a test makes a step fail, as if the process had been killed there. Nothing outside of tests.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps {
    #[cfg(test)]
    pub(super) left: Option<std::sync::Arc<std::sync::atomic::AtomicI64>>,
}

impl Steps {
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    pub(super) fn step(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(left) = &self.left
            && left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) <= 0
        {
            return Err(io::Error::other("killed by the test"));
        }
        Ok(())
    }
}

/// A role's directory, its durable state, and the complete points that wait to be applied.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) directory: PathBuf,
    pub(super) kept_root: PathBuf,
    /// Whether the directory is inside the role's claim.
    pub(super) placed: bool,
    pub(super) state: State,
    pub(super) pending: Vec<(Point, PathBuf)>,
    pub(super) steps: Steps,
}

/// The name of a role's directory; `_` is in no name of Kubernetes.
pub(super) fn directory_name(role: &RoleKey) -> Result<String, TargetError> {
    let parts = [&role.app.namespace, &role.app.name, &role.role];
    match parts.iter().all(|part| is_name(part)) {
        true => Ok(parts.map(String::as_str).join("_")),
        false => Err(TargetError::RoleName(role.clone())),
    }
}

/// The directories in a role's directory.
pub(super) const PARTS: [&str; 4] = ["tree", "journal", "moving", "incoming"];

impl Store {
    /// Opens a role's directory and finishes what was interrupted. `None`: there is none and `create` is no.
    pub(super) fn open(root: &Path, role: &RoleKey, create: bool, steps: &Steps) -> Result<Option<Self>, TargetError> {
        let name = directory_name(role)?;
        let directory = root.join(&name);
        let led = place::led(&directory)?;
        if led.is_none() && !create && !directory.join("role.json").exists() {
            return Ok(None);
        }
        let placed = led.is_some();
        let store = Self::at(led.unwrap_or(directory), role, steps)?;
        store.save()?;
        Ok(Some(Self { placed, ..store }))
    }

    /// What is in a directory, which is made where it is missing.
    pub(super) fn at(directory: PathBuf, role: &RoleKey, steps: &Steps) -> Result<Self, TargetError> {
        let name = directory_name(role)?;
        let file = directory.join("role.json");
        let state = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice::<State>(&bytes)
                .ok()
                .filter(|state| state.version == 1 && state.role == *role)
                .ok_or_else(|| TargetError::Corrupt(file.clone()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => State {
                version: 1,
                role: role.clone(),
                highest_epoch: Epoch(0),
                phase: Phase::Standby,
                applied: None,
                cleared: None,
                kept: Vec::new(),
            },
            Err(e) => return Err(TargetError::io(file)(e)),
        };
        for part in PARTS {
            make_directories(&directory.join(part))?;
        }
        let mut store = Self {
            kept_root: directory.with_file_name("kept").join(name),
            directory,
            placed: false,
            state,
            pending: Vec::new(),
            steps: steps.clone(),
        };
        store.read_journal()?;
        Ok(store)
    }

    fn read_journal(&mut self) -> Result<(), TargetError> {
        let journal = self.directory.join("journal");
        let failed = TargetError::io(&journal);
        let entries: Result<Vec<_>, _> = fs::read_dir(&journal).map_err(&failed)?.collect();
        let mut files: Vec<_> = entries.map_err(&failed)?.into_iter().map(|e| e.path()).collect();
        files.sort();
        for file in files {
            let body = Body::open(File::open(&file).map_err(&failed)?);
            let point = body
                .and_then(|b| b.point())
                .map_err(|_| TargetError::Corrupt(file.clone()))?;
            let last = self.head().map(|p| (p.epoch, p.sequence));
            if last >= Some((point.epoch, point.sequence)) {
                fs::remove_file(&file).map_err(&failed)?;
            } else if point.parent == self.head().map(|p| p.id) {
                self.pending.push((point, file));
            } else {
                return Err(TargetError::Corrupt(file));
            }
        }
        Ok(())
    }

    /// The newest complete point.
    pub(super) fn head(&self) -> Option<&Point> {
        self.pending
            .last()
            .map(|(point, _)| point)
            .or(self.state.applied.as_ref())
    }

    /// Makes the state durable.
    pub(super) fn save(&self) -> Result<(), TargetError> {
        let file = self.directory.join("role.json");
        let new = self.directory.join("role.json.new");
        let failed = TargetError::io(&file);
        let bytes = serde_json::to_vec_pretty(&self.state)
            .map_err(io::Error::other)
            .map_err(&failed)?;
        self.steps.step().map_err(&failed)?;
        let write = || {
            let mut out = File::create(&new)?;
            out.write_all(&bytes)?;
            out.sync_all()?;
            self.steps.step()?;
            fs::rename(&new, &file)?;
            sync_directory(&self.directory)
        };
        write().map_err(&failed)?;
        self.steps.step().map_err(&failed)
    }

    /// Raises the highest epoch, durably; a lower one is refused.
    pub(super) fn raise(&mut self, epoch: Epoch) -> Result<(), TargetError> {
        let highest = self.state.highest_epoch;
        if epoch < highest {
            return Err(TargetError::StaleEpoch { epoch, highest });
        }
        if epoch > highest {
            self.state.highest_epoch = epoch;
            self.save()?;
        }
        Ok(())
    }

    /// Whether points are accepted.
    pub(super) fn accepts(&self) -> bool {
        matches!(self.state.phase, Phase::Standby | Phase::Returned { .. })
    }

    /// Whether a point of this epoch could be accepted now.
    pub(super) fn may_accept(&self, epoch: Epoch) -> Result<(), TargetError> {
        let highest = self.state.highest_epoch;
        if epoch < highest {
            return Err(TargetError::StaleEpoch { epoch, highest });
        }
        match self.accepts() {
            true => Ok(()),
            false => Err(TargetError::NotFollowing),
        }
    }

    /// Adds a complete body, already synced, to the journal. Durable when it returns.
    pub(super) fn append(&mut self, point: Point, body: &Path) -> Result<(), TargetError> {
        let journal = self.directory.join("journal");
        let file = journal.join(format!("{:020}-{:020}", point.epoch.0, point.sequence));
        let failed = TargetError::io(file.clone());
        let write = || {
            self.steps.step()?;
            fs::rename(body, &file)?;
            self.steps.step()?;
            sync_directory(&journal)
        };
        write().map_err(&failed)?;
        self.pending.push((point, file));
        Ok(())
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.directory.join("tree")
    }
}

/// Makes a directory and those above it, durably.
pub(super) fn make_directories(path: &Path) -> Result<(), TargetError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
        let made = fs::DirBuilder::new().mode(0o700).create(path);
        match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(TargetError::io(path))?,
        }
        sync_directory(parent).map_err(TargetError::io(parent))?;
    }
    Ok(())
}

/// Removes the files in a directory.
pub(super) fn empty(path: &Path) -> Result<(), TargetError> {
    let failed = TargetError::io(path);
    for entry in fs::read_dir(path).map_err(&failed)? {
        fs::remove_file(entry.map_err(&failed)?.path()).map_err(&failed)?;
    }
    Ok(())
}

/// The inode at a path, a link's own; `None` where there is nothing.
pub(super) fn inode(directory: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(directory) {
        Ok(meta) => Ok(Some(meta.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Makes the list of names durable that a path is in.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
}
