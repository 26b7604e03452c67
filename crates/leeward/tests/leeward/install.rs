//! `leeward install`, run as a program: it needs no cluster, and prints all or nothing.

use std::process::{Command, Output};

use serde_json::Value;

fn install(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leeward"))
        .arg("install")
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
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
        (&[][..], "leeward install --render | kubectl apply --server-side -f -"),
        (&["--render", "--namespace", "Not.A.Label"], "DNS label"),
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
