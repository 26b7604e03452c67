//! `leeward join`, run as a program.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use leeward_pki::{Authority, Pair, Term};
use serde_json::Value;

use crate::desk::{Desk, about, documents, identity, now, text};

#[test]
fn a_bundle_has_all_that_a_cluster_needs_and_is_the_same_each_time() {
    let desk = Desk::new();
    let init = [
        "init",
        "--witness",
        "witness.example",
        "--cluster",
        "west=west.example",
        "--cluster",
        "east=10.0.0.7",
    ];
    let (out, _) = desk.expect(0, &init);
    assert!(
        out.contains("leeward join render west --dir leeward-installation | kubectl"),
        "{out}"
    );
    let (out, _) = desk.expect(0, &init);
    assert!(out.contains("is there already, as asked for"), "{out}");
    let directory = desk.path("leeward-installation");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (first, err) = desk.expect(0, &["render", "west"]);
    assert!(
        err.contains("a new certificate for west was made: there was none"),
        "{err}"
    );
    assert_eq!(desk.expect(0, &["render", "west"]), (first.clone(), String::new()));
    assert_eq!(mode(&directory), 0o700);
    for file in desk.content().keys() {
        assert_eq!(mode(file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().unwrap()), 0o700, "{}", file.display());
    }
    let kinds: Vec<_> = documents(&first)
        .iter()
        .map(|one| {
            format!(
                "{}/{}",
                one["kind"].as_str().unwrap(),
                one["metadata"]["name"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "Secret/leeward-identity",
            "ConfigMap/leeward-config",
            "MutatingWebhookConfiguration/leeward-webhook",
            "Cluster/east",
            "Cluster/west"
        ]
    );
    let (west, east) = (identity(&first), desk.identity("east"));
    let found = about(&west);
    assert_eq!(found.common_name.as_deref(), Some("west"));
    let hosts: Vec<_> = found.hosts.iter().map(String::as_str).collect();
    assert_eq!(
        hosts,
        [
            "*.leeward-system.svc",
            "*.leeward-system.svc.cluster.local",
            "west.example"
        ]
    );
    assert!(about(&east).hosts.contains("10.0.0.7"));
    assert_eq!(west["ca.crt"], east["ca.crt"]);
    assert_eq!(west["spec-0.key"], east["spec-0.key"]);
    assert_ne!(west["gate.key"], east["gate.key"]);
    assert!(!west["ca.crt"].contains("PRIVATE"), "the authority's key stays here");
}

#[test]
fn what_changes_of_a_cluster_is_said_and_its_certificate_follows_its_host() {
    let desk = Desk::new();
    desk.expect(0, &["init", "--witness", "witness.example", "--namespace", "lw"]);
    desk.expect(0, &["region", "west", "--host", "w.example", "--region", "eu"]);
    let before = desk.identity("west");
    let content = desk.content();
    let (out, _) = desk.expect(0, &["region", "west", "--host", "w.example"]);
    assert!(out.contains("as asked for") && desk.content() == content, "{out}");
    let (out, _) = desk.expect(0, &["region", "west", "--peer", "w2.example:9443", "--zones", "a,b"]);
    for part in [
        "west: peer was w.example:7443 and is w2.example:9443 now\n",
        "west: zones was none and is a,b now\n",
        "render and apply again in every cluster: west",
    ] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    let after = desk.identity("west");
    assert!(about(&after).hosts.contains("w2.example") && !about(&after).hosts.contains("w.example"));
    assert_eq!(before["gate.key"], after["gate.key"], "gates need not be told anew");
    let (_, err) = desk.expect(1, &["region", "west", "--region", "us"]);
    assert!(err.contains("west is in region eu and does not move to us"), "{err}");
    let (out, _) = desk.expect(0, &["forget", "west"]);
    assert!(out.contains("until its certificate ends"), "{out}");
    let (_, err) = desk.expect(1, &["render", "west"]);
    assert!(err.contains("there is no cluster west, only none"), "{err}");
}

#[test]
fn a_quorum_on_etcd_is_rendered_with_each_clusters_own_member_first_and_members_have_certificates() {
    let desk = Desk::new();
    let etcd = [
        "--quorum",
        "etcd",
        "--endpoint",
        "https://w.example:2379",
        "--endpoint",
        "https://e.example:2379",
    ];
    let init = [
        "init",
        "--witness",
        "x.example",
        "--cluster",
        "west=w.example",
        "--cluster",
        "east=e.example",
    ];
    desk.expect(0, &[&init[..], &etcd].concat());
    let (east, _) = desk.expect(0, &["render", "east"]);
    let serve: Value = serde_json::from_str(documents(&east)[1]["data"]["serve.json"].as_str().unwrap()).unwrap();
    assert_eq!(serve["quorum"]["etcd"]["endpoints"][0], "https://e.example:2379");
    assert!(serve["quorum"]["etcd"].get("ca").is_none());
    let (_, err) = desk.expect(2, &["member", "west", "--out", "m"]);
    assert!(err.contains("--host"), "{err}");
    let made = [
        "member",
        "west",
        "--host",
        "w.example",
        "--host",
        "10.0.0.7",
        "--out",
        "m",
    ];
    desk.expect(0, &made);
    let read = |name: &str| fs::read(desk.path("m").join(name)).unwrap();
    let first = read("tls.crt");
    desk.expect(0, &made);
    desk.expect(0, &["member", "west", "--out", "m"]);
    assert_eq!(read("tls.crt"), first);
    let pair = Pair::read(&first, &read("tls.key")).unwrap().about().unwrap();
    assert_eq!(pair.hosts.into_iter().collect::<Vec<_>>(), ["10.0.0.7", "w.example"]);
    let (out, _) = desk.expect(0, &["status"]);
    assert!(out.contains("etcd/west") && out.contains(" days left"), "{out}");
    // An authority of their own.
    let desk = Desk::new();
    fs::write(desk.path("ca.pem"), Authority::new("theirs").unwrap().certificate()).unwrap();
    desk.expect(0, &[&init[..], &etcd, &["--etcd-ca", "ca.pem"]].concat());
    assert_eq!(
        desk.identity("west")["etcd-ca.crt"],
        fs::read_to_string(desk.path("ca.pem")).unwrap()
    );
    let (_, err) = desk.expect(1, &made);
    assert!(err.contains("another authority signs"), "{err}");
}

#[test]
fn bad_input_is_refused_with_what_to_do_and_nothing_is_half_done() {
    let desk = Desk::new();
    let init = |more: &[&'static str]| [&["init", "--witness", "w.example"], more].concat();
    for (arguments, says) in [
        (init(&["--cluster", "West=h.example"]), "1 to 63 of a-z"),
        (init(&["--cluster", "west_1=h.example"]), "1 to 63 of a-z"),
        (init(&["--cluster", "witness=h.example"]), "the witness's name"),
        (init(&["--cluster", "west=h.example:7443"]), "without scheme and port"),
        (
            init(&["--cluster", "west=h", "--cluster", "west=g"]),
            "west is given twice",
        ),
        (init(&["--quorum", "etcd"]), "--endpoint https://HOST:PORT"),
        (
            init(&["--quorum", "etcd", "--endpoint", "http://e:2379"]),
            "https://HOST:PORT",
        ),
        (init(&["--quorum", "etcd", "--endpoint", "https://e"]), "has no port"),
        (init(&["--endpoint", "https://e:2379"]), "for --quorum etcd"),
        (
            init(&["--quorum", "etcd", "--endpoint", "https://e:2379", "--ttl", "1"]),
            "--ttl 1: ",
        ),
        (init(&["--namespace", "A"]), "1 to 63 of a-z"),
        (init(&["--dir", ""]), "no name"),
        (vec!["init"], "--witness"),
        (vec!["init", "--witness", "w.example:0"], "--witness"),
        (vec!["init", "--witness", "https://w.example"], "--witness"),
        (vec!["region", "west", "--peer", "h.example"], "has no port"),
    ] {
        let (_, err) = desk.expect(2, &arguments);
        assert!(err.contains(says), "{arguments:?}: {err}");
        assert_eq!(
            fs::read_dir(desk.0.path()).unwrap().count(),
            0,
            "{arguments:?} left something"
        );
    }
    for arguments in [
        &["render", "west"][..],
        &["status"],
        &["rotate"],
        &["authority", "trust"],
    ] {
        let (_, err) = desk.expect(1, arguments);
        assert!(err.contains("`leeward join init` makes one"), "{err}");
    }
    let (_, err) = desk.expect(1, &init(&["--dir", "no/such/place"]));
    assert!(err.contains("there is no directory no/such"), "{err}");
    fs::write(desk.path("ca.pem"), "nothing").unwrap();
    let etcd = ["--quorum", "etcd", "--endpoint", "https://e:2379", "--etcd-ca"];
    for (file, says) in [
        ("ca.pem", "there is none in it"),
        ("none.pem", "none.pem cannot be read"),
    ] {
        let (_, err) = desk.expect(1, &[&init(&etcd)[..], &[file]].concat());
        assert!(
            err.contains(says) && !desk.path("leeward-installation").exists(),
            "{err}"
        );
    }
    fs::create_dir(desk.path("mine")).unwrap();
    fs::write(desk.path("mine/notes"), "x").unwrap();
    let (_, err) = desk.expect(1, &init(&["--dir", "mine"]));
    assert!(err.contains("holds no installation"), "{err}");
    assert_eq!(fs::read_dir(desk.path("mine")).unwrap().count(), 1);
    // An empty one will do.
    fs::create_dir(desk.path("leeward-installation")).unwrap();
    desk.init("w.example");
    let content = desk.content();
    for (code, arguments, says) in [
        (
            1,
            init(&["--ttl", "20"]),
            "another one than is asked for (the lease lives 15000 ms",
        ),
        (
            1,
            vec!["init", "--witness", "v.example"],
            "the witness is w.example:7443 and not v.example:7443",
        ),
        (1, vec!["render", "north"], "there is no cluster north, only east, west"),
        (
            1,
            vec!["rotate", "north"],
            "there is no north, only east, west, witness",
        ),
        (2, vec!["region", "north"], "--host HOST"),
        (2, vec!["region", "north", "--peer", "n:1"], "--ingress, --registry"),
        (1, vec!["member", "a", "--host", "h", "--out", "m"], "it has no members"),
        (
            1,
            vec!["witness", "--out", "mine"],
            "there is no leeward-witness.service in it from before",
        ),
        (2, vec!["witness", "--out", "w", "--at", "here"], "from the root"),
        (2, vec!["witness"], "--out <DIR>"),
        (2, vec!["witness", "--out", "w", "--script"], "cannot be used with"),
        (1, vec!["authority", "use"], "use comes after trust"),
        (1, vec!["authority", "drop"], "drop comes after trust"),
        (1, vec!["spec-key", "use"], "use comes after trust"),
        (2, vec!["authority", "next"], "possible values: trust, use, drop"),
    ] {
        let (_, err) = desk.expect(code, &arguments);
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
    let now = desk.content();
    let witness = |path: &PathBuf| path.ends_with("certificates/witness.pem");
    let same = |(path, bytes): (&PathBuf, &Vec<u8>)| witness(path) || content.get(path) == Some(bytes);
    assert!(now.iter().all(same) && !desk.path("m").exists() && !desk.path("w").exists());
}

#[test]
fn damaged_files_are_named_and_left_and_what_can_be_made_anew_is() {
    let desk = Desk::new();
    desk.init("w.example");
    desk.identity("west");
    let file = |name: &str| desk.path("leeward-installation").join(name);
    let cases: [(&str, &[u8], &str); 6] = [
        ("installation.json", b"", "it is damaged, and nothing was changed"),
        (
            "installation.json",
            b"{\"version\": 1",
            "it is damaged, and nothing was changed",
        ),
        ("authority-1.pem", b"-----BEGIN", "authority-1.pem is damaged"),
        ("spec-1.key", b"abc", "spec-1.key is damaged"),
        ("gates/west.key", b"", "west.key is damaged"),
        ("installation.json", b"\xff", "cannot read"),
    ];
    for (name, bytes, says) in cases {
        let good = fs::read(file(name)).unwrap();
        fs::write(file(name), bytes).unwrap();
        let (out, err) = desk.expect(1, &["render", "west"]);
        assert!(err.contains(says) && out.is_empty(), "{name}: {err}");
        assert_eq!(fs::read(file(name)).unwrap(), bytes);
        fs::write(file(name), good).unwrap();
    }
    let text = fs::read_to_string(file("installation.json")).unwrap();
    fs::write(
        file("installation.json"),
        text.replace("\"version\": 1", "\"version\": 2"),
    )
    .unwrap();
    let (_, err) = desk.expect(1, &["render", "west"]);
    assert!(err.contains("is of version 2"), "{err}");
    fs::write(file("installation.json"), text).unwrap();
    let key = fs::read(file("spec-1.key")).unwrap();
    fs::remove_file(file("spec-1.key")).unwrap();
    let (_, err) = desk.expect(1, &["render", "west"]);
    assert!(
        err.contains("spec-1.key is not there: bring it back") && !file("spec-1.key").exists(),
        "{err}"
    );
    fs::write(file("spec-1.key"), key).unwrap();
    // Of a certificate another one can be made.
    let pem = fs::read_to_string(file("certificates/west.pem")).unwrap();
    fs::write(file("certificates/west.pem"), &pem[..pem.len() / 2]).unwrap();
    let (out, err) = desk.expect(0, &["render", "west"]);
    assert!(err.contains("the one that was there was damaged"), "{err}");
    about(&identity(&out));
}

#[test]
fn an_authority_that_has_ended_signs_nothing_and_its_successor_can_be_used_at_once() {
    let desk = Desk::new();
    desk.init("w.example");
    let term = Term {
        from: now() - 1000,
        until: now() - 10,
    };
    let ended = Authority::lasting("leeward old", term).unwrap();
    fs::write(desk.path("leeward-installation/authority-1.pem"), ended.pem()).unwrap();
    let (out, err) = desk.expect(1, &["render", "west"]);
    assert!(
        err.contains("authority 1 of this installation has ended") && out.is_empty(),
        "{err}"
    );
    let (out, _) = desk.expect(0, &["status"]);
    assert!(out.contains("has ended"), "{out}");
    desk.expect(0, &["authority", "trust"]);
    desk.expect(0, &["authority", "use"]);
    about(&desk.identity("west"));
}

#[test]
fn new_certificates_are_made_when_half_of_the_time_is_over_or_by_force() {
    let desk = Desk::new();
    desk.init("w.example");
    let first = desk.identity("west");
    let (out, _) = desk.expect(0, &["rotate", "west"]);
    assert!(out.contains("west: kept, 36"), "{out}");
    assert_eq!(desk.identity("west"), first);
    let (out, _) = desk.expect(0, &["rotate", "west", "--force"]);
    assert!(
        out.contains("west: a new certificate") && out.contains("`leeward join render west`"),
        "{out}"
    );
    assert!(desk.expect(0, &["status"]).0.contains("what was before"));
    let second = desk.identity("west");
    assert!(!desk.expect(0, &["status"]).0.contains("what was before"));
    assert_ne!(second["tls.crt"], first["tls.crt"]);
    assert_ne!(second["tls.key"], first["tls.key"]);
    assert_eq!(second["ca.crt"], first["ca.crt"]);
    // One with 150 days left is kept when it is given out, and replaced when it is asked for.
    let file = desk.path("leeward-installation/authority-1.pem");
    let authority = Authority::read(&fs::read_to_string(file).unwrap()).unwrap();
    let hosts = about(&second).hosts.into_iter().collect();
    let term = Term {
        from: now() - 1000,
        until: now() + 150 * 24 * 3600,
    };
    let old = authority.issue_lasting("west", hosts, term).unwrap();
    let pem = format!("{}{}", old.certificate, old.key);
    fs::write(desk.path("leeward-installation/certificates/west.pem"), pem).unwrap();
    assert_eq!(desk.identity("west")["tls.crt"], old.certificate);
    desk.expect(0, &["rotate"]);
    assert_ne!(desk.identity("west")["tls.crt"], old.certificate);
}

#[test]
fn the_doctor_looks_at_what_was_made() {
    let desk = Desk::new();
    desk.init("w.example");
    desk.identity("west");
    let doctor = |directory: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leeward"));
        command.args(["doctor", "--home", "none", "--installation", directory]);
        text(&command.current_dir(desk.0.path()).output().unwrap().stdout)
    };
    let lines = doctor("leeward-installation");
    let line = |name: &str| {
        lines
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some(name))
            .unwrap()
    };
    assert!(
        line("west").starts_with("ok ") && line("authority").starts_with("ok "),
        "{lines}"
    );
    assert!(
        line("east").starts_with("warn") && lines.contains("`leeward join render east`"),
        "{lines}"
    );
    assert!(doctor("nowhere").contains("there is no installation in nowhere"));
}

#[test]
fn a_new_key_for_specifications_comes_last_first_and_stays_first() {
    let desk = Desk::new();
    desk.init("w.example");
    let keys = |cluster: &str| -> Vec<String> {
        desk.identity(cluster)["spec-0.key"]
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let old = keys("west");
    desk.expect(0, &["spec-key", "trust"]);
    let (out, _) = desk.expect(0, &["spec-key", "trust"]);
    assert!(out.contains("done already"), "{out}");
    let (_, err) = desk.expect(1, &["spec-key", "use"]);
    assert!(err.contains("east, west would be cut off"), "{err}");
    let both = keys("west");
    assert_eq!((both.len(), &both[0]), (2, &old[0]));
    let (_, err) = desk.expect(1, &["spec-key", "use"]);
    assert!(err.contains("east would be cut off"), "{err}");
    assert_eq!(keys("east"), both);
    desk.expect(0, &["spec-key", "use"]);
    desk.expect(0, &["spec-key", "use"]);
    assert_eq!(keys("west"), [both[1].as_str(), &both[0]]);
}

#[test]
fn whenever_it_is_killed_the_directory_is_usable_or_not_there() {
    let desk = Desk::new();
    let directory = desk.path("leeward-installation");
    let init = ["init", "--witness", "w.example", "--cluster", "west=127.0.0.1"];
    let kill = |arguments: &[&str], after: Duration| {
        let mut child = desk
            .command(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(after);
        let _ = child.kill();
        child.wait().unwrap().success()
    };
    // Killed at moments spread over the time that it takes.
    let moments = |arguments: &[&str]| {
        let begin = Instant::now();
        assert!(desk.run(arguments).status.success());
        let took = begin.elapsed();
        (0..16).map(move |step| took * step / 14)
    };
    let mut there = 0;
    for after in moments(&init) {
        let _ = fs::remove_dir_all(&directory);
        kill(&init, after);
        if directory.exists() {
            there += 1;
            desk.identity("west");
        }
    }
    desk.expect(0, &init);
    let left: Vec<_> = fs::read_dir(desk.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["leeward-installation"], "{there} came into being before");
    for after in moments(&["rotate", "--force"]) {
        kill(&["rotate", "--force"], after);
        about(&desk.identity("west"));
    }
    for after in moments(&["status"]) {
        kill(&["authority", "trust"], after);
        about(&desk.identity("west"));
    }
    desk.expect(0, &["authority", "trust"]);
    desk.identity("west");
    desk.expect(0, &["witness", "--out", "w"]);
    desk.expect(0, &["authority", "use"]);
}

#[test]
fn two_commands_at_a_time_do_not_change_one_directory() {
    let desk = Desk::new();
    desk.init("w.example");
    let held = fs::File::open(desk.path("leeward-installation")).unwrap();
    let held = nix::fcntl::Flock::lock(held, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let (_, err) = desk.expect(1, &["render", "west"]);
    assert!(
        err.contains("another command changes leeward-installation at this moment"),
        "{err}"
    );
    drop(held);
    desk.identity("west");
}
