use proptest::prelude::*;

use super::*;
use crate::manifest::{OCI_INDEX, OCI_MANIFEST};

fn repository() -> Repository {
    Repository::parse("sample").unwrap()
}

fn digest(n: u8) -> Digest {
    Digest::of(&[n])
}

fn manifest(pushed_ms: u64, deleted: bool) -> ManifestRecord {
    ManifestRecord {
        media_type: OCI_MANIFEST.into(),
        pushed_ms,
        deleted,
    }
}

fn tag_record(n: u8, pushed_ms: u64, deleted: bool) -> TagRecord {
    TagRecord {
        digest: digest(n),
        pushed_ms,
        deleted,
    }
}

/// Manifests by number and tags by name.
fn listing(manifests: &[(u8, ManifestRecord)], tags: &[(&str, TagRecord)]) -> Listing {
    let mut listing = Listing::default();
    let records = listing.repositories.entry(repository()).or_default();
    records
        .manifests
        .extend(manifests.iter().map(|(n, record)| (digest(*n), record.clone())));
    records
        .tags
        .extend(tags.iter().map(|(tag, record)| (tag.parse().unwrap(), record.clone())));
    listing
}

/// The steps in short: what is copied, in order.
fn short(local: &Listing, remote: &Listing) -> Vec<String> {
    let number = |wanted: &Digest| (0..9).find(|n| digest(*n) == *wanted).unwrap();
    let step = |step: &Copy| match step {
        Copy::Manifest { digest, record, .. } => format!("{}{}", if record.deleted { "-" } else { "" }, number(digest)),
        Copy::Tag { tag, record, .. } => {
            format!(
                "{}{tag}={}",
                if record.deleted { "-" } else { "" },
                number(&record.digest)
            )
        }
    };
    plan(local, remote).iter().map(step).collect()
}

#[test]
fn what_is_missing_or_newer_is_copied_in_an_order_that_keeps_names_complete() {
    let empty = Listing::default();
    let index = ManifestRecord {
        media_type: OCI_INDEX.into(),
        ..manifest(1, false)
    };
    let one = listing(&[(1, manifest(5, false))], &[("v", tag_record(1, 5, false))]);
    let two = listing(
        &[(1, manifest(5, false)), (2, manifest(9, false))],
        &[("v", tag_record(2, 9, false))],
    );
    let gone = listing(&[(1, manifest(7, true))], &[("v", tag_record(1, 7, true))]);
    let mixed = listing(
        &[(1, index), (2, manifest(1, false)), (3, manifest(1, true))],
        &[("a", tag_record(1, 1, false)), ("b", tag_record(3, 1, true))],
    );
    let table: [(&str, &Listing, &Listing, &[&str]); 8] = [
        ("nothing there", &one, &empty, &[]),
        ("all there", &one, &one, &[]),
        ("all missing", &empty, &one, &["1", "v=1"]),
        ("a newer push", &one, &two, &["2", "v=2"]),
        ("an older push", &two, &one, &[]),
        ("a deletion", &one, &gone, &["-v=1", "-1"]),
        ("a deletion is not undone", &gone, &one, &[]),
        (
            "images, indexes, tags, deletions",
            &empty,
            &mixed,
            &["2", "1", "a=1", "-b=3", "-3"],
        ),
    ];
    for (name, local, remote, expected) in table {
        assert_eq!(short(local, remote), expected, "{name}");
    }
}

#[test]
fn a_tag_of_a_manifest_that_was_deleted_here_is_left() {
    let local = listing(&[(1, manifest(9, true))], &[]);
    let remote = listing(&[(1, manifest(5, false))], &[("v", tag_record(1, 5, false))]);
    assert_eq!(short(&local, &remote), Vec::<String>::new());
    // Pushed again later, it comes.
    let remote = listing(&[(1, manifest(10, false))], &[("v", tag_record(1, 10, false))]);
    assert_eq!(short(&local, &remote), ["1", "v=1"]);
}

#[test]
fn pauses_grow_after_failures_and_never_pass_the_longest() {
    let interval = Duration::from_secs(30);
    let table = [
        (0, 0.5, 30_000),
        (0, 0.0, 24_000),
        (0, 1.0, 36_000),
        (1, 1.0, 200),
        (1, 0.0, 100),
        (3, 1.0, 800),
    ];
    for (failures, jitter, ms) in table {
        assert_eq!(pause(interval, failures, jitter).as_millis(), ms, "{failures} {jitter}");
    }
    assert_eq!(pause(interval, u32::MAX, 9.0), LONGEST_PAUSE);
    assert_eq!(pause(Duration::from_secs(1), 20, 1.0), Duration::from_secs(1));
    assert!(pause(Duration::ZERO, 1, 0.0) > Duration::ZERO);
}

/// What the store does with a step, without the bytes.
fn apply(listing: &mut Listing, steps: Vec<Copy>) {
    for step in steps {
        match step {
            Copy::Manifest {
                repository,
                digest,
                record,
            } => {
                listing
                    .repositories
                    .entry(repository)
                    .or_default()
                    .manifests
                    .insert(digest, record);
            }
            Copy::Tag {
                repository,
                tag,
                record,
            } => {
                let records = listing.repositories.entry(repository).or_default();
                let live = records
                    .manifests
                    .get(&record.digest)
                    .is_some_and(|manifest| !manifest.deleted);
                assert!(record.deleted || live, "{tag} came before its manifest");
                records.tags.insert(tag, record);
            }
        }
    }
}

/// A region's history: pushes and deletions as a store records them.
fn history(operations: &[(u8, u8, u64, bool)]) -> Listing {
    let mut listing = Listing::default();
    let records = listing.repositories.entry(repository()).or_default();
    for &(tag, n, ms, delete) in operations {
        let tag: Tag = format!("t{tag}").parse().unwrap();
        let next = |previous: Option<u64>| previous.map_or(ms, |previous| ms.max(previous + 1));
        let tag_ms = next(records.tags.get(&tag).map(|record| record.pushed_ms));
        if delete {
            if let Some(record) = records.tags.get_mut(&tag) {
                *record = TagRecord {
                    pushed_ms: tag_ms,
                    deleted: true,
                    ..record.clone()
                };
            }
        } else {
            let manifest_ms = next(records.manifests.get(&digest(n)).map(|record| record.pushed_ms));
            records.manifests.insert(digest(n), manifest(manifest_ms, false));
            records.tags.insert(tag, tag_record(n, tag_ms, false));
        }
    }
    listing
}

proptest! {
    #[test]
    fn regions_that_copy_from_each_other_end_equal_whoever_begins(
        a in prop::collection::vec((0_u8..3, 0_u8..4, 0_u64..6, any::<bool>()), 0..12),
        b in prop::collection::vec((0_u8..3, 0_u8..4, 0_u64..6, any::<bool>()), 0..12),
    ) {
        let (a, b) = (history(&a), history(&b));
        let settle = |first: &Listing, second: &Listing| {
            let (mut first, mut second) = (first.clone(), second.clone());
            let steps = plan(&first, &second);
            apply(&mut first, steps);
            let steps = plan(&second, &first);
            apply(&mut second, steps);
            (first, second)
        };
        let (a1, b1) = settle(&a, &b);
        let (b2, a2) = settle(&b, &a);
        prop_assert_eq!(&a1, &b1);
        prop_assert_eq!(&a2, &b2);
        prop_assert_eq!(&a1, &a2);
        prop_assert!(plan(&a1, &b1).is_empty());
    }
}
