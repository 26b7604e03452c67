//! Writes bodies: a patch from what the target has to what a scan found, and a manifest of what a target has.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    PointId,
    blocks::{Change, Spool},
    manifest::{BLOCK, Blocks, Entry, Kind, Manifest},
    scan::{Claims, From, Scan, Scanned},
    tree::Meta,
    wire::{Base, Body, BodyWriter, DATA_MAX, Header, Record, WireError, path},
};

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// What a patch does before it makes anything.
#[derive(Debug, Default, PartialEq, Eq)]
struct Clearing {
    /// Earlier path to number, of files that go on elsewhere.
    moves: BTreeMap<PathBuf, u32>,
    /// What goes away, and whether it is a directory.
    deletes: BTreeMap<PathBuf, bool>,
    /// Directories whose list of names changes.
    touched: BTreeSet<PathBuf>,
}

fn same_kind(a: &Kind, b: &Kind) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn clear(base: Option<&BTreeMap<PathBuf, Arc<Entry>>>, now: &BTreeMap<PathBuf, Scanned>, number: &mut u32) -> Clearing {
    let mut clearing = Clearing::default();
    for scanned in now.values() {
        if let From::Path(earlier) = &scanned.from {
            clearing.moves.insert(earlier.clone(), *number);
            *number += 1;
        }
    }
    for (path, entry) in base.into_iter().flatten() {
        let stays = now
            .get(path)
            .is_some_and(|s| same_kind(&s.entry.kind, &entry.kind) && !matches!(s.from, From::Path(_)));
        if !stays && !clearing.moves.contains_key(path) && !path.as_os_str().is_empty() {
            clearing.deletes.insert(path.clone(), entry.kind == Kind::Directory);
        }
    }
    let new = now.iter().filter(|(path, s)| {
        !matches!(s.from, From::SamePath) || clearing.deletes.contains_key(*path) || clearing.moves.contains_key(*path)
    });
    clearing.touched = new
        .map(|(path, _)| path)
        .chain(clearing.deletes.keys())
        .chain(clearing.moves.keys())
        .filter_map(|path| path.parent().map(Path::to_owned))
        .collect();
    clearing
}

/// Writes the patch that turns `base` into what `scan` found.
pub(super) fn write<W: Write>(
    out: W,
    header: &Header,
    base: &Manifest,
    scan: &Scan,
    spool: &mut Spool,
) -> Result<(W, PointId), WireError> {
    let mut out = BodyWriter::new(out, header)?;
    let mut number = 0;
    let mut clearings = BTreeMap::new();
    let none = BTreeMap::new();
    for name in base.0.keys().chain(scan.claims.keys()).collect::<BTreeSet<_>>() {
        let now = scan.claims.get(name).unwrap_or(&none);
        let clearing = clear(base.0.get(name), now, &mut number);
        if !(clearing.moves.is_empty() && clearing.deletes.is_empty()) {
            out.record(&Record::Claim { name: name.clone() }, &[])?;
        }
        let mut moves: Vec<_> = clearing.moves.iter().collect();
        moves.sort_by_key(|(_, number)| **number);
        for (path, number) in moves {
            let (path, number) = (bytes(path), *number);
            out.record(&Record::Move { path, number }, &[])?;
        }
        // What is in a directory goes before the directory.
        for (path, directory) in clearing.deletes.iter().rev() {
            let (path, directory) = (bytes(path), *directory);
            out.record(&Record::Delete { path, directory }, &[])?;
        }
        clearings.insert(name.clone(), clearing);
    }
    out.record(&Record::Create, &[])?;
    for (name, now) in &scan.claims {
        let Some(clearing) = clearings.get(name) else { continue };
        let mut named = false;
        for (path, scanned) in now {
            let earlier = base.get(name, path);
            if !needed(path, scanned, earlier, clearing) {
                continue;
            }
            if !std::mem::replace(&mut named, true) {
                out.record(&Record::Claim { name: name.clone() }, &[])?;
            }
            one(&mut out, path, scanned, earlier, clearing, spool)?;
        }
    }
    out.finish()
}

fn needed(path: &Path, scanned: &Scanned, earlier: Option<&Arc<Entry>>, clearing: &Clearing) -> bool {
    let Some(earlier) = earlier.filter(|_| scanned.from == From::SamePath) else {
        return true;
    };
    let content = match (&scanned.entry.kind, &earlier.kind) {
        (Kind::File { size: a, .. }, Kind::File { size: b, .. }) => a == b && scanned.changes.is_empty(),
        (a, b) => a == b,
    };
    !content || scanned.entry.meta != earlier.meta || clearing.touched.contains(path)
}

fn one<W: Write>(
    out: &mut BodyWriter<W>,
    path: &Path,
    scanned: &Scanned,
    earlier: Option<&Arc<Entry>>,
    clearing: &Clearing,
    spool: &mut Spool,
) -> Result<(), WireError> {
    let meta = scanned.entry.meta.clone();
    let base = match &scanned.from {
        From::Path(from) => clearing.moves.get(from).map_or(Base::Empty, |n| Base::Moved(*n)),
        From::SamePath if earlier.is_some_and(|e| same_kind(&e.kind, &scanned.entry.kind)) => Base::Present,
        _ => Base::Empty,
    };
    let path = bytes(path);
    match &scanned.entry.kind {
        Kind::Directory => out.record(&Record::Directory { path, meta }, &[])?,
        Kind::Link(target) => {
            let target = target.clone();
            out.record(&Record::Link { path, target, meta }, &[])?;
        }
        Kind::File { size, .. } => {
            let size = *size;
            out.record(&Record::File { path, base, size, meta }, &[])?;
            for change in &scanned.changes {
                data(out, change, spool)?;
            }
        }
    }
    Ok(())
}

fn data<W: Write>(out: &mut BodyWriter<W>, change: &Change, spool: &mut Spool) -> Result<(), WireError> {
    let (offset, length, at) = match *change {
        Change::Zero { offset, length } => return out.record(&Record::Zero { offset, length }, &[]),
        Change::Data { offset, length, at } => (offset, length, at),
    };
    let mut buffer = Vec::new();
    let mut done = 0;
    while done < length {
        let part = (length - done).min(DATA_MAX as u64);
        buffer.resize(part as usize, 0);
        spool.read(at + done, &mut buffer)?;
        let record = Record::Data {
            offset: offset + done,
            length: part as u32,
        };
        out.record(&record, &buffer)?;
        done += part;
    }
    Ok(())
}

/// Writes a manifest of what a scan found.
pub(super) fn write_manifest<W: Write>(out: W, header: &Header, claims: &Claims) -> Result<(W, PointId), WireError> {
    let mut out = BodyWriter::new(out, header)?;
    for (name, paths) in claims {
        out.record(&Record::Claim { name: name.clone() }, &[])?;
        for (path, scanned) in paths {
            let meta: Meta = scanned.entry.meta.clone();
            let path = bytes(path);
            match &scanned.entry.kind {
                Kind::Directory => out.record(&Record::Directory { path, meta }, &[])?,
                Kind::Link(target) => {
                    let target = target.clone();
                    out.record(&Record::Link { path, target, meta }, &[])?;
                }
                Kind::File { size, blocks } => {
                    let (base, size) = (Base::Empty, *size);
                    out.record(&Record::File { path, base, size, meta }, &[])?;
                    for (first, hashes) in blocks.runs() {
                        let count = hashes.len() as u32;
                        out.record(&Record::Hashes { first, count }, hashes.as_flattened())?;
                    }
                }
            }
        }
    }
    out.finish()
}

/// Reads a manifest that a target sent.
pub(super) fn read_manifest(body: &Body) -> Result<Manifest, WireError> {
    let mut manifest = Manifest::default();
    let mut at: Option<String> = None;
    let mut file: Option<(PathBuf, Meta, u64, Blocks)> = None;
    let mut records = body.records()?;
    loop {
        let record = records.next()?;
        if let Some(Record::Hashes { first, .. }) = record {
            let Some((_, _, size, blocks)) = &mut file else {
                return Err(WireError::Malformed("hashes come before their file".into()));
            };
            let end = size.div_ceil(BLOCK as u64);
            for (index, hash) in (first..end).zip(records.hashes()) {
                blocks.set(index, hash);
            }
            continue;
        }
        let ended = file
            .take()
            .map(|(path, meta, size, blocks)| (path, meta, Kind::File { size, blocks }));
        let next = match record {
            None => None,
            Some(Record::Claim { ref name }) => {
                add(&mut manifest, at.as_deref(), ended);
                manifest.0.entry(name.clone()).or_default();
                at = Some(name.clone());
                continue;
            }
            Some(Record::Directory { path: p, meta }) => Some((path(&p)?, meta, Kind::Directory)),
            Some(Record::Link { path: p, target, meta }) => Some((path(&p)?, meta, Kind::Link(target))),
            Some(Record::File {
                path: p, size, meta, ..
            }) => {
                file = Some((path(&p)?, meta, size, Blocks::default()));
                add(&mut manifest, at.as_deref(), ended);
                continue;
            }
            Some(_) => return Err(WireError::Malformed("a record has no place in a manifest".into())),
        };
        add(&mut manifest, at.as_deref(), ended);
        if next.is_none() {
            return Ok(manifest);
        }
        add(&mut manifest, at.as_deref(), next);
    }
}

fn add(manifest: &mut Manifest, claim: Option<&str>, entry: Option<(PathBuf, Meta, Kind)>) {
    if let Some((path, meta, kind)) = entry
        && let Some(paths) = claim.and_then(|name| manifest.0.get_mut(name))
    {
        let entry = Entry {
            meta,
            kind,
            identity: None,
            unsettled: false,
        };
        paths.insert(path, Arc::new(entry));
    }
}
