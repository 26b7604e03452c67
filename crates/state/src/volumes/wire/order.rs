//! What a peer may write: names and paths that stay where they belong, records in an order that has a meaning.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use super::{Base, Record, WireError, malformed};
use crate::volumes::tree::HIDDEN;

/// The path that a record names, if it stays within its claim.
pub(in crate::volumes) fn path(bytes: &[u8]) -> Result<PathBuf, WireError> {
    let path = Path::new(OsStr::from_bytes(bytes));
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)))
        // `components` forgives doubled slashes and inner dots; a sender of ours writes neither.
        && path.components().as_path().as_os_str().len() == bytes.len()
        && path.components().map(|c| c.as_os_str().len() + 1).sum::<usize>() == bytes.len() + usize::from(!bytes.is_empty());
    if !plain || bytes.len() > 4096 || bytes.contains(&0) {
        return malformed(format!("the path {path:?} leads out of its claim"));
    }
    if path.starts_with(HIDDEN) {
        return malformed(format!(
            "the path {path:?} is in a directory that is never part of a point"
        ));
    }
    Ok(path.to_owned())
}

/// Whether a claim's or a role's name can be a directory's name here.
pub(in crate::volumes) fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !name.is_empty() && name.len() <= 253 && !name.starts_with('.') && name.bytes().all(allowed)
}

/// What the records so far allow the next one to be.
#[derive(Default)]
pub(super) struct Order {
    claim: bool,
    creating: bool,
    moved: u32,
    size: Option<u64>,
    /// Bytes that are written, so far.
    pub(super) bytes: u64,
}

impl Order {
    pub(super) fn check(&mut self, record: &Record) -> Result<(), WireError> {
        let path_of = |bytes: &[u8]| path(bytes);
        let named = |bytes: &[u8]| match bytes.is_empty() {
            true => malformed("a record has no path"),
            false => path_of(bytes).map(drop),
        };
        match record {
            Record::Claim { name } if is_name(name) => (self.claim, self.size) = (true, None),
            Record::Claim { name } => return malformed(format!("{name:?} is not a claim's name")),
            Record::Create if !self.creating => (self.claim, self.creating) = (false, true),
            _ if !self.claim => return malformed("a record comes before its claim"),
            Record::Move { path, number } if !self.creating && *number == self.moved => {
                named(path)?;
                self.moved += 1;
            }
            Record::Delete { path, .. } if !self.creating => named(path)?,
            Record::Directory { path, .. } if self.creating => {
                path_of(path)?;
                self.size = None;
            }
            Record::Link { path, target, .. } if self.creating => {
                named(path)?;
                self.size = None;
                if target.is_empty() || target.len() > 4096 || target.contains(&0) {
                    return malformed("a link leads nowhere");
                }
            }
            Record::File { path, base, size, .. } if self.creating => {
                named(path)?;
                if matches!(base, Base::Moved(n) if *n >= self.moved) || *size > i64::MAX as u64 {
                    return malformed("a file starts from nothing that was moved, or is too large");
                }
                self.size = Some(*size);
            }
            Record::Data { offset, length } => self.within(*offset, u64::from(*length), true)?,
            Record::Zero { offset, length } => self.within(*offset, *length, false)?,
            _ => return malformed("a record is out of order"),
        }
        Ok(())
    }

    fn within(&mut self, offset: u64, length: u64, writes: bool) -> Result<(), WireError> {
        let end = offset.checked_add(length);
        if length == 0 || end.is_none() || end > self.size {
            return malformed("data lies outside of its file");
        }
        if writes {
            self.bytes = self.bytes.saturating_add(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tree::Meta;

    #[test]
    fn a_path_stays_within_its_claim() {
        for good in ["", "a", "a/b", "..a", "a/.b"] {
            assert_eq!(path(good.as_bytes()).unwrap(), Path::new(good));
        }
        for bad in [
            "/", "/a", "..", "../a", "a/..", "a/../b", "./a", "a/./b", "a//b", "a/", "a\0b",
        ] {
            assert!(path(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_one_directory() {
        assert!(is_name("data-web-0") && is_name("a.b"));
        for bad in ["", ".", "..", "a/b", "A", ".hidden"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn records_out_of_order_are_refused() {
        let meta = || Meta {
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
        };
        let file = |base, size| Record::File {
            path: b"f".to_vec(),
            base,
            size,
            meta: meta(),
        };
        let claim = || Record::Claim { name: "c".into() };
        let cases = [
            vec![Record::Create, file(Base::Empty, 1)],
            vec![claim(), file(Base::Empty, 1)],
            vec![Record::Create, claim(), file(Base::Moved(0), 1)],
            vec![Record::Create, claim(), Record::Data { offset: 0, length: 1 }],
            vec![
                Record::Create,
                claim(),
                file(Base::Empty, 4),
                Record::Data { offset: 4, length: 1 },
            ],
            vec![
                Record::Create,
                claim(),
                file(Base::Empty, 4),
                Record::Zero {
                    offset: u64::MAX,
                    length: 2,
                },
            ],
            vec![Record::Create, Record::Create],
            vec![
                Record::Create,
                claim(),
                Record::Delete {
                    path: b"f".to_vec(),
                    directory: false,
                },
            ],
            vec![
                claim(),
                Record::Delete {
                    path: b"../f".to_vec(),
                    directory: false,
                },
            ],
            vec![
                claim(),
                Record::Move {
                    path: b"f".to_vec(),
                    number: 1,
                },
            ],
        ];
        for records in cases {
            let mut order = Order::default();
            assert!(records.iter().any(|r| order.check(r).is_err()), "{records:?}");
        }
    }
}
