mod manifests;
mod refused;
mod reviews;

use super::*;
use leeward_api::gate::{APP, AROUND, CONTAINER, PORTS, ROLES};
use serde_json::json;

const IMAGE: &str = "registry.example/leeward:1";

fn entry(image: &str) -> Option<Entry> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match image {
        "known:1" => Some(Entry {
            entrypoint: words(&["/bin/db", "$HOME", "$(X)"]),
            cmd: words(&["serve"]),
        }),
        "empty:1" => Some(Entry::default()),
        _ => None,
    }
}

fn with() -> With<'static> {
    With {
        image: IMAGE,
        entry: &entry,
    }
}

/// A template that lacks nothing.
fn template() -> Value {
    json!({
        "metadata": {
            "labels": { "app": "shop" },
            "annotations": { APP: "shop", ROLES: "data", PORTS: "http:8080=8081", "other.example/kept": "yes" },
        },
        "spec": {
            "containers": [{
                "name": "shop", "image": "shop:1", "command": ["/shop"], "args": ["--listen", "127.0.0.1:8081"],
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "shop-data" } }],
            "unknownToUs": { "kept": true },
        },
    })
}

/// A template with one change: what stands at a pointer. A list can be lengthened at its end.
fn changed(changes: &[(&str, Value)]) -> Value {
    let mut template = template();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let name = name.replace("~1", "/");
        match template.pointer_mut(parent).unwrap() {
            Value::Array(list) if name == "-" => list.push(value.clone()),
            parent if value.is_null() => drop(parent.as_object_mut().unwrap().remove(&name)),
            parent => parent[name] = value.clone(),
        }
    }
    template
}

fn placed(template: &Value) -> Value {
    match behind(template, &with()).unwrap() {
        Outcome::Behind(placed) => placed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_writer_comes_out_behind_its_gate_and_the_rest_as_it_was() {
    let mut expected = template();
    let spec = &mut expected["spec"];
    spec["initContainers"] = json!([{
        "name": "leeward-gate", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
        "args": ["gate", "--install", "/var/run/leeward/bin"],
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{ "name": "leeward-gate-program", "mountPath": "/var/run/leeward/bin" }],
    }]);
    let volumes = spec["volumes"].as_array_mut().unwrap();
    volumes.push(json!({ "name": "leeward-gate", "secret": { "secretName": "leeward-shop-gate", "optional": false } }));
    volumes.push(json!({ "name": "leeward-gate-program", "emptyDir": {} }));
    let container = &mut spec["containers"][0];
    container["command"] = json!(["/var/run/leeward/bin/leeward-gate"]);
    container["args"] = json!([
        "--role",
        "$(POD_NAMESPACE)/shop/data",
        "--port",
        "http:8080=8081",
        "--",
        "/shop",
        "--listen",
        "127.0.0.1:8081",
    ]);
    container["env"] = json!([
        { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        { "name": "POD_UID", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } },
        { "name": "POD_NAMESPACE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } },
    ]);
    let mounts = container["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({ "name": "leeward-gate", "mountPath": "/var/run/leeward/gate", "readOnly": true }));
    mounts.push(json!({ "name": "leeward-gate-program", "mountPath": "/var/run/leeward/bin", "readOnly": true }));
    assert_eq!(placed(&template()), expected);
}

#[test]
fn what_the_gate_is_told_is_read_by_the_gate() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: leeward_gate::Arguments,
    }
    let probe = json!({ "httpGet": { "path": "/", "port": 8080 } });
    let template = changed(&[
        ("/metadata/annotations/leeward.dev~1gate-roles", json!("data, logs")),
        (
            "/metadata/annotations/leeward.dev~1gate-ports",
            json!("http:8080=8080, 5432=127.0.0.2:5433"),
        ),
        ("/spec/containers/0/livenessProbe", probe),
    ]);
    let container = &placed(&template)["spec"]["containers"][0];
    let words = container["command"]
        .as_array()
        .unwrap()
        .iter()
        .chain(container["args"].as_array().unwrap());
    let words = words.map(|word| word.as_str().unwrap().replace("$(POD_NAMESPACE)", "store"));
    let mut line: Vec<String> = words.collect();
    // From the environment, in a pod.
    line.splice(1..1, ["--pod=u".to_owned(), "--ip=10.0.0.7".to_owned()]);
    let read = <Cli as clap::Parser>::try_parse_from(line).unwrap().arguments;
    let roles: Vec<_> = read.roles.iter().map(ToString::to_string).collect();
    assert_eq!(roles, ["store/shop/data", "store/shop/logs"]);
    let ports: Vec<_> = read
        .ports
        .iter()
        .map(|port| {
            format!(
                "{:?} {} {}",
                port.protocol,
                port.listen.at(read.ip).unwrap(),
                port.writer
            )
        })
        .collect();
    assert_eq!(
        ports,
        [
            "Http 10.0.0.7:8080 127.0.0.1:8080",
            "Tcp 10.0.0.7:5432 127.0.0.2:5433",
            "Live 10.0.0.7:17445 127.0.0.1:8080"
        ]
    );
    assert_eq!(read.command, ["/shop", "--listen", "127.0.0.1:8081"]);
}

#[test]
fn brought_in_twice_is_brought_in_once() {
    let once = placed(&template());
    assert_eq!(behind(&once, &with()), Ok(Outcome::Already));
    for command in [json!(["/leeward-gate"]), json!(["/usr/bin/leeward", "gate"])] {
        let by_hand = changed(&[("/spec/containers/0/command", command)]);
        assert_eq!(behind(&by_hand, &with()), Ok(Outcome::Already));
    }
    for command in [
        json!(["/usr/bin/leeward", "sample"]),
        json!(["gate"]),
        json!(["/bin/sh", "leeward-gate"]),
    ] {
        placed(&changed(&[("/spec/containers/0/command", command)]));
    }
}

#[test]
fn a_pod_that_does_not_ask_for_a_gate_is_left_alone() {
    for annotations in [Value::Null, json!({}), json!({ "leeward.dev/replicas": "1" })] {
        let template = json!({ "metadata": { "annotations": annotations }, "spec": { "hostNetwork": true } });
        assert_eq!(behind(&template, &with()), Ok(Outcome::NotWanted));
    }
}

#[test]
fn a_container_without_a_command_runs_what_its_image_runs() {
    let gate = 5;
    let command = |changes: &[(&str, Value)]| {
        let placed = placed(&changed(changes));
        placed["spec"]["containers"][0]["args"].as_array().unwrap()[gate..].to_vec()
    };
    let known = ("/spec/containers/0/image", json!("known:1"));
    let (no_command, no_args) = (
        ("/spec/containers/0/command", Value::Null),
        ("/spec/containers/0/args", Value::Null),
    );
    // What is in an image is not replaced by the kubelet, and so must not become so.
    let own = command(&[known.clone(), no_command.clone(), no_args.clone()]);
    assert_eq!(own, ["/bin/db", "$$HOME", "$$(X)", "serve"]);
    let with_args = command(&[known, no_command, ("/spec/containers/0/args", json!(["$(X)"]))]);
    assert_eq!(with_args, ["/bin/db", "$$HOME", "$$(X)", "$(X)"]);
    assert_eq!(command(&[no_args]), ["/shop"]);
}

#[test]
fn nothing_is_asked_for_besides_what_the_writer_asks_for_and_no_right() {
    let resources = json!({
        "requests": { "cpu": "100m", "memory": "64Mi", "example.com/gpu": "1" },
        "limits": { "memory": "128Mi", "hugepages-2Mi": "4Mi" }, "claims": [{ "name": "gpu" }],
    });
    let as_root = json!({ "runAsUser": 0 });
    let placed = placed(&changed(&[
        ("/spec/containers/0/resources", resources),
        ("/spec/securityContext", as_root.clone()),
    ]));
    let init = &placed["spec"]["initContainers"][0];
    let own = json!({ "requests": { "cpu": "100m", "memory": "64Mi" }, "limits": { "memory": "128Mi" } });
    assert_eq!(init["resources"], own);
    assert_eq!(init["securityContext"]["runAsUser"], 65532);
    assert_eq!(placed["spec"]["securityContext"], as_root);
}

#[test]
fn the_environment_that_a_pod_has_already_is_not_doubled() {
    let uid = json!({ "name": "POD_UID", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } });
    let placed = placed(&changed(&[(
        "/spec/containers/0/env",
        json!([uid, { "name": "A", "value": "b" }]),
    )]));
    let names = placed["spec"]["containers"][0]["env"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["POD_UID", "A", "POD_IP", "POD_NAMESPACE"]);
}

#[test]
fn a_writer_that_is_held_is_alive_to_the_kubelet_and_not_ready() {
    let at = |port: Value| json!({ "httpGet": { "path": "/healthz", "port": port }, "periodSeconds": 3 });
    let placed = placed(&changed(&[
        ("/spec/containers/0/livenessProbe", at(json!("http"))),
        ("/spec/containers/0/startupProbe", at(json!(8080))),
        ("/spec/containers/0/readinessProbe", at(json!("http"))),
        (
            "/spec/containers/-",
            json!({
                "name": "metrics", "ports": [{ "containerPort": 17445 }], "livenessProbe": { "exec": { "command": ["x"] } },
            }),
        ),
        ("/metadata/annotations/leeward.dev~1gate-container", json!("shop")),
        ("/metadata/annotations/leeward.dev~1gate-around", json!("metrics")),
    ]));
    let container = &placed["spec"]["containers"][0];
    // 17445 is somebody else's.
    assert_eq!(container["livenessProbe"], at(json!(17446)));
    assert_eq!(container["startupProbe"], at(json!(17446)));
    assert_eq!(container["readinessProbe"], at(json!("http")));
    let arguments = container["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("live:17446=127.0.0.1:8081")), "{arguments:?}");
}

#[test]
fn a_probe_that_the_gate_itself_answers_stays_as_it_is() {
    let tcp = json!({ "tcpSocket": { "port": "http" } });
    let elsewhere = json!({ "httpGet": { "host": "10.0.0.1", "port": 80 } });
    let exec = json!({ "exec": { "command": ["/ready"] } });
    let placed = placed(&changed(&[
        ("/spec/containers/0/livenessProbe", tcp.clone()),
        ("/spec/containers/0/startupProbe", elsewhere.clone()),
        ("/spec/containers/0/readinessProbe", exec.clone()),
    ]));
    let container = &placed["spec"]["containers"][0];
    assert_eq!(
        [
            &container["livenessProbe"],
            &container["startupProbe"],
            &container["readinessProbe"]
        ],
        [&tcp, &elsewhere, &exec]
    );
    assert_eq!(container["args"].as_array().unwrap().len(), 8);
}

#[test]
fn what_is_known_to_be_around_the_gate_is_let_be() {
    let reads = json!({
        "name": "backup", "ports": [{ "containerPort": 1 }],
        "volumeMounts": [{ "name": "data", "mountPath": "/d", "readOnly": true }],
    });
    let writes = json!({ "name": "chown", "volumeMounts": [{ "name": "data", "mountPath": "/d" }] });
    let scratch = json!({ "name": "scratch", "emptyDir": {} });
    placed(&changed(&[
        (
            "/metadata/annotations/leeward.dev~1gate-around",
            json!("9090, 1, chown, 53"),
        ),
        ("/metadata/annotations/leeward.dev~1gate-container", json!("shop")),
        (
            "/spec/containers/0/ports",
            json!([{ "containerPort": 9090 }, { "containerPort": 53, "protocol": "UDP" }]),
        ),
        ("/spec/containers/-", reads),
        ("/spec/initContainers", json!([writes])),
        ("/spec/volumes/-", scratch),
    ]));
}
