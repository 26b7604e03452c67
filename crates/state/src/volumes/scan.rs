//! Finds what is in a role's claims and what changed since a manifest.
//!
//! A scan runs twice for a point: before the freeze, where it reads what changed without hurry, and under the freeze, where
//! only what changed in between is read again. Files on a file system that can clone are cloned under the freeze and read
//! after it.
//!
//! When is a file that looks the same (inode, size, times) the same? Times are as coarse as the kernel's tick, and a write
//! through a memory map that the kernel already knows to be dirty moves no time at all. So before it is read, a file is
//! synced, which makes its pages clean, so that the next write through a map moves its times; and a file whose times
//! are not clearly older than that sync is *unsettled*: it is read again the next time, whatever its times say.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek64},
};

use super::{
    Claim,
    manifest::{BLOCK, Blocks, Entry, Kind, Manifest, Paths, ZERO, hash},
    tree::{Found, FoundKind, Identity, Root},
};

/// How much older than a sync a file's times have to be to be trusted: several ticks.
const TICK: Duration = Duration::from_millis(50);

mod clone {
    nix::ioctl_write_int!(ficlone, 0x94, 9);
}

/// A change of a file against what the target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// `length` bytes that lie in the spool at `at`.
    Data {
        offset: u64,
        length: u64,
        at: u64,
    },
    Zero {
        offset: u64,
        length: u64,
    },
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

/// Changed bytes, kept until they are encoded: in memory up to 8 MiB, then in a file of the staging directory.
pub(super) struct Spool {
    file: Option<tempfile::SpooledTempFile>,
    length: u64,
}

impl Spool {
    pub(super) fn new(staging: &Path) -> Self {
        Self {
            file: Some(tempfile::spooled_tempfile_in(8 << 20, staging)),
            length: 0,
        }
    }

    /// One that keeps nothing, for when only the hashes are wanted.
    pub(super) fn discard() -> Self {
        Self { file: None, length: 0 }
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.length;
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)?;
        }
        self.length += bytes.len() as u64;
        Ok(at)
    }

    pub(super) fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("nothing was kept"));
        };
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(buffer)
    }
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
            for found in walked {
                let path = found.path.clone();
                let from = origins.remove(&path).unwrap_or(From::Nothing);
                self.one(claim, &root, found, from, spool, &mut scan)
                    .map_err(|e| fail(&path, e))?;
            }
        }
        Ok(scan)
    }

    fn one(
        &self,
        claim: &Claim,
        root: &Root,
        found: Found,
        from: From,
        spool: &mut Spool,
        scan: &mut Scan,
    ) -> io::Result<()> {
        let base = self.earlier(&claim.name, &found.path, &from);
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
                add(scan, &claim.name, found.path, Scanned::whole(entry, from));
                return Ok(());
            }
        };
        let before = self.before.and_then(|b| b.claims.get(&claim.name)?.get(&found.path));
        if let Some(before) = before
            && before.from == from
            && same(&before.entry, &found.identity, size)
        {
            add(scan, &claim.name, found.path, before.clone());
            return Ok(());
        }
        if let Some(base) = base
            && same(base, &found.identity, size)
        {
            add(scan, &claim.name, found.path, Scanned::whole(base.clone(), from));
            return Ok(());
        }
        let Some((file, now)) = root.read(&found.path)? else {
            return match self.before {
                None => Ok(()),
                Some(_) => Err(io::Error::other("the file went away during the freeze")),
            };
        };
        let synced = match (self.before, before) {
            (None, _) => {
                let at = SystemTime::now();
                file.sync_data()?;
                Some(at)
            }
            (Some(_), before) => before.and_then(|b| b.synced),
        };
        // Read a file that is being written all the time only once, under the freeze.
        let hot = self.before.is_none() && base.is_some_and(|b| b.unsettled && !unchanged(b, &now.identity, size));
        let pending = Pending {
            claim: claim.name.clone(),
            file,
            found: now,
            from,
            synced,
        };
        match self.before {
            None if hot => {
                let entry = entry(
                    &pending.found,
                    Kind::File {
                        size,
                        blocks: Blocks::default(),
                    },
                    true,
                );
                let scanned = Scanned {
                    synced,
                    ..Scanned::whole(entry, pending.from)
                };
                add(scan, &claim.name, found.path, scanned);
            }
            Some(_) if let Some(copy) = cloned(&pending.file, self.staging) => {
                scan.pending.push(Pending { file: copy, ..pending });
            }
            _ => self.compare(pending, spool, scan)?,
        }
        Ok(())
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

/// Reads a file, skipping its holes, and compares it block by block with what the target has.
fn compare(
    file: &File,
    size: u64,
    base: Option<(u64, &Blocks)>,
    spool: &mut Spool,
) -> io::Result<(Blocks, Vec<Change>)> {
    let (base_size, base_blocks) = base.unwrap_or((0, const { &Blocks::EMPTY }));
    let mut blocks = Blocks::default();
    let mut changes = Vec::new();
    let mut buffer = [0; BLOCK];
    let mut data_at = 0;
    for index in 0..size.div_ceil(BLOCK as u64) {
        let offset = index * BLOCK as u64;
        let length = (size - offset).min(BLOCK as u64) as usize;
        if data_at <= offset {
            data_at = next_data(file, offset)?;
        }
        let bytes = &mut buffer[..length];
        let now = if data_at >= offset + length as u64 {
            ZERO
        } else {
            file.read_exact_at(bytes, offset)?;
            hash(bytes)
        };
        blocks.set(index, now);
        let known = base_size.saturating_sub(offset).min(BLOCK as u64) as usize;
        let before = base_blocks.get(index);
        if known == length && before == now || known < length && before == ZERO && now == ZERO {
            continue;
        }
        if now == ZERO {
            push(
                &mut changes,
                Change::Zero {
                    offset,
                    length: length as u64,
                },
            );
            continue;
        }
        // A file that grew: when the target's part of the block is still its start, only the rest travels.
        let kept = match known < length && hash(&bytes[..known]) == before {
            true => known,
            false => 0,
        };
        let rest = &bytes[kept..];
        let at = spool.push(rest)?;
        push(
            &mut changes,
            Change::Data {
                offset: offset + kept as u64,
                length: rest.len() as u64,
                at,
            },
        );
    }
    Ok((blocks, changes))
}

/// Where the next data is, the file's size at least when there is none.
pub(super) fn next_data(file: &File, offset: u64) -> io::Result<u64> {
    match lseek64(file, i64::try_from(offset).unwrap_or(i64::MAX), Whence::SeekData) {
        Ok(at) => Ok(u64::try_from(at).unwrap_or(0)),
        Err(Errno::ENXIO) => Ok(u64::MAX),
        // A file system that does not know holes has only data.
        Err(Errno::EINVAL) => Ok(offset),
        Err(e) => Err(e.into()),
    }
}

fn push(changes: &mut Vec<Change>, next: Change) {
    match (changes.last_mut(), next) {
        (
            Some(Change::Data { offset, length, at }),
            Change::Data {
                offset: o,
                length: l,
                at: a,
            },
        ) if *offset + *length == o && *at + *length == a => {
            *length += l;
        }
        (Some(Change::Zero { offset, length }), Change::Zero { offset: o, length: l }) if *offset + *length == o => {
            *length += l;
        }
        _ => changes.push(next),
    }
}
