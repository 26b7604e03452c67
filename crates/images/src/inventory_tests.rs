use std::path::Path;

use super::*;
use crate::pack::{self, Config, Entry};

fn held(dir: &Path) -> (Store, Digest) {
    let store = Store::open(dir).unwrap();
    let image = pack::image(vec![vec![Entry::bytes("/a", 0o644, *b"content")]], &Config::default()).unwrap();
    let digest = image
        .store(&store, &Reference::parse("sample:1").unwrap(), SystemTime::now())
        .unwrap();
    (store, digest)
}

#[tokio::test]
async fn references_are_answered_by_what_they_mean() {
    let dir = tempfile::tempdir().unwrap();
    let (store, digest) = held(dir.path());
    let inventory = Inventory::new(store);
    let pinned = format!("sample@{digest}");
    let both = format!("sample:2@{digest}");
    let absent = format!("sample@{}", Digest::of(b"absent"));
    let names = [
        "sample:1",
        "docker.io/library/sample:1",
        &pinned,
        &both,
        "sample:2",
        "ghcr.io/sample:1",
        &absent,
        "-bad-",
        "",
    ];
    let images = inventory.check_verified(&names).await.unwrap();
    let present = |image: &Image| image.state.is_present() && image.digest == Some(digest);
    assert!(images[..4].iter().all(present), "{images:?}");
    assert_eq!(images[4].state, State::Missing { blobs: vec![] });
    assert_eq!(images[5].state, State::Missing { blobs: vec![] });
    assert_eq!(
        images[6].state,
        State::Missing {
            blobs: vec![Digest::of(b"absent")]
        }
    );
    assert!(
        images[7..]
            .iter()
            .all(|image| matches!(image.state, State::Invalid { .. }))
    );
    assert_eq!(
        images.iter().map(|image| image.reference.as_str()).collect::<Vec<_>>(),
        names
    );
}

#[tokio::test]
async fn nothing_counts_before_it_was_hashed_here() {
    let dir = tempfile::tempdir().unwrap();
    let (store, digest) = held(dir.path());
    // The background's hashing is kept away, so that what a check alone knows is seen.
    let inventory = Inventory::new(store.clone());
    lock(&inventory.shared.queue).working = true;
    assert_eq!(
        inventory.check(&["sample:1"])[0].state,
        State::Unverified { blobs: vec![digest] }
    );
    store.verify(&digest).unwrap();
    // The manifest being right, its parts are looked at.
    let State::Unverified { blobs } = inventory.check(&["sample:1"])[0].state.clone() else {
        panic!()
    };
    assert_eq!(blobs.len(), 2);
    store.verify(&blobs[0]).unwrap();
    assert_eq!(
        inventory.check(&["sample:1"])[0].state,
        State::Unverified { blobs: vec![blobs[1]] }
    );
    store.verify(&blobs[1]).unwrap();
    assert_eq!(inventory.check(&["sample:1"])[0].state, State::Present);
}

#[test]
fn an_old_hash_is_made_again_while_it_is_still_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, digest) = held(dir.path());
    let inventory = Inventory::with_rhythm(store.clone(), Duration::ZERO);
    store.verify(&digest).unwrap();
    lock(&inventory.shared.queue).working = true;
    std::thread::sleep(Duration::from_millis(2));
    inventory.check(&["sample:1"]);
    assert!(lock(&inventory.shared.queue).waiting.contains(&digest));
    // The worker hashes it again, and ends when there is no more to do.
    lock(&inventory.shared.queue).waiting = BTreeSet::from([digest]);
    let before = store.verified_age(&digest, SystemTime::now()).unwrap();
    work(&store, &inventory.shared, Duration::ZERO);
    assert!(store.verified_age(&digest, SystemTime::now()).unwrap() < before + Duration::from_millis(2));
    assert!(!lock(&inventory.shared.queue).working);
}

#[test]
fn the_background_hashes_what_a_check_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = held(dir.path());
    let inventory = Inventory::new(store);
    while !inventory.check(&["sample:1"])[0].state.is_present() {
        std::thread::yield_now();
    }
}

#[test]
fn what_an_image_runs_is_read_from_bytes_that_are_what_they_say_and_from_no_others() {
    fn damage(dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => damage(&path),
                false => {
                    let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).replace("/bin/db", "/bin/no");
                    std::fs::remove_file(&path).unwrap();
                    std::fs::write(&path, text).unwrap();
                }
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let config = Config {
        entrypoint: vec!["/bin/db".into()],
        cmd: vec!["serve".into()],
        ..Config::default()
    };
    let image = pack::image(vec![], &config).unwrap();
    let reference = Reference::parse("db:1").unwrap();
    image.store(&store, &reference, SystemTime::now()).unwrap();
    let inventory = Inventory::new(store);
    let entry = inventory.entry("db:1").unwrap();
    assert_eq!((entry.entrypoint, entry.cmd), (config.entrypoint, config.cmd));
    assert_eq!((inventory.entry("db:2"), inventory.entry("-bad-")), (None, None));
    damage(&dir.path().join("blobs"));
    assert_eq!(inventory.entry("db:1"), None);
}
