//! Whatever an application does to its volumes, the mirror is the same afterwards.

use std::{
    fs,
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

use proptest::{collection::vec, prelude::*, sample::select};

use super::{Disk, assert_mirrored};
use crate::volumes::{manifest::Manifest, source::NoFreeze};

const PATHS: &[&str] = &["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "f/a"];

/// Something that an application does. What cannot be done is left.
#[derive(Debug, Clone)]
enum Act {
    Write(&'static str, u64, usize, u8),
    Append(&'static str, usize, u8),
    Cut(&'static str, u64),
    Rename(&'static str, &'static str),
    Replace(&'static str, usize, u8),
    Remove(&'static str),
    Directory(&'static str),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
    Mode(&'static str, u32),
    Pipe(&'static str),
}

impl Act {
    fn act(&self, claim: &Path) -> std::io::Result<()> {
        let at = |path: &str| claim.join(path);
        let open = |path: &str| {
            let mut options = fs::OpenOptions::new();
            // So that opening a pipe fails instead of waiting for a reader.
            options.custom_flags(nix::libc::O_NONBLOCK);
            options.create(true).truncate(false).write(true).open(at(path))
        };
        match *self {
            Self::Write(path, offset, length, byte) => open(path)?.write_all_at(&vec![byte; length], offset),
            Self::Append(path, length, byte) => {
                let file = open(path)?;
                file.write_all_at(&vec![byte; length], file.metadata()?.len())
            }
            Self::Cut(path, length) => open(path)?.set_len(length),
            Self::Rename(from, to) => fs::rename(at(from), at(to)),
            Self::Replace(path, length, byte) => {
                fs::write(at("tmp"), vec![byte; length])?;
                fs::rename(at("tmp"), at(path))
            }
            Self::Remove(path) if at(path).is_dir() => fs::remove_dir_all(at(path)),
            Self::Remove(path) => fs::remove_file(at(path)),
            Self::Directory(path) => fs::create_dir(at(path)),
            Self::Link(target, path) => symlink(target, at(path)),
            Self::Hard(path, to) => fs::hard_link(at(path), at(to)),
            Self::Mode(path, mode) => fs::set_permissions(at(path), fs::Permissions::from_mode(mode)),
            Self::Pipe(path) => Ok(nix::unistd::mkfifo(&at(path), nix::sys::stat::Mode::S_IRWXU)?),
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let path = || select(PATHS);
    let byte = || prop_oneof![Just(0u8), 1..4u8];
    prop_oneof![
        4 => (path(), 0..200_000u64, 1..40_000usize, byte()).prop_map(|(p, o, l, b)| Act::Write(p, o, l, b)),
        4 => (path(), 1..20_000usize, byte()).prop_map(|(p, l, b)| Act::Append(p, l, b)),
        2 => (path(), 0..300_000u64).prop_map(|(p, l)| Act::Cut(p, l)),
        3 => (path(), path()).prop_map(|(a, b)| Act::Rename(a, b)),
        2 => (path(), 0..40_000usize, byte()).prop_map(|(p, l, b)| Act::Replace(p, l, b)),
        2 => path().prop_map(Act::Remove),
        4 => path().prop_map(Act::Directory),
        1 => (path(), path()).prop_map(|(a, b)| Act::Link(a, b)),
        1 => (path(), path()).prop_map(|(a, b)| Act::Hard(a, b)),
        1 => (path(), select(&[0o700, 0o755, 0o4711, 0o777][..])).prop_map(|(p, m)| Act::Mode(p, m)),
        1 => path().prop_map(Act::Pipe),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_mirror_follows_everything(
        rounds in vec((vec(act(), 0..12), vec(act(), 0..4), any::<bool>()), 1..6),
    ) {
        let (west, east) = (Disk::fast(), Disk::fast());
        let (source, target) = (west.source(1, NoFreeze), east.target());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut known, mut parent) = (Arc::new(Manifest::default()), None);
        for (data, logs, forget) in rounds {
            for (claim, acts) in [("data", data), ("logs", logs)] {
                for act in acts {
                    let _ = act.act(&west.path(claim));
                }
            }
            if forget {
                known = Arc::new(target.known(&super::role()));
            }
            let taken = runtime.block_on(source.take(known, parent.as_ref())).unwrap();
            target.deliver(&taken).unwrap();
            assert_mirrored(&west, &target);
            (known, parent) = (taken.manifest, Some(taken.point));
        }
    }
}
