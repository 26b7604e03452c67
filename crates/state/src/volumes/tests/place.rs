//! A claim that is a mount of its own: its mirror is inside it, and what is in the two is exchanged.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use leeward_core::name::Epoch;

use super::{
    Claim, Disk, content,
    crash::{at_every_step, change, fill},
    role,
};
use crate::volumes::{
    Point,
    manifest::Manifest,
    source::{NoFreeze, Taken},
    target::{Target, TargetError},
    wire::path,
};

fn claim(disk: &Disk) -> Vec<Claim> {
    disk.claims()[..1].to_vec()
}

fn apart(disk: &Disk) -> Target {
    let mut target = disk.target();
    target.take_apart();
    target
}

async fn take(disk: &Disk, epoch: u64, known: Manifest, parent: Option<&Point>) -> Taken {
    let source = disk.source_of(claim(disk), epoch, NoFreeze);
    source.take(Arc::new(known), parent).await.unwrap()
}

/// The mirror, and what the application sees of the claim.
fn mirrored(target: &Target) -> super::Content {
    target.current(&role(), |_, tree| content(&tree.join("data"))).unwrap()
}

fn inside(disk: &Disk) -> PathBuf {
    disk.path("data/.leeward/shop_web_data")
}

/// A standby whose mirror is inside its claim and has a point of what `west` has.
async fn standby(west: &Disk) -> (Disk, Taken) {
    let east = Disk::fast();
    let target = apart(&east);
    target.follow(&role(), Epoch(1), &claim(&east), None).unwrap();
    let first = take(west, 1, Manifest::default(), None).await;
    target.deliver(&first).unwrap();
    target.apply(&role()).unwrap();
    (east, first)
}

#[tokio::test]
async fn a_claim_is_filled_wherever_its_promotion_was_killed() {
    let west = Disk::fast();
    fill(&west);
    let (east, first) = standby(&west).await;
    assert!(east.path("mirror/shop_web_data").is_symlink());
    fs::write(east.path("data/own"), b"what was there before").unwrap();
    fs::create_dir(east.path("data/old")).unwrap();
    fs::write(east.path("data/old/own"), b"and this").unwrap();
    let late = take(&west, 1, first.manifest.as_ref().clone(), Some(&first.point)).await;
    let steps = at_every_step(
        &east,
        apart,
        |disk, target| target.promote(&role(), Epoch(2), &claim(disk)).map(drop),
        |disk, _| {
            let target = disk.target();
            if target.head(&role()).unwrap().epoch == Epoch(2) {
                assert!(matches!(target.deliver(&late), Err(TargetError::StaleEpoch { .. })));
            }
            for _ in 0..2 {
                let promoted = target.promote(&role(), Epoch(2), &claim(disk)).unwrap();
                assert_eq!(promoted.point.as_ref(), Some(&first.point));
                assert_eq!(content(&disk.path("data")), content(&west.path("data")));
            }
            let kept = target.kept(&role()).unwrap();
            assert_eq!((kept.len(), kept[0].files, kept[0].bytes), (1, 2, 29));
            assert!(kept[0].path.starts_with(disk.path("data/.leeward/kept/shop_web_data")));
            let own = |file: &str| fs::read(kept[0].path.join("data").join(file)).unwrap();
            assert_eq!(
                (own("own").as_slice(), own("old/own").as_slice()),
                (&b"what was there before"[..], &b"and this"[..])
            );
        },
    );
    assert!(steps > 15, "{steps}");
}

#[tokio::test]
async fn a_writer_becomes_a_standby_inside_its_claim_wherever_it_was_killed() {
    let west = Disk::fast();
    fill(&west);
    let (east, _) = standby(&west).await;
    west.target().begin(&role(), Epoch(1)).unwrap();
    apart(&east).promote(&role(), Epoch(2), &claim(&east)).unwrap();
    fs::write(east.path("logs/kind"), b"a file").unwrap();
    change(&east);
    fs::write(west.path("data/only"), b"only here").unwrap();
    fs::File::options()
        .write(true)
        .open(west.path("data/only"))
        .unwrap()
        .set_modified(UNIX_EPOCH + Duration::from_secs(9))
        .unwrap();

    let runtime = tokio::runtime::Handle::current();
    let source = east.source_of(claim(&east), 2, NoFreeze);
    let take = |known: Manifest| {
        let (source, runtime) = (source.clone(), runtime.clone());
        let work = move || runtime.block_on(source.take(Arc::new(known), None)).unwrap();
        std::thread::spawn(work).join().unwrap()
    };
    let steps = at_every_step(
        &west,
        apart,
        |disk, target| target.follow(&role(), Epoch(2), &claim(disk), None),
        |disk, _| {
            let target = apart(disk);
            for _ in 0..2 {
                target.follow(&role(), Epoch(2), &claim(disk), None).unwrap();
            }
            assert_eq!(target.head(&role()).unwrap().epoch, Epoch(2));
            assert!(inside(disk).join("role.json").exists());
            assert_eq!(
                content(&disk.path("data")).len(),
                1,
                "the claim is empty, its own directory apart"
            );
            target.deliver(&take(target.known(&role()))).unwrap();
            assert_eq!(mirrored(&target), content(&east.path("data")));
            let kept = target.kept(&role()).unwrap();
            assert_eq!(kept.len(), 1);
            assert_eq!(fs::read(kept[0].path.join("data/only")).unwrap(), b"only here");
            assert_eq!(kept[0].from_ms, Some(9_000));
        },
    );
    assert!(steps > 20, "{steps}");
}

#[tokio::test]
async fn a_mirror_that_was_begun_elsewhere_begins_anew_inside_the_claim_and_is_kept() {
    let (west, east) = (Disk::fast(), Disk::fast());
    fill(&west);
    let first = take(&west, 3, Manifest::default(), None).await;
    let target = apart(&east);
    target.deliver(&first).unwrap();
    target.apply(&role()).unwrap();
    for _ in 0..2 {
        target.follow(&role(), Epoch(3), &claim(&east), None).unwrap();
    }
    let head = target.head(&role()).unwrap();
    assert_eq!((head.epoch, head.accepts, head.point), (Epoch(3), true, None));
    let kept: Vec<_> = fs::read_dir(east.path("mirror/kept/shop_web_data")).unwrap().collect();
    let [Ok(kept)] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!(content(&kept.path().join("tree/data")), content(&west.path("data")));
    target
        .deliver(&take(&west, 3, Manifest::default(), None).await)
        .unwrap();
    assert_eq!(mirrored(&target), content(&west.path("data")));
}

#[tokio::test]
async fn a_role_moves_into_its_claim_with_its_epoch_wherever_it_was_killed() {
    let east = Disk::fast();
    east.target().begin(&role(), Epoch(4)).unwrap();
    fs::write(east.path("data/file"), b"one").unwrap();
    let own = apart(&east).follow(&role(), Epoch(4), &claim(&east), None);
    assert!(
        matches!(own, Err(TargetError::StaleEpoch { .. })),
        "it writes at this epoch: {own:?}"
    );
    fs::remove_file(east.path("mirror/shop_web_data")).unwrap();
    fs::remove_dir_all(east.path("data/.leeward")).unwrap();
    east.target().begin(&role(), Epoch(4)).unwrap();
    let steps = at_every_step(
        &east,
        apart,
        |disk, target| target.follow(&role(), Epoch(5), &claim(disk), None),
        |disk, done| {
            assert!(disk.target().head(&role()).unwrap().epoch >= Epoch(4));
            assert!(!done || fs::read_dir(disk.path("mirror/placing")).unwrap().next().is_none());
            apart(disk).follow(&role(), Epoch(5), &claim(disk), None).unwrap();
            assert_eq!(fs::read(inside(disk).join("tree/data/file")).unwrap(), b"one");
        },
    );
    assert!(steps > 10, "{steps}");
}

#[tokio::test]
async fn the_claims_of_a_role_on_several_mounts_are_refused_and_left_as_they_are() {
    let west = Disk::fast();
    fill(&west);
    let refused = apart(&west).follow(&role(), Epoch(1), &west.claims(), None);
    let text = refused.unwrap_err().to_string();
    assert!(
        text.starts_with("claim data is on a mount of its own, and the role has 2 claims"),
        "{text}"
    );
    assert!(!west.path("data/.leeward").exists() && !west.path("mirror/shop_web_data").exists());

    // The second claim came later.
    let (east, _) = standby(&west).await;
    let before = content(&east.path("data"));
    let refused = east.target().promote(&role(), Epoch(2), &east.claims());
    assert!(
        matches!(refused, Err(TargetError::Several { count: 2, .. })),
        "{refused:?}"
    );
    assert_eq!(content(&east.path("data")), before);
    assert!(east.target().head(&role()).unwrap().accepts);
}

#[tokio::test]
async fn what_is_hidden_in_a_claim_is_in_no_point() {
    let west = Disk::fast();
    fs::create_dir_all(west.path("data/.leeward/deep")).unwrap();
    fs::create_dir_all(west.path("data/below/.leeward")).unwrap();
    fs::write(west.path("data/.leeward/deep/file"), b"hidden").unwrap();
    fs::write(west.path("data/below/.leeward/file"), b"the application's").unwrap();
    let taken = take(&west, 1, Manifest::default(), None).await;
    let paths: Vec<_> = taken.manifest.0["data"].keys().map(PathBuf::as_path).collect();
    assert_eq!(
        paths,
        ["", "below", "below/.leeward", "below/.leeward/file"].map(Path::new)
    );
    for (named, taken) in [
        (".leeward", false),
        (".leeward/deep", false),
        (".leeward-not", true),
        ("below/.leeward", true),
    ] {
        assert_eq!(path(named.as_bytes()).is_ok(), taken, "{named}");
    }
}

#[tokio::test]
async fn a_claim_whose_volume_is_gone_or_led_elsewhere_is_named_and_nothing_is_written_there() {
    let west = Disk::fast();
    fill(&west);
    let (east, first) = standby(&west).await;
    let open = east.target();
    assert_eq!(open.last_point(&role()).unwrap(), Some(first.point.clone()));
    let elsewhere = east.path("elsewhere");
    let (hidden, away) = (east.path("data/.leeward"), east.path("away"));
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(&hidden, &away).unwrap();
    for what in ["it is not there", "what was made here was replaced"] {
        for target in [&open, &east.target()] {
            let refused = [
                target.head(&role()).map(drop),
                target.deliver(&first).map(drop),
                target.promote(&role(), Epoch(2), &claim(&east)).map(drop),
            ];
            for refused in refused {
                let text = refused.unwrap_err().to_string();
                assert!(text.contains(what), "{text}");
            }
        }
        let _ = symlink(&elsewhere, &hidden);
    }
    let refused = apart(&east).follow(&role(), Epoch(2), &claim(&east), None);
    assert!(matches!(refused, Err(TargetError::Away { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);

    fs::remove_file(&hidden).unwrap();
    fs::rename(&away, &hidden).unwrap();
    let (state, gone) = (inside(&east).join("role.json"), east.path("role.json"));
    fs::rename(&state, &gone).unwrap();
    let text = east.target().head(&role()).unwrap_err().to_string();
    assert!(text.contains("it is not there"), "{text}");
    fs::rename(&gone, &state).unwrap();
    assert_eq!(open.last_point(&role()).unwrap(), Some(first.point));
}

/// Without a stand-in for mounts: where there is a file system in memory, the claim is on it and the mirror is not.
#[tokio::test]
async fn a_claim_on_another_file_system_is_mirrored_promoted_and_returned() {
    let west = Disk::fast();
    fill(&west);
    let (volume, east) = (Disk::fast(), Disk::new());
    let claims = claim(&volume);
    let target = east.target();
    target.follow(&role(), Epoch(1), &claims, None).unwrap();
    let first = take(&west, 1, Manifest::default(), None).await;
    target.deliver(&first).unwrap();
    target.promote(&role(), Epoch(2), &claims).unwrap();
    assert_eq!(content(&volume.path("data")), content(&west.path("data")));
    fs::write(volume.path("data/more"), b"more").unwrap();
    let now = content(&volume.path("data"));
    target.follow(&role(), Epoch(3), &claims, None).unwrap();
    let known = target.known(&role());
    assert!(known.0["data"].keys().eq(now.iter().map(|(path, ..)| path)));
}
