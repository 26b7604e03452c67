//! A majority of the quorum lost for good, with the region that an application ran in: begun anew by a person, on real members.

use crate::commands::{Home, SHOP, push_shell};

/// Whether one of these programs is in a directory of `PATH`.
pub(crate) fn is_there(names: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| names.iter().any(|name| directory.join(name).is_file()));
    if !found {
        println!("skipped: no directory of PATH has {}", names.join(" or "));
    }
    found
}

/// The command, for what is named as lost.
fn recover<'a>(lost: &[&'a str]) -> Vec<&'a str> {
    let lost = lost.iter().flat_map(|name| ["--lost", *name]);
    ["quorum", "recover", "--region", "west"]
        .into_iter()
        .chain(lost)
        .collect()
}

#[test]
fn an_application_goes_on_above_all_old_epochs_and_the_old_majority_grants_nothing() {
    if !is_there(&["etcd"]) || !is_there(&["etcdutl", "etcdctl"]) {
        return;
    }
    let home = Home::new();
    home.expect(0, &["up", "--quorum", "etcd", "--ttl", "3", "--nodes", "1"]);
    push_shell(home.instance().addresses("west").unwrap().registry());
    let manifest = home.0.path().join("shop.yaml");
    std::fs::write(&manifest, SHOP).unwrap();
    home.expect(0, &["apply", "-f", manifest.to_str().unwrap()]);
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));
    home.expect(0, &["switchover", "shop", "--to", "east"]);
    let instance = home.instance().with_program(env!("CARGO_BIN_EXE_leeward"));
    let says = |region: &str, what: &str| {
        let log = std::fs::read_to_string(instance.layout().log(Some(region), "serve"));
        log.unwrap_or_default().contains(what)
    };
    // West has everything of the new direction.
    home.until(&["explain", "shop"], |out| {
        out.contains("It is protected") && says("west", "mode=Standby")
    });
    instance.kill_region("east").unwrap();
    instance.kill_process("witness").unwrap();
    // Two members of three are a majority.
    let (_, err) = home.expect(1, &recover(&["east", "witness"]));
    assert!(err.contains("the quorum answers"), "{err}");
    instance.kill_process("witness-etcd").unwrap();
    let (_, err) = home.expect(1, &recover(&["east"]));
    assert!(err.contains("--lost witness"), "{err}");
    let (out, _) = home.expect(0, &recover(&["east", "witness"]));
    assert!(out.contains("incarnation 1 of the quorum has begun"), "{out}");

    home.until(&["quorum", "status"], |out| out.contains("incarnation 1, 1 members"));
    let (out, _) = home.until_code(0, &["failover", "shop", "--to", "west", "--accept-data-loss", "600s"]);
    assert!(out.contains("west is active, epoch"), "{out}");
    home.until(&["explain", "shop"], |out| out.contains("west is active, epoch 1.3"));

    // Everything comes back with what it had, as no `leeward up` would start it: east and the witness are a majority of the old quorum, which says that east writes.
    instance.start_witness().unwrap();
    instance.start_region("east").unwrap();
    home.until(&["quorum", "status"], |_| {
        says("east", "the quorum was begun anew elsewhere")
    });
    let config = instance.layout().config(Some("east"), "serve");
    let (_, err) = home.expect(
        1,
        &[
            "quorum",
            "adopt",
            "--cluster",
            "abc",
            "--config",
            config.to_str().unwrap(),
        ],
    );
    assert!(err.contains("no member of etcd cluster abc answers"), "{err}");
    let kept = std::fs::read_to_string(instance.layout().region("west").join("agent/quorum.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let east = std::fs::read_to_string(instance.layout().region("east").join("agent/quorum.json")).unwrap();
    assert!(!east.contains(kept["cluster"].as_str().unwrap()), "{east}");
    assert_eq!(kept["incarnation"], 1);

    // A person tells east; it goes over without being started again, and stands by.
    let cluster = kept["cluster"].as_str().unwrap();
    let (out, _) = home.expect(0, &["quorum", "adopt", "--region", "east", "--cluster", cluster]);
    assert!(
        out.contains(&format!("east belongs to etcd cluster {cluster}, incarnation 1")),
        "{out}"
    );
    home.until(&["explain", "shop"], |out| {
        out.contains("west is active, epoch 1.3")
            && out.contains("  1. 1 of the 1 members of the quorum answer: if one more is lost")
            && !out.contains("  2. ")
            && out.contains("nothing would be moved where a member of the quorum is lost with west")
    });
    // Once more changes nothing.
    home.expect(0, &["quorum", "adopt", "--region", "east", "--cluster", cluster]);
}

/// The members that the new incarnation was begun without would be a quorum of their own.
#[test]
fn up_starts_no_member_of_the_quorum_before_and_says_how_a_lost_region_is_taken_in_again() {
    if !is_there(&["etcd"]) || !is_there(&["etcdutl", "etcdctl"]) {
        return;
    }
    let home = Home::new();
    home.expect(0, &["up", "--quorum", "etcd", "--ttl", "3", "--nodes", "1"]);
    let names = || -> Vec<String> {
        let processes = home.instance().processes().unwrap();
        let names: std::collections::BTreeSet<_> = processes.into_iter().map(|process| process.name).collect();
        names.into_iter().collect()
    };
    let (out, _) = home.expect(0, &["doctor"]);
    for part in ["ok    witness-etcd", "ok    west member", "answers and leads, term "] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    home.instance().kill_process("witness-etcd").unwrap();
    let (out, _) = home.expect(1, &["doctor"]);
    assert!(out.contains("fail  witness member  does not answer: "), "{out}");
    let (out, _) = home.expect(0, &["quorum", "status"]);
    assert!(
        out.contains("none may be lost any more") && out.contains("\n  -> start it"),
        "{out}"
    );
    // It knows nothing of what is begun below.
    let before = home.instance();
    home.instance().kill_process("witness").unwrap();
    home.instance().kill_region("east").unwrap();
    home.expect(0, &recover(&["east", "witness"]));

    let (out, err) = home.expect(0, &["up"]);
    assert!(
        out.contains("region west is ready") && !out.contains("region east is ready"),
        "{out}"
    );
    assert_eq!(
        names(),
        ["west-api", "west-etcd", "west-node-0", "west-serve", "witness"]
    );
    for part in [
        "no member of etcd is started in east and beside the witness: incarnation 1 of the quorum was begun without them",
        "region east is not started: it belongs to the quorum from before incarnation 1",
        "`leeward quorum adopt --region east --cluster ",
    ] {
        assert!(err.contains(part), "{part:?} is not in {err}");
    }

    let (out, _) = home.expect(0, &["doctor"]);
    for part in [
        "warn  east ",
        "belongs to the quorum from before incarnation 1, so it is not started",
        "ok    west member",
    ] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    assert!(!out.contains("east member"), "{out}");

    // Should the old quorum come back all the same, it is told from this one.
    let before = before.with_program(env!("CARGO_BIN_EXE_leeward"));
    before.start_witness().unwrap();
    before.start_region("east").unwrap();
    let (out, _) = home.until_code(1, &["quorum", "status"]);
    assert!(
        out.contains("another quorum") && out.contains(" is of another quorum: etcd cluster "),
        "{out}"
    );
    let (out, _) = home.expect(1, &["doctor"]);
    assert!(out.contains("fail  witness member  is of another quorum"), "{out}");
    home.instance().kill_process("witness-etcd").unwrap();
    home.instance().kill_region("east").unwrap();

    // What it says works.
    let (_, said) = err.split_once("leeward quorum adopt --region east --cluster ").unwrap();
    let cluster = said.split('`').next().unwrap();
    home.expect(0, &["quorum", "adopt", "--region", "east", "--cluster", cluster]);
    let (out, err) = home.expect(0, &["up"]);
    assert!(out.contains("region east is ready"), "{out}");
    assert!(
        !names().contains(&"east-etcd".to_owned()) && !err.contains("is not started: "),
        "{err}"
    );
    home.until(&["quorum", "status"], |out| out.contains("incarnation 1, 1 members"));
}
