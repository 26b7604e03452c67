//! The mirror of other regions' roles in this region.
//!
//! A point is durable once its body lies whole and synced in the role's journal; only then is it answered. Applying it to the
//! tree is idempotent: interrupted, it is done again from the journal, and nobody is shown the tree in between. The highest
//! epoch is durable before anything of that epoch is accepted; what a lower epoch brings is refused.

mod apply;
pub mod http;
mod keep;
mod place;
pub mod right;
mod store;
mod turn;

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use leeward_core::name::{Epoch, RoleKey};
use serde::{Deserialize, Serialize};

pub use self::keep::Kept;
use self::store::{Phase, Steps, Store};
use super::{
    Claim, Point,
    blocks::Spool,
    manifest::Manifest,
    patch,
    scan::Scanner,
    wire::{Body, Header, WireError},
};

/// A finished promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// The point that the role goes on from. `None`: this region was the writer already, and its data stayed.
    pub point: Option<Point>,
}

/// Why something was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The sender, or who asks, belongs to an epoch that is over. It must not be repeated.
    #[error("epoch {epoch} is over: the highest one here is {highest}")]
    StaleEpoch {
        /// The epoch that was refused.
        epoch: Epoch,
        /// The highest epoch that was seen.
        highest: Epoch,
    },
    /// The epoch is not the sender's, as far as is known here. Try again soon.
    #[error(transparent)]
    Denied(#[from] Box<right::Denied>),
    /// This region was the role's writer and was not yet told to follow. Try again later.
    #[error("this region writes in the role, or did and has not been told to follow yet")]
    NotFollowing,
    /// The point does not continue what is here. The newest point here says from where to go on.
    #[error("the point does not continue the newest one here")]
    OutOfOrder {
        /// The newest complete point here.
        head: Option<Box<Point>>,
    },
    /// This region mirrors the role: it can be promoted, but not begin on its own.
    #[error("this region mirrors the role of another region, so it can only be promoted")]
    Mirroring,
    /// A claim's name cannot be a directory's name.
    #[error("{0:?} cannot be a claim's name: expected lower-case letters, digits, '-' and '.'")]
    ClaimName(String),
    /// There is nothing to promote.
    #[error("the mirror has no complete point of the role")]
    NoPoint,
    /// The role is not known here.
    #[error("the role {0} is not known here")]
    Unknown(RoleKey),
    /// The body is not one.
    #[error(transparent)]
    Body(#[from] WireError),
    /// The body says another role, epoch or sequence than its address.
    #[error("the body is of another point than its address says")]
    OtherPoint,
    /// There is no room for the point. Free some space; the sender tries again.
    #[error("the file system has {free} bytes free and the point needs {needed}: free some space")]
    DiskFull {
        /// What the point needs.
        needed: u64,
        /// What is there.
        free: u64,
    },
    /// The role's name cannot be a directory's name.
    #[error("{0} cannot be mirrored: its names must be of lower-case letters, digits, '-' and '.'")]
    RoleName(RoleKey),
    /// What was kept here cannot be read.
    #[error("{0:?} is damaged; move the role's directory away, and the mirror starts anew from the writer")]
    Corrupt(PathBuf),
    /// A claim's directory and the mirror are on different file systems, or something is in the way.
    #[error(
        "claim {claim}: {directory:?} and the mirror cannot take each other's place: {source}; both have to be on one \
         file system, and no pod may use the claim"
    )]
    Swap {
        /// The claim's name.
        claim: String,
        /// Its directory.
        directory: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A claim is a mount of its own, and not the only one of its role.
    #[error(
        "claim {claim} is on a mount of its own, and the role has {count} claims: what several mounts hold cannot be exchanged at one instant, so \
         nothing of the role is promoted here; put the role's data into one claim, or the volumes of all of them on the file system of data_dir"
    )]
    Several {
        /// The claim that is on a mount of its own.
        claim: String,
        /// How many claims the role has.
        count: usize,
    },
    /// The mirror is inside a claim, and cannot be used there.
    #[error("the mirror is in {directory:?}, inside the role's claim: {reason}")]
    Away {
        /// Where it is.
        directory: PathBuf,
        /// What is wrong, and what to do.
        reason: &'static str,
    },
    /// A file could not be read or written.
    #[error("{path:?}: {source}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl TargetError {
    fn io(path: impl Into<PathBuf>) -> impl Fn(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            path: path.clone(),
            source,
        }
    }
}

/// The newest complete point of a role and how this region stands to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The highest epoch that was seen.
    pub epoch: Epoch,
    /// Whether points are accepted.
    pub accepts: bool,
    /// The newest complete point.
    pub point: Option<Point>,
}

/// The mirrors of one region. All methods block on the disk: call them where that is allowed.
#[derive(Debug)]
pub struct Target {
    root: PathBuf,
    roles: Mutex<HashMap<RoleKey, Arc<Mutex<Option<Store>>>>>,
    steps: Steps,
    /// Bytes that have to stay free beside a point's.
    margin: u64,
    /// By what mounts are told apart.
    mount: fn(&Path) -> io::Result<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    /// Opens the mirrors in a directory, which is made if it is missing. A role is opened when it is first asked for.
    pub fn open(root: &Path) -> Result<Self, TargetError> {
        store::make_directories(root)?;
        let failed = TargetError::io(root);
        let root = root.canonicalize().map_err(&failed)?;
        for role in std::fs::read_dir(&root).map_err(&failed)? {
            let role = role.map_err(&failed)?.path();
            let directory = match place::led(&role) {
                Ok(led) => led.unwrap_or(role),
                // Said when the role is asked for.
                Err(_) => continue,
            };
            let incoming = directory.join("incoming");
            if incoming.is_dir() {
                store::empty(&incoming)?;
            }
        }
        Ok(Self {
            root,
            roles: Mutex::default(),
            steps: Steps::default(),
            margin: MARGIN,
            mount: place::mount,
        })
    }

    /// Works with a role's store. After a failure the files may be ahead of what is in memory: it is opened again by the next
    /// call, which finishes what was begun.
    fn with<T>(
        &self,
        role: &RoleKey,
        create: bool,
        work: impl FnOnce(&mut Store) -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        store::directory_name(role)?;
        let slot = lock(&self.roles).entry(role.clone()).or_default().clone();
        let mut slot = lock(&slot);
        let mut store = match slot.take() {
            Some(store) => {
                if store.placed {
                    place::is_own(&store.directory)?;
                }
                store
            }
            None => {
                Store::open(&self.root, role, create, &self.steps)?.ok_or_else(|| TargetError::Unknown(role.clone()))?
            }
        };
        let done = work(&mut store);
        if !matches!(done, Err(TargetError::Io { .. } | TargetError::Swap { .. })) {
            *slot = Some(store);
        }
        done
    }

    /// The newest complete point and the highest epoch; an unknown role has neither and accepts points.
    pub fn head(&self, role: &RoleKey) -> Result<Head, TargetError> {
        let known = self.with(role, false, |store| {
            Ok(Head {
                epoch: store.state.highest_epoch,
                accepts: store.accepts(),
                point: store.head().cloned(),
            })
        });
        match known {
            Err(TargetError::Unknown(_)) => Ok(Head {
                epoch: Epoch(0),
                accepts: true,
                point: None,
            }),
            known => known,
        }
    }

    /// The newest complete point, if there is one.
    pub fn last_point(&self, role: &RoleKey) -> Result<Option<Point>, TargetError> {
        Ok(self.head(role)?.point)
    }

    /// How far the mirror is behind at `now_ms`, in milliseconds: the age of its newest complete point.
    pub fn lag_ms(&self, role: &RoleKey, now_ms: u64) -> Result<Option<u64>, TargetError> {
        Ok(self.last_point(role)?.map(|p| now_ms.saturating_sub(p.source_time_ms)))
    }

    /// What was kept of the role in this region, the newest last.
    pub fn kept(&self, role: &RoleKey) -> Result<Vec<Kept>, TargetError> {
        self.with(role, false, |store| Ok(store.state.kept.clone()))
    }

    /// Shows the mirror's tree (a directory a claim) at its newest complete point, for as long as `show` runs.
    pub fn current<T>(&self, role: &RoleKey, show: impl FnOnce(&Point, &Path) -> T) -> Result<T, TargetError> {
        self.with(role, false, |store| {
            store.apply_pending()?;
            match (&store.state.phase, &store.state.applied) {
                (Phase::Standby, Some(point)) => Ok(show(point, &store.tree())),
                _ => Err(TargetError::NoPoint),
            }
        })
    }

    /// Applies what waits in a role's journal to its tree.
    pub fn apply(&self, role: &RoleKey) -> Result<(), TargetError> {
        self.with(role, false, Store::apply_pending)
    }

    /// Whether a point of this epoch could be accepted now.
    fn may_accept(&self, role: &RoleKey, epoch: Epoch) -> Result<(), TargetError> {
        self.with(role, true, |store| store.may_accept(epoch))
    }

    /// Where a body of this role may be put while it arrives.
    fn incoming(&self, role: &RoleKey, length: u64) -> Result<tempfile::NamedTempFile, TargetError> {
        let incoming = self.root.join(store::directory_name(role)?).join("incoming");
        store::make_directories(&incoming)?;
        self.room(&incoming, length)?;
        tempfile::NamedTempFile::new_in(&incoming).map_err(TargetError::io(incoming))
    }

    /// Takes in the point in `body`, a file of [`Self::incoming`]. It is durable when this returns.
    fn accept(
        &self,
        role: &RoleKey,
        epoch: Epoch,
        sequence: u64,
        body: &tempfile::NamedTempFile,
    ) -> Result<Point, TargetError> {
        let failed = TargetError::io(body.path());
        let opened = Body::open(body.reopen().map_err(&failed)?)?;
        let point = opened.point()?;
        if (&point.role, point.epoch, point.sequence) != (role, epoch, sequence) {
            return Err(TargetError::OtherPoint);
        }
        let bytes = opened.check()?;
        drop(opened);
        body.as_file().sync_all().map_err(&failed)?;
        self.with(role, true, |store| {
            store.may_accept(epoch)?;
            if store.head().map(|p| p.id) == Some(point.id) {
                return Ok(point);
            }
            let next = store.head().map_or(1, |p| p.sequence.saturating_add(1));
            if (point.parent, point.sequence) != (store.head().map(|p| p.id), next) {
                let head = store.head().cloned().map(Box::new);
                return Err(TargetError::OutOfOrder { head });
            }
            if store.pending.len() >= BACKLOG {
                store.apply_pending()?;
            }
            self.room(&store.directory, bytes)?;
            store.raise(epoch)?;
            store.append(point.clone(), body.path())?;
            Ok(point)
        })
    }

    fn room(&self, directory: &Path, bytes: u64) -> Result<(), TargetError> {
        let stat = nix::sys::statvfs::statvfs(directory).map_err(|e| TargetError::io(directory)(e.into()))?;
        let free = stat.blocks_available() * stat.fragment_size();
        let needed = bytes.saturating_add(self.margin);
        match free < needed {
            true => Err(TargetError::DiskFull { needed, free }),
            false => Ok(()),
        }
    }

    /// Takes every claim for a mount of its own.
    #[cfg(test)]
    pub(super) fn take_apart(&mut self) {
        use std::os::unix::fs::MetadataExt;
        self.mount = |path| Ok(std::fs::metadata(path)?.ino());
    }

    /// From the step after `steps` on, everything fails as if the process had been killed.
    #[cfg(test)]
    pub(super) fn fail_after(&mut self, steps: i64) {
        self.steps.left = Some(Arc::new(steps.into()));
    }

    /// Makes the disk look full.
    #[cfg(test)]
    pub(super) fn set_margin(&mut self, margin: u64) {
        self.margin = margin;
    }

    /// What the role's tree holds, as a source would learn it.
    #[cfg(test)]
    pub(super) fn manifest_of(&self, role: &RoleKey) -> Result<Manifest, TargetError> {
        Ok(patch::read_manifest(&Body::open(self.manifest(role)?)?)?)
    }

    /// The same, where nothing fails.
    #[cfg(test)]
    pub(super) fn known(&self, role: &RoleKey) -> Manifest {
        self.manifest_of(role).unwrap_or_default()
    }

    /// Takes in a point as the peer link does.
    #[cfg(test)]
    pub(super) fn deliver(&self, taken: &super::source::Taken) -> Result<Point, TargetError> {
        use std::io::Seek;
        let Point {
            role, epoch, sequence, ..
        } = &taken.point;
        self.may_accept(role, *epoch)?;
        let body = self.incoming(role, taken.length)?;
        let copy = || {
            let mut from = taken.body.try_clone()?;
            from.rewind()?;
            io::copy(&mut from, &mut body.reopen()?)
        };
        copy().map_err(TargetError::io(body.path()))?;
        self.accept(role, *epoch, *sequence, &body)
    }

    /// Writes a manifest of what the role's tree holds into a file, for a source that does not know it.
    fn manifest(&self, role: &RoleKey) -> Result<File, TargetError> {
        self.with(role, true, |store| {
            store.apply_pending()?;
            let (tree, incoming) = (store.tree(), store.directory.join("incoming"));
            let failed = TargetError::io(&tree);
            let entries: Result<Vec<_>, _> = std::fs::read_dir(&tree).map_err(&failed)?.collect();
            let claims = entries.map_err(&failed)?.into_iter().map(|entry| Claim {
                name: entry.file_name().to_string_lossy().into_owned(),
                directory: entry.path(),
            });
            let claims: Vec<_> = claims.collect();
            let scanner = Scanner {
                claims: &claims,
                base: &Manifest::default(),
                before: None,
                staging: &incoming,
            };
            let mut discard = Spool::discard();
            let scan = scanner.scan(&mut discard).map_err(io::Error::other).map_err(&failed)?;
            let header = Header::Manifest {
                role: role.clone(),
                point: store.state.applied.clone(),
            };
            let file = tempfile::tempfile_in(&incoming).map_err(&failed)?;
            let (file, _) = patch::write_manifest(io::BufWriter::new(file), &header, &scan.claims)?;
            file.into_inner().map_err(|e| failed(e.into_error()))
        })
    }
}

/// So many points may be complete and not yet applied; then the next one waits for that.
const BACKLOG: usize = 8;

/// Room that has to stay free beside a point's bytes.
const MARGIN: u64 = 16 << 20;
