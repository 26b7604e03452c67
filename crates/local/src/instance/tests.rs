use std::os::unix::fs::PermissionsExt;

use super::*;

// Ignores its arguments, has a child in its own session and one that left it, and ends when it is asked to.
const FAKE: &str = "#!/bin/sh\nsetsid sleep 600 &\nsleep 600 &\nexec sleep 600\n";
// Does not end when it is asked to.
const STUBBORN: &str = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n";

fn program(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("program");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn create(dir: &Path, script: &str) -> Instance {
    let options = Options {
        program: Some(program(dir, script)),
        dies_with_owner: true,
        ..Options::default()
    };
    Instance::create(&dir.join("instance"), &["west", "east"], &options).unwrap()
}

fn marked(instance: &Instance) -> usize {
    processes::marked(&processes::Stat::read_all(), instance.layout.dir()).len()
}

fn names(instance: &Instance) -> Vec<String> {
    instance
        .processes()
        .unwrap()
        .into_iter()
        .map(|record| record.name)
        .collect()
}

#[test]
fn everything_that_was_started_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let instance = create(dir.path(), FAKE);
    instance.start_witness().unwrap();
    instance.start_region("west").unwrap();
    assert_eq!(
        names(&instance),
        ["witness", "west-api", "west-node-0", "west-node-1", "west-serve"]
    );
    assert!(processes::wait_until(Duration::from_secs(10), || marked(&instance) == 15));
    let home = instance.layout.dir().to_owned();
    instance.remove().unwrap();
    assert_eq!(processes::marked(&processes::Stat::read_all(), &home), []);
    assert!(!home.exists());
}

#[test]
fn a_killed_region_leaves_the_others_alone_and_can_be_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let instance = create(dir.path(), FAKE);
    instance.start_region("west").unwrap();
    instance.start_region("east").unwrap();
    instance.kill_region("west").unwrap();
    assert!(names(&instance).iter().all(|name| name.starts_with("east")));
    instance.start_region("west").unwrap();
    assert_eq!(names(&instance).len(), 8);
    instance.kill_process("west-node-1").unwrap();
    assert_eq!(names(&instance).len(), 7);
    assert!(matches!(
        instance.kill_process("west-node-1"),
        Err(Error::UnknownProcess(_))
    ));
    instance.stop_all().unwrap();
    assert_eq!(marked(&instance), 0);
}

#[test]
fn a_later_command_finds_and_ends_what_an_earlier_one_started() {
    let dir = tempfile::tempdir().unwrap();
    let first = create(dir.path(), FAKE);
    first.start_witness().unwrap();
    let second = Instance::open(&dir.path().join("instance")).unwrap();
    assert_eq!(names(&second), ["witness"]);
    second.start_witness().unwrap();
    assert_eq!(
        second.processes().unwrap(),
        first.processes().unwrap(),
        "what runs is not started twice"
    );
    second.stop_all().unwrap();
    assert_eq!(names(&first), Vec::<String>::new());
}

#[test]
fn one_that_does_not_end_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let instance = create(dir.path(), STUBBORN);
    instance.start_witness().unwrap();
    assert!(processes::wait_until(Duration::from_secs(5), || marked(&instance) == 2));
    instance.stop_all().unwrap();
    assert_eq!(marked(&instance), 0);
}

#[test]
fn what_was_started_but_not_written_down_is_ended_before_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let instance = create(dir.path(), FAKE);
    instance.start_witness().unwrap();
    std::fs::remove_file(instance.layout.processes()).unwrap();
    assert!(processes::wait_until(Duration::from_secs(5), || marked(&instance) == 3));
    instance.start_region("west").unwrap();
    assert!(processes::wait_until(Duration::from_secs(10), || marked(&instance) == 12));
    instance.stop_all().unwrap();
    assert_eq!(marked(&instance), 0);
}

#[test]
fn a_directory_that_is_no_instance_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    assert!(matches!(Instance::open(&missing), Err(Error::Missing(_))));
    std::fs::write(dir.path().join("precious"), b"x").unwrap();
    let options = Options::default();
    assert!(matches!(
        Instance::create(dir.path(), &["a"], &options),
        Err(Error::Foreign(_))
    ));
    assert!(matches!(Instance::remove_dir(dir.path()), Err(Error::Foreign(_))));
    assert!(dir.path().join("precious").exists());
}

#[test]
fn a_making_that_was_cut_short_is_done_again_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    let instance = create(dir.path(), FAKE);
    let home = instance.layout.dir().to_owned();
    std::fs::remove_file(instance.layout.state()).unwrap();
    assert!(matches!(Instance::open(&home), Err(Error::Incomplete(_))));
    Instance::create(&home, &["north"], &Options::default()).unwrap();
    assert_eq!(Instance::open(&home).unwrap().regions(), ["north"]);
    assert!(matches!(
        Instance::create(&home, &["north"], &Options::default()),
        Err(Error::Exists(..))
    ));
    std::fs::remove_file(instance.layout.state()).unwrap();
    Instance::remove_dir(&home).unwrap();
    assert!(!home.exists());
}

#[test]
fn a_damaged_state_file_is_named_and_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let instance = create(dir.path(), FAKE);
    for damage in [
        "",
        "{",
        "{\"version\":9,\"octet\":1,\"nodes\":2,\"regions\":[\"a\"]}",
        "[]",
    ] {
        std::fs::write(instance.layout.state(), damage).unwrap();
        let error = Instance::open(instance.layout.dir()).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{damage}: {error}");
        assert!(error.to_string().contains("leeward down"), "{error}");
    }
    Instance::remove_dir(instance.layout.dir()).unwrap();
    assert!(!instance.layout.dir().exists());
}

#[test]
fn names_that_cannot_be_a_region_are_refused() {
    for names in [&[][..], &["West"], &["a", "a"], &["witness"], &["-a"], &[""], &["a/b"]] {
        assert!(
            matches!(making::check_names(names), Err(Error::Regions(_))),
            "{names:?}"
        );
    }
    let many: Vec<String> = (0..16).map(|index| format!("r{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(making::check_names(&many).is_err() && making::check_names(&many[..15]).is_ok());
}

#[test]
fn secrets_are_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let instance = create(dir.path(), FAKE);
    let mut directories = vec![instance.layout.dir().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
            let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
            assert!(mode == 0, "{}", entry.path().display());
        }
    }
}

#[tokio::test]
async fn an_api_that_ends_at_once_is_reported_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let instance = create(dir.path(), "#!/bin/sh\necho the disk is full\nexit 1\n");
    instance.start_kubernetes("west").unwrap();
    let error = instance
        .wait_api_ready("west", Duration::from_secs(10))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Ended { name, tail } if name == "west-api" && tail.contains("the disk is full")),
        "{error}"
    );
}

#[test]
fn a_frozen_region_stands_still_until_it_is_thawed() {
    let dir = tempfile::tempdir().unwrap();
    let instance = create(dir.path(), FAKE);
    instance.start_kubernetes("west").unwrap();
    let state = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().chars().next().unwrap()
    };
    let stopped = |wanted: bool| {
        let pids: Vec<i32> = instance.processes().unwrap().iter().map(|record| record.pid).collect();
        assert_eq!(pids.len(), 3);
        processes::wait_until(Duration::from_secs(5), || {
            pids.iter().all(|pid| (state(*pid) == 'T') == wanted)
        })
    };
    instance.freeze_region("west").unwrap();
    assert!(stopped(true));
    instance.thaw_region("west").unwrap();
    assert!(stopped(false));
    instance.freeze_process("west-api").unwrap();
    instance.freeze_region("west").unwrap();
    assert!(stopped(true));
    instance.thaw_all().unwrap();
    assert!(stopped(false));
    instance.freeze_region("west").unwrap();
    instance.stop_all().unwrap();
    assert_eq!(marked(&instance), 0, "also what is frozen is ended");
}

// Run by the test below in a process of its own, which is then killed.
#[test]
#[ignore = "part of another test"]
fn owner() {
    let dir = PathBuf::from(std::env::var_os("LEEWARD_TEST_OWNER").expect("started by the test that needs it"));
    let instance = create(&dir, "#!/bin/sh\nexec sleep 600\n");
    instance.start_region("west").unwrap();
    std::fs::write(dir.join("started"), "").unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn everything_dies_with_an_owner_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "instance::tests::owner", "--ignored"])
        .env("LEEWARD_TEST_OWNER", dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    assert!(processes::wait_until(Duration::from_secs(20), || dir
        .path()
        .join("started")
        .exists()));
    let instance = Instance::open(&dir.path().join("instance")).unwrap();
    assert_eq!(instance.processes().unwrap().len(), 4);
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(processes::wait_until(Duration::from_secs(5), || instance
        .processes()
        .unwrap()
        .is_empty()));
}

/// Making and removing at once: whoever comes second finds all of it or nothing, and nothing is left half made.
#[test]
fn a_directory_that_is_made_and_removed_at_the_same_time_is_whole_or_gone() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("home");
    for round in 0..12 {
        std::thread::scope(|scope| {
            let makers: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| Instance::create(&dir, &["west"], &Options::default()).map(drop)))
                .collect();
            let remover = scope.spawn(|| Instance::remove_dir(&dir));
            for maker in makers {
                let made = maker.join().unwrap();
                assert!(
                    matches!(made, Ok(()) | Err(Error::Exists(..))),
                    "round {round}: {made:?}"
                );
            }
            let removed = remover.join().unwrap();
            assert!(
                matches!(removed, Ok(()) | Err(Error::Missing(_))),
                "round {round}: {removed:?}"
            );
        });
        let there = Instance::open(&dir).map(drop);
        assert!(
            matches!(there, Ok(()) | Err(Error::Missing(_))),
            "round {round}: {there:?}"
        );
        let _ = Instance::remove_dir(&dir);
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
