//! The main job, whole: regions, application, client, fault, recovery, report.

use std::{path::Path, process::Command};

use serde_json::Value;

/// Runs the demo; its report, and whether it said that every objective was met.
fn demo(arguments: &[&str]) -> (Value, bool) {
    run(Command::new(env!("CARGO_BIN_EXE_leeward")), arguments)
}

/// The same, ahead of whatever else runs on the machine, where it is allowed: what others take is not Leeward's time. In a build that is not
/// optimised a busy machine would make seconds of it.
fn timed_demo(arguments: &[&str]) -> (Value, bool) {
    let first = |program: &str| {
        let mut chrt = Command::new("chrt");
        chrt.args(["--rr", "1", program]);
        chrt
    };
    if !first("true").output().is_ok_and(|tried| tried.status.success()) {
        return demo(arguments);
    }
    run(first(env!("CARGO_BIN_EXE_leeward")), arguments)
}

fn run(mut leeward: Command, arguments: &[&str]) -> (Value, bool) {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("report.json");
    let output = leeward
        .arg("demo")
        .args(arguments)
        .arg("--json")
        .arg(&json)
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["report.json"], "files were left behind");
    assert_eq!(
        processes_below(directory.path()),
        Vec::<String>::new(),
        "processes were left behind"
    );
    let text = std::fs::read_to_string(&json).unwrap_or_default();
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("no report ({error}):\n{said}"));
    println!("{said}\n{text}");
    (report, output.status.success())
}

/// Processes whose command line or environment names this directory.
fn processes_below(directory: &Path) -> Vec<String> {
    let name = directory.display().to_string();
    let mine = std::process::id().to_string();
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name());
    pids.filter_map(|pid| pid.into_string().ok())
        .filter(|pid| *pid != mine && pid.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| {
            ["cmdline", "environ"].iter().any(|file| {
                let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                String::from_utf8_lossy(&text).contains(&name)
            })
        })
        .collect()
}

fn number(report: &Value, pointer: &str) -> u64 {
    let value = report.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
    value.as_u64().unwrap_or_else(|| panic!("{pointer} is {value}"))
}

#[test]
fn a_lost_region_is_left_returns_and_takes_over_again() {
    let (report, met) = demo(&[]);
    assert!(met);
    assert_eq!(number(&report, "/writes/two_writer_conflicts"), 0);
    assert_eq!(number(&report, "/writes/holes"), 0);
    assert!(number(&report, "/writes/lost_window_ms") <= 5_000);
    assert_eq!(number(&report, "/switchover/writes_lost"), 0);
    assert!(
        number(&report, "/failover/rto_ms") >= 3_000,
        "nobody may take over before the lease is over"
    );
    let epochs: Vec<_> = report["epochs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|epoch| epoch.as_u64().unwrap())
        .collect();
    assert_eq!(epochs, [1, 2, 3]);
    let written = number(&report, "/mirror/bytes_written_by_app");
    assert!(number(&report, "/mirror/bytes_sent") <= 2 * written);
    let steps: Vec<_> = report["failover"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| &step["name"])
        .collect();
    assert_eq!(steps, ["Decide", "Promote", "Start"]);
}

#[test]
fn no_read_fails_when_every_region_serves_and_one_is_lost() {
    let (report, met) = demo(&["--model", "active-active", "--rate", "200"]);
    assert!(met);
    assert_eq!(number(&report, "/requests/failed"), 0);
    assert!(number(&report, "/requests/longest_outage_ms") <= 1_000);
    for absent in ["writes", "failover", "switchover", "mirror"] {
        assert!(report[absent].is_null(), "{absent}");
    }
}

#[test]
fn a_killed_node_and_a_killed_application_are_healed_inside_the_region() {
    for fault in ["kill-node", "kill-app"] {
        let (report, met) = timed_demo(&["--fault", fault]);
        assert!(met, "{fault}");
        assert_eq!(report["epochs"], serde_json::json!([1]), "{fault}");
        assert_eq!(number(&report, "/writes/lost"), 0, "{fault}");
        assert!(report["switchover"].is_null(), "{fault}");
    }
}

#[test]
fn a_frozen_region_lets_nothing_out_when_it_thaws() {
    let (report, met) = demo(&["--fault", "freeze-region"]);
    assert!(met);
    assert_eq!(number(&report, "/writes/two_writer_conflicts"), 0);
}

/// What is promised of a lost region on etcd: how soon writes are back, and of what was acknowledged before.
fn failed_over_and_returned(report: &Value) {
    assert!(number(report, "/failover/rto_ms") <= 8_000, "writes came back late");
    assert!(number(report, "/writes/lost_window_ms") <= 5_000);
    assert_eq!(number(report, "/writes/two_writer_conflicts"), 0);
    assert_eq!(number(report, "/writes/holes"), 0);
    assert_eq!(number(report, "/switchover/writes_lost"), 0);
    assert_eq!(report["epochs"], serde_json::json!([1, 2, 3]));
}

/// Whether a program is there; says so when not.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        println!("skipped: no directory of PATH has {program}");
    }
    found
}

/// Whether etcd is there; `cargo xtask test` gets it.
fn etcd() -> bool {
    has("etcd")
}

/// Whether regions can have networks of their own; says so when not.
fn networks() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: network namespaces need root");
    }
    root && has("ip")
}

#[test]
fn on_etcd_a_lost_region_is_left_and_returns_with_its_member() {
    if !etcd() {
        return;
    }
    let (report, met) = timed_demo(&["--quorum", "etcd", "--ttl", "3"]);
    assert!(met);
    failed_over_and_returned(&report);
}

#[test]
fn on_etcd_a_region_that_stands_still_past_its_lease_lets_nothing_out_when_it_goes_on() {
    if !etcd() {
        return;
    }
    let (report, met) = timed_demo(&["--quorum", "etcd", "--ttl", "3", "--fault", "freeze-region"]);
    assert!(met);
    failed_over_and_returned(&report);
}

#[test]
fn on_etcd_nothing_is_interrupted_when_the_witness_is_lost() {
    if !etcd() {
        return;
    }
    let (report, met) = timed_demo(&["--quorum", "etcd", "--ttl", "3", "--fault", "witness"]);
    assert!(met);
    assert!(number(&report, "/writes/longest_ms") <= 1_500, "a write was late");
    assert_eq!(report["epochs"], serde_json::json!([1]));
    for figure in ["/writes/lost", "/writes/refused", "/writes/unknown", "/requests/failed"] {
        assert_eq!(number(&report, figure), 0, "{figure}");
    }
}

#[test]
fn on_etcd_a_region_that_is_cut_off_but_not_from_its_users_stops_writing_before_the_other_one_begins() {
    if !etcd() || !networks() {
        return;
    }
    let (report, met) = timed_demo(&["--quorum", "etcd", "--ttl", "3", "--fault", "partition-region"]);
    assert!(met);
    failed_over_and_returned(&report);
    assert!(
        number(&report, "/writes/lost") > 0,
        "nothing was acknowledged while it was cut off: the test shows nothing"
    );
}

/// Makes faults; the report, and whether everything held.
#[cfg(feature = "unfenced")]
fn chaos(arguments: &[&str]) -> (Value, bool) {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("report.json");
    let mut leeward = Command::new(env!("CARGO_BIN_EXE_leeward"));
    leeward.arg("chaos").args(arguments).arg("--json").arg(&json);
    let output = leeward.env("TMPDIR", directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = std::fs::read_to_string(&json).unwrap_or_default();
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("no report ({error}):\n{said}"));
    println!("{said}\n{text}");
    let left = processes_below(directory.path());
    assert_eq!(left, Vec::<String>::new(), "processes were left behind");
    (report, output.status.success())
}

#[cfg(feature = "unfenced")]
#[test]
fn in_real_regions_no_fault_makes_two_writers_and_all_come_to_rest() {
    if !etcd() || !networks() {
        return;
    }
    let (report, held) = chaos(&["--seed", "1", "--minutes", "0.4", "--only", "cut"]);
    assert!(held);
    assert!(number(&report, "/writes/acknowledged") > 100);
    assert_eq!(report["protected"], true);
}

/// The test of the tests: with every gate open the same faults make two writers, and they are counted.
#[cfg(feature = "unfenced")]
#[test]
fn in_real_regions_without_fencing_a_cut_makes_two_writers() {
    if !etcd() || !networks() {
        return;
    }
    let (report, held) = chaos(&["--seed", "1", "--minutes", "2", "--only", "cut-active", "--unfenced"]);
    assert!(!held);
    assert!(number(&report, "/writes/conflicts") > 0);
}

/// The test of the tests: without self-fencing the same fault makes two writers, and the report counts them.
#[cfg(feature = "unfenced")]
#[test]
fn without_fencing_a_frozen_region_makes_two_writers_and_they_are_counted() {
    let (report, met) = demo(&["--fault", "freeze-region", "--unfenced"]);
    assert!(!met);
    assert!(number(&report, "/writes/two_writer_conflicts") > 0);
}
