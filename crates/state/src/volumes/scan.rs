//! Finds what is in a role's claims and what changed since a manifest.
//!
//! A scan runs twice for a point: before the freeze, where it reads what changed without hurry, and under the freeze, where
//! only what changed in between is read again. Files on a file system that can clone are cloned under the freeze and read
//! after it.
//!
//! When is a file that looks the same (inode, size, times) the same? Times are as coarse as the kernel's tick, and a write
//! through a memory map that the kernel already knows to be dirty moves no time at all. So before it is read, a file is
//! synced, which makes its pages clean, so that the next write through a map moves its times; and a file whose times
//! are not clearly older than that sync is *unsettled*: it is read again the next time, whatever its times say. On a file
//! system in memory nothing is made clean, so there every file that was ever changed stays unsettled.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    Claim,
    blocks::{Change, Spool, compare},
    manifest::{Blocks, Entry, Kind, Manifest, Paths},
    tree::{Found, FoundKind, Identity, Root},
};

/// How much older than a sync a file's times have to be to be trusted: several ticks.
const TICK: Duration = Duration::from_millis(50);

mod clone {
    nix::ioctl_write_int!(ficlone, 0x94, 9);
}

/// Where a file's earlier content is at the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    Nothing,
    SamePath,
    Path(PathBuf),
}

/// One path as it is, with what changed where it is a file.
#[derive(Debug, Clone)]
pub(super) struct Scanned {
    pub(super) entry: Arc<Entry>,
    pub(super) from: From,
    pub(super) changes: Vec<Change>,
    synced: Option<SystemTime>,
}

/// A claim's paths.
pub(super) type Claims = BTreeMap<String, BTreeMap<PathBuf, Scanned>>;

/// What a scan found, and what is still to be read from clones.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) claims: Claims,
    pending: Vec<Pending>,
    /// Sockets, pipes and devices, which are not mirrored.
    pub(super) skipped: usize,
}

#[derive(Debug)]
struct Pending {
    claim: String,
    file: File,
    found: Found,
    from: From,
    synced: Option<SystemTime>,
}

/// Why a claim could not be read.
#[derive(Debug, thiserror::Error)]
#[error("claim {claim}: cannot read {path:?}: {source}")]
pub struct ScanError {
    claim: String,
    path: PathBuf,
    source: io::Error,
}

/// What a scan works with.
pub(super) struct Scanner<'a> {
    pub(super) claims: &'a [Claim],
    /// What the target has.
    pub(super) base: &'a Manifest,
    /// The scan before the freeze, when this is the one under it.
    pub(super) before: Option<&'a Scan>,
    /// Where clones are put, when this is the scan under the freeze.
    pub(super) staging: &'a Path,
}

struct Place<'a> {
    claim: &'a str,
    root: &'a Root,
}

impl Scanner<'_> {
    /// Walks all claims and reads what changed.
    pub(super) fn scan(&self, spool: &mut Spool) -> Result<Scan, ScanError> {
        let mut scan = Scan::default();
        for claim in self.claims {
            let fail = |path: &Path, source| ScanError {
                claim: claim.name.clone(),
                path: claim.directory.join(path),
                source,
            };
            let root = Root::open(&claim.directory).map_err(|e| fail(Path::new(""), e))?;
            let walked = root.walk().map_err(|e| fail(Path::new(""), e))?;
            let empty = Paths::new();
            let base = self.base.0.get(&claim.name).unwrap_or(&empty);
            let mut origins = origins(base, &walked);
            scan.claims.entry(claim.name.clone()).or_default();
            let place = Place {
                claim: &claim.name,
                root: &root,
            };
            for found in walked {
                let path = found.path.clone();
                let from = origins.remove(&path).unwrap_or(From::Nothing);
                self.one(&place, found, from, spool, &mut scan)
                    .map_err(|e| fail(&path, e))?;
            }
        }
        Ok(scan)
    }

    fn one(&self, place: &Place<'_>, found: Found, from: From, spool: &mut Spool, scan: &mut Scan) -> io::Result<()> {
        let size = match &found.kind {
            FoundKind::File { size } => *size,
            FoundKind::Other => {
                scan.skipped += 1;
                return Ok(());
            }
            kind => {
                let kind = match kind {
                    FoundKind::Link(target) => Kind::Link(target.clone()),
                    _ => Kind::Directory,
                };
                let entry = entry(&found, kind, false);
                add(scan, place.claim, found.path, Scanned::whole(entry, from));
                return Ok(());
            }
        };
        let base = self.earlier(place.claim, &found.path, &from);
        let before = self.before.and_then(|b| b.claims.get(place.claim)?.get(&found.path));
        let known = match (before, base) {
            (Some(before), _) if before.from == from && same(&before.entry, &found.identity, size) => before.clone(),
            (_, Some(base)) if same(base, &found.identity, size) => Scanned::whole(base.clone(), from),
            _ => return self.changed(place, found.path, from, spool, scan),
        };
        add(scan, place.claim, found.path, known);
        Ok(())
    }

    /// Takes in a file that is not known to be the same: reads it now, or later where that is better.
    fn changed(
        &self,
        place: &Place<'_>,
        path: PathBuf,
        from: From,
        spool: &mut Spool,
        scan: &mut Scan,
    ) -> io::Result<()> {
        let Some((file, found)) = place.root.read(&path)? else {
            return match self.before {
                None => Ok(()),
                Some(_) => Err(io::Error::other("the file went away during the freeze")),
            };
        };
        let claim = place.claim.to_owned();
        let pending = |file, found, from, synced| Pending {
            claim,
            file,
            found,
            from,
            synced,
        };
        if let Some(before) = self.before {
            let synced = before
                .claims
                .get(place.claim)
                .and_then(|paths| paths.get(&path)?.synced);
            return match cloned(&file, self.staging) {
                Some(copy) => {
                    scan.pending.push(pending(copy, found, from, synced));
                    Ok(())
                }
                None => self.compare(pending(file, found, from, synced), spool, scan),
            };
        }
        let at = SystemTime::now();
        // In memory nothing is ever made clean, so no time can be trusted: such a file never settles.
        let synced = (!place.root.is_in_memory()).then_some(at);
        if synced.is_some() {
            file.sync_data()?;
        }
        if self.is_hot(place, &found, &from) {
            let FoundKind::File { size } = found.kind else {
                return Ok(());
            };
            let unread = entry(
                &found,
                Kind::File {
                    size,
                    blocks: Blocks::default(),
                },
                true,
            );
            add(
                scan,
                place.claim,
                path,
                Scanned {
                    synced,
                    ..Scanned::whole(unread, from)
                },
            );
            return Ok(());
        }
        match self.compare(pending(file, found, from, synced), spool, scan) {
            // Cut while it was read before the freeze: it is read again under it.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            done => done,
        }
    }

    /// Whether a file will have to be read under the freeze anyhow, because it is written all the time or never settles.
    fn is_hot(&self, place: &Place<'_>, found: &Found, from: &From) -> bool {
        let FoundKind::File { size } = found.kind else {
            return false;
        };
        self.earlier(place.claim, &found.path, from).is_some_and(|base| {
            base.unsettled && (place.root.is_in_memory() || !unchanged(base, &found.identity, size))
        })
    }

    /// Reads what was cloned under the freeze.
    pub(super) fn finish(&self, scan: &mut Scan, spool: &mut Spool) -> io::Result<()> {
        for pending in std::mem::take(&mut scan.pending) {
            self.compare(pending, spool, scan)?;
        }
        Ok(())
    }

    fn compare(&self, pending: Pending, spool: &mut Spool, scan: &mut Scan) -> io::Result<()> {
        let Pending {
            claim,
            file,
            found,
            from,
            synced,
        } = pending;
        let FoundKind::File { size } = found.kind else {
            return Ok(());
        };
        let base = match self.earlier(&claim, &found.path, &from).map(|e| &e.kind) {
            Some(Kind::File { size, blocks }) => Some((*size, blocks)),
            _ => None,
        };
        let (blocks, changes) = compare(&file, size, base, spool)?;
        let unsettled = synced.is_none_or(|at| !settled(&found.identity, at));
        let entry = entry(&found, Kind::File { size, blocks }, unsettled);
        add(
            scan,
            &claim,
            found.path,
            Scanned {
                entry,
                from,
                changes,
                synced,
            },
        );
        Ok(())
    }

    fn earlier(&self, claim: &str, path: &Path, from: &From) -> Option<&Arc<Entry>> {
        match from {
            From::Nothing => None,
            From::SamePath => self.base.get(claim, path),
            From::Path(path) => self.base.get(claim, path),
        }
    }
}

impl Scanned {
    fn whole(entry: Arc<Entry>, from: From) -> Self {
        Self {
            entry,
            from,
            changes: Vec::new(),
            synced: None,
        }
    }
}

fn entry(found: &Found, kind: Kind, unsettled: bool) -> Arc<Entry> {
    Arc::new(Entry {
        meta: found.meta.clone(),
        kind,
        identity: Some(found.identity),
        unsettled,
    })
}

fn add(scan: &mut Scan, claim: &str, path: PathBuf, scanned: Scanned) {
    if let Some(paths) = scan.claims.get_mut(claim) {
        paths.insert(path, scanned);
    }
}

fn unchanged(entry: &Entry, identity: &Identity, size: u64) -> bool {
    entry.identity.as_ref() == Some(identity) && matches!(entry.kind, Kind::File { size: s, .. } if s == size)
}

fn same(entry: &Entry, identity: &Identity, size: u64) -> bool {
    !entry.unsettled && unchanged(entry, identity, size)
}

fn settled(identity: &Identity, synced: SystemTime) -> bool {
    let Ok(seconds) = u64::try_from(identity.ctime.0) else {
        return true;
    };
    UNIX_EPOCH + Duration::new(seconds, identity.ctime.1) + TICK < synced
}

/// Which earlier file each path goes on from: the one with the same inode that is no longer where it was, else the one at
/// the path, unless that one was moved elsewhere.
fn origins(base: &Paths, walked: &[Found]) -> HashMap<PathBuf, From> {
    let inode = |identity: &Identity| (identity.device, identity.inode);
    let is_file = |found: &&Found| matches!(found.kind, FoundKind::File { .. });
    let now: HashMap<_, _> = walked
        .iter()
        .filter(is_file)
        .map(|f| (&f.path, inode(&f.identity)))
        .collect();
    let mut earlier: HashMap<_, _> = base
        .iter()
        .filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }))
        .filter_map(|(path, entry)| Some((inode(entry.identity.as_ref()?), path)))
        .filter(|(inode, path)| now.get(path) != Some(inode))
        .collect();
    let mut moved = HashMap::new();
    for found in walked.iter().filter(is_file) {
        let stayed = base
            .get(&found.path)
            .and_then(|e| e.identity)
            .is_some_and(|i| inode(&i) == inode(&found.identity));
        if !stayed && let Some(path) = earlier.remove(&inode(&found.identity)) {
            moved.insert(found.path.clone(), path);
        }
    }
    let gone: std::collections::HashSet<_> = moved.values().copied().collect();
    walked
        .iter()
        .map(|found| {
            let from = match moved.get(&found.path) {
                Some(path) => From::Path((*path).clone()),
                None if base.contains_key(&found.path) && !gone.contains(&found.path) => From::SamePath,
                None => From::Nothing,
            };
            (found.path.clone(), from)
        })
        .collect()
}

/// A copy-on-write clone without a name, where the file system can make one.
fn cloned(file: &File, staging: &Path) -> Option<File> {
    use std::os::fd::AsRawFd;
    let copy = tempfile::tempfile_in(staging).ok()?;
    // SAFETY: FICLONE takes two open descriptors and touches no memory of ours.
    let done = unsafe { clone::ficlone(copy.as_raw_fd(), u64::try_from(file.as_raw_fd()).ok()?) };
    done.ok().map(|_| copy)
}
