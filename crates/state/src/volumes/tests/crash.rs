//! A target that is killed at any step is at a complete point afterwards, and goes on.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use leeward_core::name::Epoch;

use super::{Disk, assert_mirrored, contents, role};
use crate::volumes::{
    manifest::Manifest,
    source::{NoFreeze, Taken},
    target::{Target, TargetError},
};

pub(super) fn fill(disk: &Disk) {
    fs::create_dir_all(disk.path("data/old/deep")).unwrap();
    fs::write(disk.path("data/old/deep/gone"), b"gone").unwrap();
    fs::write(disk.path("data/old/stays"), b"stays").unwrap();
    fs::write(disk.path("data/log.1"), vec![1; 40_000]).unwrap();
    fs::write(disk.path("data/log"), vec![2; 50_000]).unwrap();
    fs::write(disk.path("logs/kind"), b"a file").unwrap();
    symlink("old", disk.path("data/link")).unwrap();
}

pub(super) fn change(disk: &Disk) {
    fs::rename(disk.path("data/log.1"), disk.path("data/log.2")).unwrap();
    fs::rename(disk.path("data/log"), disk.path("data/log.1")).unwrap();
    fs::write(disk.path("data/log"), vec![3; 20_000]).unwrap();
    fs::remove_dir_all(disk.path("data/old/deep")).unwrap();
    fs::create_dir(disk.path("data/new")).unwrap();
    fs::rename(disk.path("data/old/stays"), disk.path("data/new/stays")).unwrap();
    fs::remove_file(disk.path("logs/kind")).unwrap();
    fs::create_dir(disk.path("logs/kind")).unwrap();
    fs::write(disk.path("logs/kind/file"), b"below").unwrap();
    fs::remove_file(disk.path("data/link")).unwrap();
    symlink("new", disk.path("data/link")).unwrap();
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Runs `work` on a copy of `start` with a kill after 0, 1, 2... steps, and `check` after each, until nothing is killed.
pub(super) fn at_every_step(
    start: &Disk,
    open: fn(&Disk) -> Target,
    work: impl Fn(&Disk, &Target) -> Result<(), TargetError>,
    check: impl Fn(&Disk, bool),
) -> i64 {
    for steps in 0.. {
        let disk = Disk::fast();
        for part in ["data", "logs"] {
            fs::remove_dir(disk.path(part)).unwrap();
            copy(&start.path(part), &disk.path(part));
        }
        copy(&start.path("mirror"), &disk.path("mirror"));
        let link = disk.path("mirror/shop_web_data");
        if link.is_symlink() {
            fs::remove_file(&link).unwrap();
            symlink(disk.path("data/.leeward/shop_web_data"), &link).unwrap();
        }
        let mut target = open(&disk);
        target.fail_after(steps);
        let done = work(&disk, &target).is_ok();
        drop(target);
        check(&disk, done);
        if done {
            return steps;
        }
    }
    0
}

async fn take(disk: &Disk, epoch: u64, before: Option<&Taken>) -> Taken {
    let known = before.map_or_else(|| Arc::new(Manifest::default()), |b| b.manifest.clone());
    disk.source(epoch, NoFreeze)
        .take(known, before.map(|b| &b.point))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_point_is_taken_in_whole_or_not_at_all() {
    let (west, east) = (Disk::fast(), Disk::fast());
    fill(&west);
    let first = take(&west, 1, None).await;
    east.target().deliver(&first).unwrap();
    east.target().apply(&role()).unwrap();
    let earlier = contents(west.0.path());
    change(&west);
    let second = take(&west, 2, Some(&first)).await;
    let steps = at_every_step(
        &east,
        Disk::target,
        |_, target| {
            target.deliver(&second)?;
            target.apply(&role())
        },
        |disk, _| {
            let target = disk.target();
            if target.last_point(&role()).unwrap() == Some(first.point.clone()) {
                assert_eq!(target.current(&role(), |_, tree| contents(tree)).unwrap(), earlier);
                target.deliver(&second).unwrap();
            }
            assert_eq!(target.last_point(&role()).unwrap(), Some(second.point.clone()));
            assert_mirrored(&west, &target);
        },
    );
    assert!(steps > 30, "{steps}");
}

#[tokio::test]
async fn a_promotion_goes_on_where_it_was_killed() {
    let (west, east) = (Disk::fast(), Disk::fast());
    fill(&west);
    let first = take(&west, 1, None).await;
    east.target().deliver(&first).unwrap();
    fs::write(east.path("logs/own"), b"what was there before").unwrap();
    let own = fs::OpenOptions::new().write(true).open(east.path("logs/own")).unwrap();
    own.set_modified(UNIX_EPOCH + Duration::from_secs(7)).unwrap();
    let late = take(&west, 1, Some(&first)).await;
    let steps = at_every_step(
        &east,
        Disk::target,
        |disk, target| target.promote(&role(), Epoch(2), &disk.claims()).map(drop),
        |disk, _| {
            let target = disk.target();
            let raised = target.head(&role()).unwrap().epoch == Epoch(2);
            if raised {
                assert!(matches!(target.deliver(&late), Err(TargetError::StaleEpoch { .. })));
            }
            let promoted = target.promote(&role(), Epoch(2), &disk.claims()).unwrap();
            assert_eq!(promoted.point.as_ref(), Some(&first.point));
            assert_eq!(contents(disk.0.path()), contents(west.0.path()));
            let kept = target.kept(&role()).unwrap();
            assert_eq!((kept.len(), kept[0].files, kept[0].bytes), (1, 1, 21));
            assert!(kept[0].path.join("logs/own").exists());
            assert_eq!((kept[0].from_ms, kept[0].to_ms), (Some(7_000), Some(7_000)));
        },
    );
    assert!(steps > 10, "{steps}");
}

#[tokio::test]
async fn a_return_keeps_what_only_it_had_wherever_it_was_killed() {
    let (west, east) = (Disk::fast(), Disk::fast());
    fill(&west);
    west.target().begin(&role(), Epoch(1)).unwrap();
    let first = take(&west, 1, None).await;
    east.target().deliver(&first).unwrap();
    east.target().promote(&role(), Epoch(2), &east.claims()).unwrap();
    change(&east);
    fs::write(west.path("data/old/stays"), b"stayed").unwrap();
    fs::write(west.path("logs/only"), b"only here").unwrap();
    let own = fs::read(west.path("data/log")).unwrap();
    for (file, seconds) in [("data/old/stays", 9), ("logs/only", 11)] {
        let file = fs::OpenOptions::new().write(true).open(west.path(file)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    let runtime = tokio::runtime::Handle::current();
    let source = east.source(2, NoFreeze);
    let take = |known: Manifest| {
        let (source, runtime) = (source.clone(), runtime.clone());
        let work = move || runtime.block_on(source.take(Arc::new(known), None)).unwrap();
        std::thread::spawn(work).join().unwrap()
    };
    let steps = at_every_step(
        &west,
        Disk::target,
        |disk, target| {
            target.follow(&role(), Epoch(2), &disk.claims(), None)?;
            target.deliver(&take(target.manifest_of(&role())?))?;
            target.apply(&role())
        },
        |disk, _| {
            let target = disk.target();
            target.follow(&role(), Epoch(2), &disk.claims(), None).unwrap();
            if target.last_point(&role()).unwrap().is_none() {
                target.deliver(&take(target.known(&role()))).unwrap();
            }
            assert_mirrored(&east, &target);
            let kept = target.kept(&role()).unwrap();
            assert_eq!(kept.len(), 1);
            // The links and logs that differ besides were made just now.
            assert_eq!(kept[0].from_ms, Some(9_000));
            assert!(kept[0].to_ms > Some(11_000));
            let kept = &kept[0].path;
            assert_eq!(fs::read(kept.join("logs/only")).unwrap(), b"only here");
            assert_eq!(fs::read(kept.join("data/old/stays")).unwrap(), b"stayed");
            assert_eq!(fs::read(kept.join("data/log")).unwrap(), own);
            assert_eq!(fs::read_link(kept.join("data/link")).unwrap(), Path::new("old"));
        },
    );
    assert!(steps > 40, "{steps}");
}

#[tokio::test]
async fn the_first_point_after_a_return_is_promoted_though_a_kill_came_before_it_was_applied() {
    let (west, east) = (Disk::fast(), Disk::fast());
    fill(&west);
    east.target().follow(&role(), Epoch(1), &east.claims(), None).unwrap();
    let first = take(&west, 1, None).await;
    east.target().deliver(&first).unwrap();
    let promoted = east.target().promote(&role(), Epoch(2), &east.claims()).unwrap();
    assert_eq!(promoted.point, Some(first.point));
    assert_eq!(contents(east.0.path()), contents(west.0.path()));
}

#[tokio::test]
async fn what_is_damaged_on_disk_is_named_and_neither_shown_nor_gone_on_from() {
    for cut in ["a point", "the role"] {
        let (west, east) = (Disk::new(), Disk::new());
        fill(&west);
        let target = east.target();
        let first = west.source(1, NoFreeze).take(Arc::default(), None).await.unwrap();
        target.deliver(&first).unwrap();
        target.apply(&role()).unwrap();
        change(&west);
        let source = west.source(1, NoFreeze);
        let second = source.take(first.manifest.clone(), Some(&first.point)).await.unwrap();
        target.deliver(&second).unwrap();
        drop(target);
        let directory = east.path("mirror/shop_web_data");
        let before = contents(&directory.join("tree"));
        let file = match cut {
            "a point" => fs::read_dir(directory.join("journal"))
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path(),
            _ => directory.join("role.json"),
        };
        let length = fs::metadata(&file).unwrap().len();
        fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(length / 2)
            .unwrap();

        let target = east.target();
        let is_named = |refused: Result<(), TargetError>, what: &str| match refused {
            Err(TargetError::Corrupt(path)) => assert!(path.ends_with(file.strip_prefix(east.path("mirror")).unwrap())),
            other => panic!("{cut}, {what}: {other:?}"),
        };
        is_named(target.head(&role()).map(drop), "asked for its newest point");
        is_named(target.current(&role(), |_, _| ()), "shown");
        is_named(target.deliver(&second).map(drop), "sent the next point");
        is_named(target.promote(&role(), Epoch(2), &east.claims()).map(drop), "promoted");
        is_named(target.follow(&role(), Epoch(2), &east.claims(), None), "told to follow");
        assert_eq!(contents(&directory.join("tree")), before, "{cut}");
        let text = target.head(&role()).unwrap_err().to_string();
        assert!(
            text.contains("move the role's directory away, and the mirror starts anew from the writer"),
            "{text}"
        );

        // As it says: away with it, and the mirror starts anew.
        fs::rename(&directory, east.path("away")).unwrap();
        let anew = west.source(1, NoFreeze).take(Arc::default(), None).await.unwrap();
        target.deliver(&anew).unwrap();
        assert_mirrored(&west, &target);
    }
}
