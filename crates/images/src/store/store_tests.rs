use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::*;
use crate::reference::Tag;

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn put(store: &Store, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    let mut writer = store.writer().unwrap();
    writer.append(bytes).unwrap();
    writer.commit(&digest).unwrap();
    digest
}

fn manifest_of(store: &Store, content: &str) -> Vec<u8> {
    let digest = put(store, content.as_bytes());
    let part = format!(
        r#"{{"mediaType":"application/octet-stream","digest":"{digest}","size":{}}}"#,
        content.len()
    );
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{part},"layers":[{part}]}}"#,
        manifest::OCI_MANIFEST
    )
    .into()
}

fn name() -> Repository {
    Repository::parse("sample").unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn uploads(dir: &TempDir) -> usize {
    fs::read_dir(dir.path().join("uploads")).unwrap().count()
}

#[test]
fn a_blob_is_visible_only_when_its_digest_is_right() {
    let (dir, store) = store();
    let promised = Digest::of(b"promised");
    let mut writer = store.writer().unwrap();
    writer.append(b"prom").unwrap();
    assert_eq!(store.blob_state(&promised), BlobState::Absent);
    drop(writer);
    let mut writer = store.writer().unwrap();
    writer.append(b"other").unwrap();
    let refused = writer.commit(&promised).unwrap_err();
    assert!(matches!(refused, StoreError::DigestMismatch { .. }) && !refused.is_transient());
    assert_eq!((store.blob_state(&promised), uploads(&dir)), (BlobState::Absent, 0));
    put(&store, b"promised");
    assert_eq!(store.blob_state(&promised), BlobState::Unverified);
    assert_eq!(store.verify(&promised).unwrap(), BlobState::Verified);
    assert_eq!(store.blob_state(&promised), BlobState::Verified);
}

#[test]
fn what_an_earlier_process_left_half_written_is_cleared() {
    let (dir, store) = store();
    fs::write(dir.path().join("uploads/.tmpLeft"), b"half").unwrap();
    drop(store);
    let _store = Store::open(dir.path()).unwrap();
    assert_eq!(uploads(&dir), 0);
}

#[test]
fn verified_blobs_stay_verified_over_a_restart_until_their_file_changes() {
    let (dir, store) = store();
    let digest = put(&store, b"content");
    store.verify(&digest).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.blob_state(&digest), BlobState::Verified);
    let path = store.inner.layout.blob(&digest);
    let times = fs::metadata(&path).unwrap();
    fs::write(&path, b"contenu").unwrap();
    // Even with the times of before: the file's own change time gives it away.
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(times.modified().unwrap()).unwrap();
    assert_eq!(store.blob_state(&digest), BlobState::Unverified);
    assert_eq!(store.verify(&digest).unwrap(), BlobState::Absent);
    assert_eq!(store.damaged().get(&digest), Some(&Damage::Corrupt));
    assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 1);
    // The right bytes make it whole.
    put(&store, b"content");
    assert_eq!(store.verify(&digest).unwrap(), BlobState::Verified);
    assert!(store.damaged().is_empty());
}

#[test]
fn tags_and_manifests_survive_a_restart() {
    let (dir, store) = store();
    let bytes = manifest_of(&store, "a");
    let digest = store
        .push_manifest(&name(), &Selector::Tag(tag("1")), None, &bytes, at(5))
        .unwrap();
    let before = store.listing();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.listing(), before);
    let manifest = store.manifest(&name(), &Selector::Tag(tag("1"))).unwrap().unwrap();
    assert_eq!((manifest.digest, manifest.bytes), (digest, bytes));
}

#[test]
fn a_corrupt_state_directory_is_opened_with_what_is_readable() {
    let (dir, store) = store();
    for (n, content) in ["a", "b"].iter().enumerate() {
        let bytes = manifest_of(&store, content);
        store
            .push_manifest(&name(), &Selector::Tag(tag(&n.to_string())), None, &bytes, at(5))
            .unwrap();
    }
    let lost = store.listing().tag(&name(), &tag("1")).unwrap().digest;
    drop(store);
    fs::write(
        dir.path().join("repositories/docker.io/library/sample/_tags/0"),
        b"{\"dig",
    )
    .unwrap();
    fs::create_dir_all(dir.path().join("repositories/NOT A NAME/_tags")).unwrap();
    fs::write(dir.path().join("verified").join(lost.hex()), b"\0\0").unwrap();
    let blob = dir.path().join("blobs/sha256").join(&lost.hex()[..2]).join(lost.hex());
    fs::write(&blob, b"").unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.listing().repositories[&name()].tags.len(), 1);
    assert_eq!(store.damaged().get(&lost), Some(&Damage::Lost));
}

#[test]
fn a_push_wins_over_what_it_replaces_even_if_the_clock_went_back() {
    let (_dir, store) = store();
    let (first, second) = (manifest_of(&store, "a"), manifest_of(&store, "b"));
    let one = Selector::Tag(tag("1"));
    store.push_manifest(&name(), &one, None, &first, at(1_000)).unwrap();
    let earlier = store.listing().tag(&name(), &tag("1")).unwrap().clone();
    let digest = store.push_manifest(&name(), &one, None, &second, at(10)).unwrap();
    let later = store.listing().tag(&name(), &tag("1")).unwrap().clone();
    assert!(later.digest == digest && later.supersedes(&earlier) && !earlier.supersedes(&later));
    store.delete_manifest(&name(), &one, at(10)).unwrap();
    assert_eq!(store.listing().tag(&name(), &tag("1")), None);
    // What another region still has of before does not bring it back.
    store.adopt_tag(&name(), &tag("1"), &later).unwrap();
    assert_eq!(store.listing().tag(&name(), &tag("1")), None);
}

#[test]
fn records_of_two_regions_are_ordered_the_same_by_both() {
    let digests = [Digest::of(b"a"), Digest::of(b"b")];
    let record = |digest, pushed_ms, deleted| TagRecord {
        digest,
        pushed_ms,
        deleted,
    };
    let (low, high) = if digests[0] < digests[1] {
        (digests[0], digests[1])
    } else {
        (digests[1], digests[0])
    };
    // Each one wins over all before it.
    let ordered = [
        record(high, 1, true),
        record(low, 1, false),
        record(high, 1, false),
        record(low, 2, true),
    ];
    for (i, a) in ordered.iter().enumerate() {
        for (j, b) in ordered.iter().enumerate() {
            assert_eq!(a.supersedes(b), i > j, "{a:?} {b:?}");
        }
    }
}

#[test]
fn pushes_are_announced_and_copies_are_not() {
    let (_dir, store) = store();
    let mut pushes = store.pushes();
    let bytes = manifest_of(&store, "a");
    let digest = store
        .push_manifest(&name(), &Selector::Tag(tag("1")), None, &bytes, at(5))
        .unwrap();
    assert_eq!(pushes.try_recv().unwrap().digest, digest);
    let record = store.listing().manifest(&name(), &digest).unwrap().clone();
    let other = Repository::parse("other").unwrap();
    store.adopt_manifest(&other, &digest, &record, Some(&bytes)).unwrap();
    assert!(pushes.try_recv().is_err());
    assert!(store.manifest(&other, &Selector::Digest(digest)).unwrap().is_some());
}

#[test]
fn a_tag_is_not_adopted_before_its_manifest() {
    let (_dir, store) = store();
    let record = TagRecord {
        digest: Digest::of(b"absent"),
        pushed_ms: 1,
        deleted: false,
    };
    assert!(matches!(
        store.adopt_tag(&name(), &tag("1"), &record),
        Err(StoreError::NoManifest { .. })
    ));
    assert!(store.listing().repositories.is_empty());
}

const SMALL_DISK: &str = "LEEWARD_TEST_SMALL_DISK";

#[test]
fn a_full_disk_is_said_clearly_and_leaves_nothing_half_done() {
    if let Some(dir) = std::env::var_os(SMALL_DISK) {
        return fill(Path::new(&dir));
    }
    // A file system of its own of 1 MiB, seen only by a child of this test.
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=1m tmpfs "$0" || exit 77; exec "$@""#;
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::a_full_disk_is_said_clearly_and_leaves_nothing_half_done",
            "--nocapture",
        ])
        .env(SMALL_DISK, dir.path())
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) => output,
        _ => return eprintln!("skipped: this machine lets no user make a small file system"),
    };
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("unshare failed") || text.contains("Operation not permitted") {
        return eprintln!("skipped: this machine lets no user make a small file system");
    }
    assert!(output.status.success(), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

fn fill(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let bytes = manifest_of(&store, "kept");
    store
        .push_manifest(&name(), &Selector::Tag(tag("1")), None, &bytes, at(5))
        .unwrap();
    let large = vec![7; 2 << 20];
    let mut writer = store.writer().unwrap();
    let refused = writer.append(&large).unwrap_err();
    assert!(
        matches!(refused, StoreError::DiskFull(_)) && refused.is_transient(),
        "{refused}"
    );
    assert!(refused.to_string().contains("free some space"), "{refused}");
    drop(writer);
    assert_eq!(store.blob_state(&Digest::of(&large)), BlobState::Absent);
    assert_eq!(fs::read_dir(dir.join("uploads")).unwrap().count(), 0);
    // What was there is there, and there is room again for what fits.
    assert!(store.manifest(&name(), &Selector::Tag(tag("1"))).unwrap().is_some());
    put(&store, &large[..500_000]);
}
