use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T01:00:00Z";

/// The cells of one object by their columns' names.
fn cells(table: &Value) -> Value {
    let names = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap());
    let cells = table["rows"][0]["cells"].as_array().unwrap().iter().cloned();
    names
        .map(str::to_owned)
        .zip(cells)
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn pod(spec: Value, status: Value) -> Value {
    let metadata = json!({"name": "p", "creationTimestamp": "2026-01-01T00:54:50Z"});
    json!({"metadata": metadata, "spec": spec, "status": status})
}

#[test]
fn a_pods_row_shows_readiness_state_restarts_and_age() {
    let running = pod(
        json!({"nodeName": "node-0", "containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"phase": "Running", "podIPs": [{"ip": "127.1.17.2"}], "containerStatuses": [
            {"ready": true, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:59:00Z"}}},
            {"ready": false, "restartCount": 1, "state": {"running": {}}}]}),
    );
    let cells = cells(&builtin("Pod", [running], NOW));
    for (name, expected) in [
        ("Name", "p"),
        ("Ready", "1/2"),
        ("Status", "Running"),
        ("Restarts", "3 (60s ago)"),
        ("Age", "5m10s"),
        ("IP", "127.1.17.2"),
        ("Node", "node-0"),
    ] {
        assert_eq!(cells[name], expected, "{name}");
    }
}

#[test]
fn a_pods_status_is_what_keeps_it_from_running() {
    let containers = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
    let mut leaving = pod(containers.clone(), json!({"phase": "Running"}));
    leaving["metadata"]["deletionTimestamp"] = json!(NOW);
    let cases = [
        (pod(containers.clone(), json!({"phase": "Pending"})), "Pending"),
        (
            pod(containers.clone(), json!({"phase": "Failed", "reason": "Evicted"})),
            "Evicted",
        ),
        (
            pod(
                containers.clone(),
                json!({"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            ),
            "CrashLoopBackOff",
        ),
        (
            pod(
                containers.clone(),
                json!({"containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            ),
            "ExitCode:3",
        ),
        (
            pod(
                containers.clone(),
                json!({"initContainerStatuses": [{"state": {"running": {}}}]}),
            ),
            "Init:0/1",
        ),
        (
            pod(
                containers,
                json!({"initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
            ),
            "Init:ImagePullBackOff",
        ),
        (leaving, "Terminating"),
    ];
    for (pod, expected) in cases {
        assert_eq!(cells(&builtin("Pod", [pod.clone()], NOW))["Status"], expected, "{pod}");
    }
}

#[test]
fn workloads_services_and_claims_show_their_usual_columns() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]}});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "template": template,
        "selector": {"matchLabels": {"app": "web"}}}, "status": {"readyReplicas": 2, "updatedReplicas": 3}});
    let shown = cells(&builtin("Deployment", [deployment], NOW));
    assert_eq!(shown["Ready"], "2/3");
    assert_eq!(shown["Up-to-date"], 3);
    assert_eq!(shown["Available"], 0);
    assert_eq!(shown["Images"], "x:1,y:1");
    assert_eq!(shown["Selector"], "app=web");
    let service = json!({"spec": {"type": "ClusterIP", "clusterIP": "127.1.24.1",
        "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30053}]}});
    let shown = cells(&builtin("Service", [service], NOW));
    assert_eq!(shown["Port(s)"], "80/TCP,53:30053/UDP");
    assert_eq!(shown["External-IP"], "<none>");
    let claim = json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}});
    let shown = cells(&builtin("PersistentVolumeClaim", [claim], NOW));
    assert_eq!(
        (&shown["Access Modes"], &shown["Capacity"]),
        (&json!("RWO"), &json!("1Gi"))
    );
}

#[test]
fn a_custom_resources_columns_follow_its_definition() {
    let columns = [
        json!({"name": "Model", "type": "string", "jsonPath": ".spec.model"}),
        json!({"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}),
        json!({"name": "Epoch", "type": "integer", "jsonPath": ".status.epoch", "priority": 1}),
        json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
    ];
    let object = json!({"metadata": {"name": "shop", "creationTimestamp": "2026-01-01T00:59:30Z"},
        "spec": {"model": "ActivePassive"}, "status": {"epoch": 4, "conditions": [{"type": "Ready", "status": "True"}]}});
    let table = crd(&columns, &[object, json!({"metadata": {"name": "new"}})], NOW);
    assert_eq!(
        table["rows"][0]["cells"],
        json!(["shop", "ActivePassive", "True", 4, "30s"])
    );
    assert_eq!(table["rows"][1]["cells"], json!(["new", null, null, null, null]));
    assert_eq!(table["columnDefinitions"][3]["priority"], 1);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[test]
fn every_built_in_kind_has_a_table_even_of_an_empty_object() {
    for kind in crate::machinery::kinds::builtin() {
        let table = builtin(&kind.kind, [json!({})], NOW);
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        assert_eq!(
            table["rows"][0]["cells"].as_array().unwrap().len(),
            columns,
            "{}",
            kind.kind
        );
    }
}
