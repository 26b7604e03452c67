//! Images made of files.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use leeward_images::inventory::{Inventory, State};
use leeward_images::pack::{self, Config, Entry, Source};

use super::harness::{Region, client, reference};

#[tokio::test]
async fn a_packed_program_arrives_whole_and_a_second_push_sends_nothing() {
    let region = Region::start("west").await;
    let program = std::env::current_exe().unwrap();
    let pack = || {
        let mut entries = pack::executable(&program, "/usr/bin/program").unwrap();
        entries.push(Entry::directory("/tmp", 0o1777));
        pack::image(
            vec![entries],
            &Config {
                entrypoint: vec!["/usr/bin/program".into()],
                ..Config::default()
            },
        )
        .unwrap()
    };
    let (image, again) = (pack(), pack());
    assert_eq!(image.digest(), again.digest());
    let reference = reference("leeward.dev/sample:1");
    pack::push(&client(), &region.url, &reference, &image).await.unwrap();
    pack::push(&client(), &region.url, &reference, &again).await.unwrap();
    let inventory = Inventory::new(region.store.clone());
    let held = inventory.check_verified(&["leeward.dev/sample:1"]).await.unwrap();
    assert_eq!(
        (held[0].digest, &held[0].state),
        (Some(image.digest()), &State::Present)
    );
    // Straight into a store gives the same.
    let other = Region::start("east").await;
    assert_eq!(
        image.store(&other.store, &reference, SystemTime::now()).unwrap(),
        image.digest()
    );
}

#[test]
fn a_program_packed_with_its_libraries_runs_from_them_alone() {
    let entries = pack::executable(Path::new("/bin/ls"), "/bin/ls").unwrap();
    let root = tempfile::tempdir().unwrap();
    let mut directories = BTreeSet::new();
    for entry in &entries {
        let Source::File(from) = &entry.source else { continue };
        let to = root.path().join(entry.path.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, &to).unwrap();
        directories.insert(to.parent().unwrap().display().to_string());
    }
    let Some(interpreter) = entries.iter().find(|entry| entry.path.contains("/ld-")) else {
        return; // A static `ls` needs nothing.
    };
    // The interpreter lists what it resolves: every library must come from the packed ones.
    let output = Command::new(root.path().join(interpreter.path.trim_start_matches('/')))
        .args([
            "--inhibit-cache",
            "--library-path",
            &directories.into_iter().collect::<Vec<_>>().join(":"),
        ])
        .args(["--list", root.path().join("bin/ls").to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in text.lines().filter(|line| line.contains("=>")) {
        assert!(line.contains(root.path().to_str().unwrap()), "{line}");
    }
}

#[test]
fn what_is_no_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("script");
    for content in [
        &b"#!/bin/sh\n"[..],
        b"",
        b"\x7fELF",
        &[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0],
    ] {
        std::fs::write(&text, content).unwrap();
        assert!(pack::executable(&text, "/bin/x").is_err());
    }
    assert!(pack::executable(&dir.path().join("absent"), "/bin/x").is_err());
    assert!(pack::executable(dir.path(), "/bin/x").is_err());
}
