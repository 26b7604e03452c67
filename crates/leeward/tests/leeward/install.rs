//! `leeward install`, run as a program: it prints all or nothing and needs no cluster for that; or it applies, to an API alone: no pod runs there.

use std::{
    path::Path,
    process::{Command, Output},
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::Api;
use leeward_api::Cluster;
use leeward_testing::Local;
use serde_json::{Value, json};

fn leeward(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_leeward"))
        .args(arguments)
        .env_clear()
        // Where no kubeconfig is found, whoever runs this.
        .env("HOME", home.path())
        .output()
        .unwrap()
}

fn install(arguments: &[&str]) -> Output {
    leeward(&[&["install"], arguments].concat())
}

/// An installation of two clusters, as `leeward join init` makes it.
fn joined(at: &Path) -> String {
    let dir = at.join("installation").to_str().unwrap().to_owned();
    let made = leeward(&[
        "join",
        "init",
        "--dir",
        &dir,
        "--witness",
        "w.example",
        "--cluster",
        "west=w1.example",
        "--cluster",
        "east=e1.example",
    ]);
    assert!(made.status.success(), "{made:?}");
    dir
}

#[test]
fn manifests_are_printed_without_a_cluster() {
    let output = install(&["--render"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert_eq!(objects, leeward_install::objects(&Default::default()).unwrap());
}

#[test]
fn each_option_is_heard() {
    for (arguments, said) in [
        (&["--namespace", "elsewhere"][..], "namespace: elsewhere"),
        (&["--image", "registry.example/a:1"], "image: registry.example/a:1"),
        (&["--image-pull-secret", "pull"], "imagePullSecrets:"),
        (&["--replicas", "3"], "replicas: 3"),
        (&["--edge-type", "NodePort"], "type: NodePort"),
        (&["--peer-type", "NodePort"], "type: NodePort"),
        (&["--data-size", "77Gi"], "sizeLimit: 77Gi"),
        (&["--memory-limit", "77Mi"], "memory: 77Mi"),
        (&["--monitoring"], "kind: ServiceMonitor"),
    ] {
        let with = String::from_utf8(install(&[&["--render"], arguments].concat()).stdout).unwrap();
        let without = String::from_utf8(install(&["--render"]).stdout).unwrap();
        assert!(with.contains(said) && !without.contains(said), "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_installed_is_said_and_nothing_is_printed() {
    for (arguments, said) in [
        (&["--render", "--namespace", "Not.A.Label"][..], "DNS label"),
        (&["--render", "--context", "west"], "--context"),
        (&["--join", "somewhere"], "--cluster"),
        (&["--cluster", "west"], "--join"),
        (&["--timeout", "soon"], "no length of time"),
        (&["--render", "--namespace", "kube-system"], "one of its own"),
        (&["--render", "--replicas", "0"], "from 1 to 9"),
        (&["--render", "--replicas", "two"], "--replicas"),
        (&["--render", "--image", ""], "names no image"),
        (&["--render", "--edge-type", "ExternalName"], "LoadBalancer"),
        (&["--render", "--data-size", "much"], "10Gi"),
        (&["--render", "west"], "unexpected argument"),
    ] {
        let output = install(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_region_s_part_is_printed_with_the_rest() {
    let at = tempfile::tempdir().unwrap();
    let dir = joined(at.path());
    let output = install(&["--render", "--join", &dir, "--cluster", "west"]);
    assert!(output.status.success(), "{output:?}");
    let all: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let bundle = leeward(&["join", "render", "west", "--dir", &dir]).stdout;
    let bundle: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8(bundle).unwrap()).unwrap();
    let same = leeward_install::objects(&Default::default()).unwrap();
    assert_eq!(all, [same, bundle].concat());
    // What users reach is at the port that the Service has.
    let ingress: Vec<_> = all
        .iter()
        .filter_map(|one| one.pointer("/spec/ingress")?.as_str())
        .collect();
    assert_eq!(ingress, ["e1.example:80", "w1.example:80"]);
}

#[test]
fn what_keeps_an_installation_from_a_cluster_is_named_and_nothing_is_applied() {
    let at = tempfile::tempdir().unwrap();
    let dir = joined(at.path());
    let file = at.path().join("kubeconfig");
    // A port of an address that nobody listens at.
    let config = json!({
        "clusters": [{"name": "c", "cluster": {"server": "https://127.77.77.77:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "there", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let file = file.to_str().unwrap();
    for (code, arguments, said) in [
        (1, &[][..], "no kubeconfig can be read: name one with --kubeconfig"),
        (1, &["--kubeconfig", "/nowhere"], "kubeconfig /nowhere"),
        (
            1,
            &["--kubeconfig", file],
            "no current context: name one with --context, of there",
        ),
        (
            1,
            &["--kubeconfig", file, "--context", "west"],
            "no context west, only there",
        ),
        (
            1,
            &["--kubeconfig", file, "--context", "there"],
            "127.77.77.77:1/) cannot be reached; nothing was applied",
        ),
        (
            1,
            &["--join", &dir, "--cluster", "north"],
            "there is no cluster north, only east, west",
        ),
        (
            1,
            &["--join", "/nowhere", "--cluster", "west"],
            "there is no installation in /nowhere",
        ),
        (
            2,
            &["--join", &dir, "--cluster", "west", "--namespace", "elsewhere"],
            "is for leeward-system",
        ),
    ] {
        let output = install(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_is_applied_and_again_and_what_its_agents_wait_for_is_said() {
    let local = Local::start().await.unwrap();
    let client = leeward_testing::client(&local.kubeconfig()).await.unwrap();
    let at = tempfile::tempdir().unwrap();
    let dir = joined(at.path());
    let kubeconfig = local.kubeconfig().to_str().unwrap().to_owned();
    let run = async |more: &[&str]| {
        let line: Vec<String> = ["install", "--kubeconfig", &kubeconfig]
            .iter()
            .chain(more)
            .map(|one| (*one).to_owned())
            .collect();
        let run = move || leeward(&line.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run).await.unwrap()
    };

    // Without its region's part nothing is waited for.
    let output = run(&["--replicas", "1"]).await;
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        out.contains("deployments/leeward applied") && out.contains("before it has its region's part"),
        "{out}"
    );

    let secrets: Api<Secret> = Api::namespaced(client.clone(), "leeward-system");
    assert!(secrets.get_opt("leeward-identity").await.unwrap().is_none());
    let mut given = vec![];
    for _ in 0..2 {
        let output = run(&[
            "--replicas",
            "1",
            "--join",
            &dir,
            "--cluster",
            "west",
            "--timeout",
            "0s",
        ])
        .await;
        let error = String::from_utf8(output.stderr.clone()).unwrap();
        // There is no node.
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("waiting for an agent: "), "{error}");
        assert!(
            error.contains("everything is applied, and no agent was ready after 0ns"),
            "{error}"
        );
        given.push(secrets.get("leeward-identity").await.unwrap().data);
    }
    assert_eq!(given[0], given[1]);
    let clusters: Api<Cluster> = Api::all(client.clone());
    assert_eq!(clusters.get("east").await.unwrap().spec.ingress, "e1.example:80");
    let status = leeward(&["join", "status", "--dir", &dir]);
    let status = String::from_utf8(status.stdout).unwrap();
    let west = status.lines().find(|line| line.contains("west")).unwrap();
    assert!(west.contains("as it is"), "{status}");

    the_doctor_looks(&kubeconfig).await;
    kubectl_finds_it(at.path(), &kubeconfig).await;

    // What somebody changed is as the options say again, and the rest is left alone.
    let deployments: Api<Deployment> = Api::namespaced(client, "leeward-system");
    let changed = json!({"metadata": {"annotations": {"theirs": "kept"}}, "spec": {"replicas": 3}});
    let patch = kube::api::Patch::Merge(changed);
    deployments.patch("leeward", &Default::default(), &patch).await.unwrap();
    run(&["--replicas", "2", "--timeout", "0s"]).await;
    let now = deployments.get("leeward").await.unwrap();
    assert_eq!(now.spec.unwrap().replicas, Some(2));
    assert_eq!(now.metadata.annotations.unwrap()["theirs"], "kept");
}

/// The doctor names what is well and what is not, of an installation of which no agent runs.
async fn the_doctor_looks(kubeconfig: &str) {
    let line = ["doctor", "--kubeconfig", kubeconfig].map(str::to_owned);
    let looked = move || leeward(&line.each_ref().map(String::as_str));
    let output = tokio::task::spawn_blocking(looked).await.unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    for (level, says) in [
        ("ok", "Kubernetes"),
        ("ok", "agrees with the clock here"),
        ("ok", "the definition is the one that this program knows"),
        ("ok", "every kind that agents use is served"),
        ("ok", "the agents have all "),
        ("fail", "0 of 1 are ready: "),
        ("ok", "and this program is"),
        ("fail", "leads to no agent that is ready"),
        ("ok", "it trusts the authority of the agents' certificates"),
        ("fail", "no agent has said anything of it"),
        ("warn", "e1.example:7443 is not reached from here"),
        ("warn", "w1.example:80 is not reached from here"),
        ("warn", "w.example:7443 is not reached from here"),
    ] {
        let one = lines.iter().find(|line| line.contains(says));
        let one = one.unwrap_or_else(|| panic!("nothing says {says:?}: {out}"));
        assert!(one.starts_with(level), "{one}");
    }
    // Nothing of this machine is among it.
    assert!(!out.contains("loopback"), "{out}");
}

/// Under the name of a plugin it asks the cluster that kubectl would ask, and calls itself as it was called.
async fn kubectl_finds_it(at: &Path, kubeconfig: &str) {
    let plugin = at.join("kubectl-leeward");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_leeward"), &plugin).unwrap();
    let run = async |arguments: &'static [&'static str]| {
        let mut command = Command::new(&plugin);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", at)
            .env("KUBECONFIG", kubeconfig);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, _) = run(&["help", "status"]).await;
    assert!(
        code == Some(0) && out.contains("Usage: kubectl leeward status "),
        "{out}"
    );
    let (code, _, err) = run(&["status", "--no-such"]).await;
    assert!(
        code == Some(2) && err.contains("Usage: kubectl leeward status "),
        "{err}"
    );
    let (code, out, err) = run(&["status"]).await;
    assert!(
        code == Some(0) && out.contains("east") && out.contains("west"),
        "{out}{err}"
    );
    let (code, _, err) = run(&["status", "-n", "shop"]).await;
    assert_eq!(code, Some(0), "{err}");
    let (code, _, err) = run(&["status", "--context", "elsewhere"]).await;
    assert!(code == Some(1) && err.contains("no context elsewhere"), "{err}");
    let (_, out, _) = run(&["doctor"]).await;
    assert!(out.contains("every kind that agents use is served"), "{out}");
    // A directory that is named means local regions, here as elsewhere.
    let (code, _, err) = run(&["status", "--home", "none"]).await;
    assert!(code == Some(1) && err.contains("leeward up"), "{err}");
}
