//! Applies complete points to a role's tree.
//!
//! First what the point takes away (files that move go to `moving/`), then a durable mark, then what it makes and changes.
//! Done again from either half's start, each half leads to the same tree, so a kill anywhere is made good by starting
//! over. A point leaves the journal only after everything that it changed is synced and `role.json` says so.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{FallocateFlags, fallocate};

use super::{
    TargetError,
    store::{Phase, Steps, Store, empty, make_directories},
};
use crate::volumes::{
    Point,
    tree::{Meta, Root, dress},
    wire::{Base, Body, Record, WireError, path},
};

/// From so many written files on, the file system is synced instead of each file.
const SYNC_EACH: usize = 32;

impl Store {
    /// Applies everything in the journal, in order.
    pub(super) fn apply_pending(&mut self) -> Result<(), TargetError> {
        while let Some((point, file)) = self.pending.first().cloned() {
            let failed = TargetError::io(&file);
            let body =
                Body::open(File::open(&file).map_err(&failed)?).map_err(|_| TargetError::Corrupt(file.clone()))?;
            self.keep(&body)?;
            self.apply_one(&point, &body)?;
            self.state.applied = Some(point);
            self.state.cleared = None;
            self.save()?;
            self.pending.remove(0);
            fs::remove_file(&file).map_err(&failed)?;
            self.steps.step().map_err(&failed)?;
        }
        Ok(())
    }

    fn apply_one(&mut self, point: &Point, body: &Body) -> Result<(), TargetError> {
        let tree = self.tree();
        let moving = self.directory.join("moving");
        if self.state.cleared != Some(point.id) && takes_away(body)? {
            let failed = TargetError::io(&tree);
            clear(body, &tree, &moving, &self.steps).map_err(|e| local(e, &failed))?;
            self.state.cleared = Some(point.id);
            self.save()?;
        }
        let failed = TargetError::io(&tree);
        let mut making = Making::new(&tree, &moving, &self.steps);
        making.run(body).map_err(|e| local(e, &failed))?;
        empty(&moving)
    }
}

fn local(error: WireError, failed: impl Fn(io::Error) -> TargetError) -> TargetError {
    match error {
        WireError::Io(e) => failed(e),
        other => TargetError::Body(other),
    }
}

fn takes_away(body: &Body) -> Result<bool, WireError> {
    let mut records = body.records()?;
    Ok(!matches!(records.next()?, Some(Record::Create) | None))
}

fn open_claim(tree: &Path, name: &str) -> Result<Root, WireError> {
    let directory = tree.join(name);
    make_directories(&directory).map_err(io::Error::other)?;
    Ok(Root::open(&directory)?)
}

fn number_path(number: u32) -> PathBuf {
    PathBuf::from(number.to_string())
}

fn no_claim() -> WireError {
    WireError::Malformed("a record comes before its claim".into())
}

/// The first half: moves and deletes.
fn clear(body: &Body, tree: &Path, moving: &Path, steps: &Steps) -> Result<(), WireError> {
    let aside = Root::open(moving)?;
    let mut claim: Option<Root> = None;
    let mut touched = BTreeSet::new();
    let mut records = body.records()?;
    while let Some(record) = records.next()? {
        steps.step()?;
        match (record, &claim) {
            (Record::Create, _) => break,
            (Record::Claim { name }, _) => {
                sync(claim.as_ref(), &mut touched)?;
                claim = Some(open_claim(tree, &name)?);
            }
            (Record::Move { path: p, number }, Some(root)) => {
                let from = path(&p)?;
                let to = number_path(number);
                if aside.look(&to)?.is_none() {
                    root.rename(&from, &aside, &to)?;
                }
                touched.extend(from.parent().map(Path::to_owned));
            }
            (Record::Delete { path: p, directory }, Some(root)) => {
                let gone = path(&p)?;
                root.remove(&gone, directory)?;
                touched.extend(gone.parent().map(Path::to_owned));
            }
            _ => return Err(no_claim()),
        }
    }
    sync(claim.as_ref(), &mut touched)?;
    Ok(aside.sync_directory(Path::new(""))?)
}

fn sync(root: Option<&Root>, touched: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let Some(root) = root else { return Ok(()) };
    for directory in std::mem::take(touched) {
        root.sync_directory(&directory)?;
    }
    Ok(())
}

/// The second half: what is made or changed.
struct Making<'a> {
    tree: &'a Path,
    moving: &'a Path,
    steps: &'a Steps,
    claim: Option<Root>,
    file: Option<(File, Meta)>,
    /// Directories of the claim that get their metadata when nothing is made in them any more.
    directories: Vec<(PathBuf, Meta)>,
    touched: BTreeSet<PathBuf>,
    written: usize,
}

impl<'a> Making<'a> {
    fn new(tree: &'a Path, moving: &'a Path, steps: &'a Steps) -> Self {
        Self {
            tree,
            moving,
            steps,
            claim: None,
            file: None,
            directories: Vec::new(),
            touched: BTreeSet::new(),
            written: 0,
        }
    }

    fn run(&mut self, body: &Body) -> Result<(), WireError> {
        let mut records = body.records()?;
        while !matches!(records.next()?, Some(Record::Create) | None) {}
        while let Some(record) = records.next()? {
            self.steps.step()?;
            self.one(record, &records.payload)?;
        }
        self.end_claim()?;
        let tree = Root::open(self.tree)?;
        if self.written >= SYNC_EACH {
            tree.sync_all()?;
        }
        Ok(tree.sync_directory(Path::new(""))?)
    }

    fn one(&mut self, record: Record, payload: &[u8]) -> Result<(), WireError> {
        match record {
            Record::Data { offset, .. } => {
                let (file, _) = self.file.as_ref().ok_or_else(no_claim)?;
                return Ok(file.write_all_at(payload, offset)?);
            }
            Record::Zero { offset, length } => {
                let (file, _) = self.file.as_ref().ok_or_else(no_claim)?;
                return Ok(zero(file, offset, length)?);
            }
            _ => self.end_file()?,
        }
        if let Record::Claim { name } = record {
            self.end_claim()?;
            self.claim = Some(open_claim(self.tree, &name)?);
            return Ok(());
        }
        let root = self.claim.as_ref().ok_or_else(no_claim)?;
        let made = match record {
            Record::Directory { path: p, meta } => {
                let at = path(&p)?;
                root.make_directory(&at)?;
                self.directories.push((at.clone(), meta));
                at
            }
            Record::Link { path: p, target, meta } => {
                let at = path(&p)?;
                root.make_link(&at, &target, &meta)?;
                at
            }
            Record::File {
                path: p,
                base,
                size,
                meta,
            } => {
                let at = path(&p)?;
                self.file = Some((self.open_file(root, &at, base, size)?, meta));
                at
            }
            _ => return Err(no_claim()),
        };
        self.touched.extend(made.parent().map(Path::to_owned));
        Ok(())
    }

    fn open_file(&self, root: &Root, at: &Path, base: Base, size: u64) -> Result<File, WireError> {
        if let Base::Moved(number) = base {
            let aside = Root::open(self.moving)?;
            let number = number_path(number);
            if aside.look(&number)?.is_some() {
                aside.rename(&number, root, at)?;
            }
        }
        let file = root.write(at)?;
        if base == Base::Empty {
            file.set_len(0)?;
        }
        file.set_len(size)?;
        Ok(file)
    }

    fn end_file(&mut self) -> io::Result<()> {
        if let Some((file, meta)) = self.file.take() {
            dress(&file, &meta)?;
            self.written += 1;
            if self.written < SYNC_EACH {
                file.sync_all()?;
            }
        }
        Ok(())
    }

    fn end_claim(&mut self) -> io::Result<()> {
        self.end_file()?;
        let Some(root) = self.claim.take() else { return Ok(()) };
        for (path, meta) in std::mem::take(&mut self.directories).iter().rev() {
            root.dress_directory(path, meta)?;
            self.touched.insert(path.clone());
        }
        sync(Some(&root), &mut self.touched)
    }
}

fn zero(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let signed = |n: u64| i64::try_from(n).map_err(io::Error::other);
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if fallocate(file, punch, signed(offset)?, signed(length)?).is_ok() {
        return Ok(());
    }
    let zeros = [0; 64 << 10];
    let mut done = 0;
    while done < length {
        let part = (length - done).min(zeros.len() as u64);
        file.write_all_at(&zeros[..part as usize], offset + done)?;
        done += part;
    }
    Ok(())
}

impl Store {
    /// Before the first point after a return: puts what it would overwrite or take away into the kept directory.
    fn keep(&mut self, body: &Body) -> Result<(), TargetError> {
        let Phase::Returned { kept, since_ms } = self.state.phase.clone() else {
            return Ok(());
        };
        let mut found = super::keep::keep(body, &self.tree(), &kept, &self.steps)?;
        if found.files > 0 {
            found.from_ms = since_ms.or(found.from_ms);
            self.state.kept.push(found);
        }
        self.state.phase = Phase::Standby;
        self.save()
    }
}
