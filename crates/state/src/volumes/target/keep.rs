//! What a returned region had that the new writer does not have: measured, and put aside before it is overwritten.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    TargetError,
    store::{Steps, inode, make_directories, sync_parent},
};
use crate::volumes::{
    blocks::next_data,
    tree::{FoundKind, Meta, Root, dress},
    wire::{Base, Body, Record, WireError, path},
};

/// What a returning region had that the new writer did not have, kept aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where it is. Nothing here deletes it.
    pub path: PathBuf,
    /// Bytes that differ from the new writer's, or that it did not have.
    pub bytes: u64,
    /// Files and links that differ, or that it did not have.
    pub files: u64,
    /// From when on it was written, Unix milliseconds: when the point was taken that the new writer went on from; where that was not known,
    /// the oldest last change of these files.
    #[serde(default)]
    pub from_ms: Option<u64>,
    /// The newest change of these files, Unix milliseconds. Where it is before `from_ms`, nothing was written after that point: it is what the
    /// new writer has changed or removed since.
    #[serde(default)]
    pub to_ms: Option<u64>,
}

impl Kept {
    pub(super) fn none(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            bytes: 0,
            files: 0,
            from_ms: None,
            to_ms: None,
        }
    }

    /// One more file or link, and when it was changed last.
    pub(super) fn add(&mut self, meta: &Meta) {
        let (seconds, nanoseconds) = meta.mtime;
        let seconds = u64::try_from(seconds).unwrap_or(0);
        let changed = seconds.saturating_mul(1000) + u64::from(nanoseconds / 1_000_000);
        self.files += 1;
        self.from_ms = Some(self.from_ms.map_or(changed, |from| from.min(changed)));
        self.to_ms = self.to_ms.max(Some(changed));
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
        sum: Kept::none(kept),
    };
    let mut records = body.records()?;
    while let Some(record) = records.next()? {
        steps.step().map_err(&failed)?;
        keeping.one(record, &records.payload).map_err(|e| match e {
            WireError::Io(e) => failed(e),
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
    fn one(&mut self, record: Record, payload: &[u8]) -> Result<(), WireError> {
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
        let Some((name, root)) = &self.claim else { return Ok(()) };
        if let Some(found) = root.look(at)? {
            self.sum.add(&found.meta);
        }
        let Some(into) = &self.into else { return Ok(()) };
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
            return dress(&copy, &found.meta);
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
