//! Resources for the tests of what commands make of them.

use jiff::Timestamp;
use leeward_api::{Cluster, Operation, ProtectedApp};
use serde_json::json;

/// A second after the beginning of these tests' time.
pub(crate) fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(crate) fn condition(type_: &str, status: bool, reason: &str) -> serde_json::Value {
    json!({
        "type": type_, "status": if status { "True" } else { "False" }, "reason": reason, "message": "it is so",
        "lastTransitionTime": time(1).to_string(),
    })
}

pub(crate) fn cluster(name: &str, lease: &str, ready: bool) -> Cluster {
    serde_json::from_value(json!({
        "apiVersion": "leeward.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": name},
        "spec": {"region": name, "ingress": "127.1.0.3:8080", "registry": "127.1.0.2:5000", "peer": "127.1.0.4:7443"},
        "status": {"lease": lease, "conditions": [condition("Ready", ready, "Because")]},
    }))
    .unwrap()
}

/// An application in plan `plan`; the cluster that is not active lacks things while it waits for something.
pub(crate) fn shop(plan: u64, active: &str, waiting_for: &[&str]) -> ProtectedApp {
    let placement = |cluster: &str| match (cluster == active, waiting_for.is_empty()) {
        (true, _) => json!({"cluster": cluster, "state": "Active", "ready": true}),
        (false, true) => json!({"cluster": cluster, "state": "Standby", "ready": true, "lag": "1s"}),
        (false, false) => json!({
            "cluster": cluster, "state": "Standby", "ready": false, "lag": "2s", "lastPoint": time(3).to_string(),
            "missing": ["its configuration", "an image"], "kept": { "files": 3, "bytes": 120, "from": "2026-01-01T00:00:03Z", "to": "2026-01-01T00:00:05Z", "path": "/kept" },
        }),
    };
    serde_json::from_value(json!({
        "apiVersion": "leeward.dev/v1alpha1", "kind": "ProtectedApp", "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {
            "model": "ActivePassive", "selector": {"matchLabels": {"app": "shop"}},
            "placements": [{"cluster": "west"}, {"cluster": "east"}],
            "objectives": {"rpo": "3s", "rto": "30s"},
            "roles": [{"name": "data", "claims": ["data"], "interval": "1s"}],
        },
        "status": {
            "active": active, "epoch": 2, "generation": plan, "waitingFor": waiting_for,
            "placements": [placement("west"), placement("east")], "lastRpo": "900ms", "lastRto": "3.4s",
            "conditions": [condition("Protected", waiting_for.is_empty(), "Waiting")],
        },
    }))
    .unwrap()
}

pub(crate) fn operation(name: &str, phase: &str, epoch: u64) -> Operation {
    serde_json::from_value(json!({
        "apiVersion": "leeward.dev/v1alpha1", "kind": "Operation",
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {"type": "Failover", "app": "shop", "to": "east"},
        "status": {
            "phase": phase, "message": "east is active", "epoch": epoch,
            "started": "2027-01-15T08:00:04.000000Z", "ended": "2027-01-15T08:00:06.500000Z",
        },
    }))
    .unwrap()
}
