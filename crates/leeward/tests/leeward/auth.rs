//! etcd that asks who speaks to it, set up by the commands that `leeward quorum auth` prints: an agent can do all that it must, by its certificate
//! alone, and nobody else anything.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use leeward_controller::{config, quorum::settings};
use leeward_local::instance::Instance;
use leeward_quorum::{
    Error, Store as _, Txn,
    etcd::{self, Etcd},
    key,
};

use crate::{
    commands::{Home, PATIENCE, SHOP, push_shell},
    recover::is_there,
};

const PASSWORD: &str = "correct-horse";

/// How west's agent reaches the members.
fn of_agent(instance: &Instance) -> etcd::Config {
    let serve: config::Serve = config::read(&instance.layout().config(Some("west"), "serve")).unwrap();
    let config::Quorum::Etcd(etcd) = &serve.quorum else {
        panic!("{:?}", serve.quorum)
    };
    settings(etcd, &serve, PATIENCE).unwrap()
}

/// The same with the certificate of somebody else in a directory.
fn as_other(config: &etcd::Config, pki: &std::path::Path, name: &str) -> Etcd {
    let mut config = config.clone();
    let read = |end: &str| std::fs::read(pki.join(format!("{name}.{end}"))).unwrap();
    config.tls.as_mut().unwrap().identity = Some((read("crt"), read("key")));
    Etcd::new(config).unwrap()
}

/// Runs the commands, as root where that is said; whether they succeeded, and what they wrote to standard error.
fn sh(script: &str, instance: &Instance, root: bool) -> (bool, String) {
    let pki = instance.layout().witness().join("pki");
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("ETCDCTL_API", "3");
    command.env("ETCDCTL_ENDPOINTS", of_agent(instance).endpoints.join(","));
    for (name, file) in [("CACERT", "peer-ca.crt"), ("CERT", "peer.crt"), ("KEY", "peer.key")] {
        command.env(format!("ETCDCTL_{name}"), pki.join(file));
    }
    // By itself it waits for seconds only, which a busy machine may take.
    for limit in ["DIAL_TIMEOUT", "COMMAND_TIMEOUT"] {
        command.env(format!("ETCDCTL_{limit}"), format!("{}s", PATIENCE.as_secs()));
    }
    if root {
        command.env("ETCDCTL_USER", "root").env("ETCDCTL_PASSWORD", PASSWORD);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // etcdctl asks twice, and only for root.
    let _ = write!(input, "{PASSWORD}\n{PASSWORD}\n");
    drop(input);
    let output = child.wait_with_output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Error>, what: &str) {
    assert!(matches!(answer, Err(Error::Refused(_))), "{what}: {answer:?}");
}

async fn who_may_do_what(instance: &Instance) {
    let config = of_agent(instance);
    let west = Etcd::new(config.clone()).unwrap();
    let all = west.changes(0, Duration::ZERO).await.unwrap();
    let begun = Txn::default().expect(key::INCARNATION, 0).read(key::INCARNATION);
    assert!(west.txn(begun).await.unwrap().applied);
    for below in key::WRITTEN_BELOW {
        let name = format!("{below}no/such/application");
        assert!(
            west.txn(Txn::default().put(&name, &1).unwrap()).await.unwrap().applied,
            "{name}"
        );
        assert!(west.txn(Txn::default().delete(&name)).await.unwrap().applied, "{name}");
    }
    let changes = west.changes(all.revision, Duration::from_secs(5)).await.unwrap();
    assert!(!changes.entries.is_empty());
    refused(
        west.txn(Txn::default().put(key::INCARNATION, &1).unwrap()).await,
        "an incarnation",
    );
    for prefix in ["other/", "leewards/"] {
        let other = Etcd::new(etcd::Config {
            prefix: prefix.to_owned(),
            ..config.clone()
        });
        let other = other.unwrap();
        refused(other.txn(Txn::default().put("lease/west", &1).unwrap()).await, prefix);
        refused(other.changes(0, Duration::ZERO).await, prefix);
    }
    let pki = |name: Option<&str>| {
        name.map_or(instance.layout().witness(), |name| instance.layout().region(name))
            .join("pki")
    };
    let witness = as_other(&config, &pki(None), "peer");
    refused(witness.changes(0, Duration::ZERO).await, "the witness reads");
    refused(
        witness.txn(Txn::default().put("lease/west", &1).unwrap()).await,
        "the witness writes",
    );
    // A region that was given no user: it is a stranger.
    let stranger = as_other(&config, &pki(Some("north")), "peer");
    refused(stranger.changes(0, Duration::ZERO).await, "a stranger reads");
    refused(
        stranger.txn(Txn::default().put("leader", &1).unwrap()).await,
        "a stranger writes",
    );
}

#[test]
fn agents_can_do_what_they_must_and_nobody_else_anything() {
    if !is_there(&["etcd"]) || !is_there(&["etcdctl"]) {
        return;
    }
    let home = Home::new();
    home.expect(
        0,
        &[
            "up",
            "--quorum",
            "etcd",
            "--ttl",
            "3",
            "--nodes",
            "1",
            "--regions",
            "west,east,north",
        ],
    );
    let instance = home.instance();
    let (script, _) = home.expect(0, &["quorum", "auth", "--regions", "west,east"]);
    let (done, err) = sh(&script, &instance, false);
    assert!(done, "{err}");
    // Again: nobody without a role can, and for root nothing changes.
    let (done, err) = sh(&script, &instance, false);
    assert!(!done && err.contains("etcdserver:"), "{err}");
    let (done, err) = sh(&script, &instance, true);
    assert!(done, "{err}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(who_may_do_what(&instance));
    let (out, _) = home.expect(0, &["quorum", "status"]);
    assert!(out.contains("4 members"), "{out}");

    // The agents accept, lead, hand over, and seal the lease of a region that is lost.
    push_shell(instance.addresses("west").unwrap().registry());
    let manifest = home.0.path().join("shop.yaml");
    std::fs::write(&manifest, SHOP).unwrap();
    home.expect(0, &["apply", "-f", manifest.to_str().unwrap()]);
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));
    home.expect(0, &["switchover", "shop", "--to", "east"]);
    let (lost, epoch) = active(&home.until(&["explain", "shop"], |out| out.contains("It is protected"))).unwrap();
    let left = if lost == "east" { "west" } else { "east" };
    instance.kill_region(&lost).unwrap();
    home.until(&["explain", "shop"], |out| {
        // Of four members one went with the region, and three are the majority: that is all that may still be missing.
        let mut others = out
            .lines()
            .filter(|line| line.starts_with("  2. ") || line.starts_with("  3. "));
        active(out).is_some_and(|(active, now)| active == left && now > epoch)
            && others.all(|line| line.starts_with("  2. 3 of the 4 members of the quorum answer"))
    });
}

/// The region that is active, and its epoch, as `leeward explain` says it.
fn active(explained: &str) -> Option<(String, u64)> {
    let (region, rest) = explained.split_once("): ")?.1.split_once(" is active, epoch ")?;
    Some((region.to_owned(), rest.split(',').next()?.parse().ok()?))
}
