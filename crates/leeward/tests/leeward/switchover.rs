//! Switchovers of a writer that takes its time to stop, while something happens to them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::commands::{Home, SHOP, push_shell};

/// Regions with a writer that does not stop when it is asked to, and writes a name of its own again and again; not behind a gate.
fn slow_to_stop() -> Home {
    let home = Home::new();
    home.expect(0, &["up", "--ttl", "5", "--nodes", "1"]);
    push_shell(home.instance().addresses("west").unwrap().registry());
    let quick = "trap 'exit 0' TERM; while true; do echo x >> /data/log; sleep 0.2; done";
    let slow =
        "read id < /proc/sys/kernel/random/uuid; trap '' TERM; while true; do echo $id >> /data/log; sleep 0.1; done";
    assert!(SHOP.contains(quick) && SHOP.contains("terminationGracePeriodSeconds: 2"));
    let manifest = home.0.path().join("shop.yaml");
    let shop = SHOP.replace(quick, slow);
    let shop = shop.replace("terminationGracePeriodSeconds: 2", "terminationGracePeriodSeconds: 4");
    std::fs::write(&manifest, shop).unwrap();
    home.expect(0, &["apply", "-f", manifest.to_str().unwrap()]);
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));
    home
}

fn status(out: &str) -> Value {
    let app: Value = serde_json::from_str(out).unwrap_or_default();
    app["status"].clone()
}

fn stops(home: &Home) {
    home.expect(0, &["switchover", "shop", "--to", "east", "--no-wait"]);
    home.until(&["status", "shop", "-o", "json"], |out| {
        status(out)["operation"]["step"] == "Quiesce in west"
    });
}

fn ends_in(home: &Home, cluster: &str) {
    home.until(&["status", "shop", "-o", "json"], |out| {
        let status = status(out);
        status["active"] == cluster && status["operation"].is_null()
    });
}

/// Every file of this name below a directory.
fn find(directory: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, name, found);
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
}

#[test]
fn an_operation_goes_on_and_its_record_tells_so_when_its_targets_agent_is_started_anew() {
    let home = slow_to_stop();
    let instance = home.instance().with_program(env!("CARGO_BIN_EXE_leeward"));
    stops(&home);
    instance.kill_process("east-serve").unwrap();
    instance.start_agent("east").unwrap();
    ends_in(&home, "east");
    home.until(&["status", "shop"], |out| {
        assert!(!out.contains("Refused"), "{out}");
        out.contains("Succeeded")
    });
}

#[test]
fn a_writer_that_goes_on_after_a_cancel_waits_for_the_one_that_still_stops() {
    let home = slow_to_stop();
    stops(&home);
    home.expect(0, &["switchover", "shop", "--cancel"]);
    ends_in(&home, "west");
    let mut logs = Vec::new();
    find(&home.0.path().join("home/regions/west"), "log", &mut logs);
    let written = || {
        let all = logs.iter().map(|log| std::fs::read_to_string(log).unwrap_or_default());
        all.max_by_key(String::len).unwrap_or_default()
    };
    let first = written().lines().next().unwrap().to_owned();
    home.until(&["status", "shop", "-o", "json"], |_| {
        !written().ends_with(&format!("{first}\n"))
    });
    // Until the second one has written for a while: beside it the first one would have, too.
    home.until(&["status", "shop"], |_| {
        let written = written();
        let second = written.lines().position(|line| line != first);
        second.is_some_and(|second| written.lines().count() > second + 10)
    });
    let written = written();
    let second = written.lines().position(|line| line != first).unwrap();
    assert!(
        !written.lines().skip(second).any(|line| line == first),
        "two wrote at once:\n{written}"
    );
}
