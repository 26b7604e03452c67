use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::controllers::samples::{now, object_of, pod};

fn node(name: &str, extra: Value) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "uid": name, "resourceVersion": "1", "labels": {"zone": name}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "1", "memory": "1Gi", "pods": "3"}},
    });
    json_patch::merge(&mut node, &extra);
    object_of(node)
}

fn pending(name: &str, extra: Value) -> Pod {
    let mut pending = value(&pod(name, "set"));
    json_patch::merge(&mut pending, &json!({"spec": {"nodeName": null}}));
    json_patch::merge(&mut pending, &extra);
    object_of(pending)
}

fn planned(nodes: &[Node], pods: &[Pod]) -> Vec<Action> {
    let mut region = Region::default();
    for node in nodes {
        region.nodes.wrote(node.clone(), Instant::now());
    }
    for (pod, version) in pods.iter().zip(2..) {
        let mut pod = pod.clone();
        pod.metadata.resource_version = Some(version.to_string());
        region.pods.wrote(pod, Instant::now());
    }
    plan(&region, now())
}

fn bound(actions: &[Action]) -> Vec<(&str, &str)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Bind { pod, node } => Some((pod.name.as_str(), node.as_str())),
            _ => None,
        })
        .collect()
}

#[test]
fn pods_of_one_owner_are_spread() {
    let nodes = [node("n0", json!({})), node("n1", json!({}))];
    let pods = [
        pod("there", "set"),
        pending("a", json!({})),
        pending("b", json!({})),
        pending("c", json!({})),
    ];
    assert_eq!(bound(&planned(&nodes, &pods)), [("a", "n1"), ("b", "n0"), ("c", "n1")]);
}

#[test]
fn a_node_that_does_not_fit_is_passed_over() {
    let cases = [
        (
            json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            json!({}),
        ),
        (json!({"spec": {"unschedulable": true}}), json!({})),
        (
            json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
            json!({}),
        ),
        (json!({"status": {"allocatable": {"pods": "0"}}}), json!({})),
        (json!({}), json!({"spec": {"nodeSelector": {"zone": "n1"}}})),
        (
            json!({"status": {"allocatable": {"memory": "1Mi"}}}),
            json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"memory": "2Mi"}}}]}}),
        ),
        (
            json!({}),
            json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["n0"]}]},
            ]}}}}}),
        ),
    ];
    for (unfit, wish) in cases {
        let nodes = [node("n0", unfit.clone()), node("n1", json!({}))];
        let actions = planned(&nodes, &[pending("a", wish.clone())]);
        assert_eq!(bound(&actions), [("a", "n1")], "{unfit} {wish}");
        let actions = planned(&nodes[..1], &[pending("a", wish.clone())]);
        assert_eq!(bound(&actions), [], "{unfit} {wish}");
        assert!(
            matches!(
                &actions[..],
                [
                    Action::Patch { .. },
                    Action::Tell {
                        news: News {
                            reason: "FailedScheduling",
                            ..
                        },
                        ..
                    }
                ]
            ),
            "{actions:?}"
        );
    }
}

#[test]
fn a_tolerated_taint_is_no_hindrance() {
    let nodes = [node(
        "n0",
        json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
    )];
    for toleration in [
        json!({"key": "k", "operator": "Exists"}),
        json!({"key": "k", "value": "v", "effect": "NoSchedule"}),
        json!({"operator": "Exists"}),
    ] {
        let pods = [pending("a", json!({"spec": {"tolerations": [toleration]}}))];
        assert_eq!(bound(&planned(&nodes, &pods)), [("a", "n0")]);
    }
}

#[test]
fn a_node_that_asks_to_be_passed_over_is_taken_only_where_there_is_no_other() {
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    let nodes = [node("n0", taint), node("n1", json!({}))];
    let pods = [pending("a", json!({})), pending("b", json!({}))];
    assert_eq!(bound(&planned(&nodes, &pods)), [("a", "n1"), ("b", "n1")]);
    assert_eq!(bound(&planned(&nodes[..1], &pods[..1])), [("a", "n0")]);
}

#[test]
fn a_refusal_counts_the_nodes_for_each_reason() {
    let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let nodes = [
        node("n0", tainted.clone()),
        node("n1", json!({"status": {"allocatable": {"pods": "0"}}})),
        node("n2", tainted),
    ];
    let actions = planned(&nodes, &[pending("a", json!({}))]);
    let [_, Action::Tell { news, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    let message = "0/3 nodes are available: 1 Too many pods, 2 node(s) had untolerated taint(s).";
    assert_eq!(news.message, message);
}

#[test]
fn the_same_refusal_is_told_once() {
    let mut waiting = pending("a", json!({}));
    let actions = planned(&[], &[waiting.clone()]);
    let [Action::Patch { patch, .. }, Action::Tell { news, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(news.message, "no nodes available to schedule pods");
    assert_eq!(patch["status"]["phase"], Value::Null, "the phase is the node's");
    waiting.status = Some(object_of(patch["status"].clone()));
    assert_eq!(planned(&[], &[waiting]), []);
}

#[test]
fn a_pod_waits_for_its_claims() {
    let mut waiting = pending(
        "a",
        json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
    );
    waiting.metadata.resource_version = Some("2".to_owned());
    let mut region = Region::default();
    region.nodes.wrote(node("n0", json!({})), Instant::now());
    region.pods.wrote(waiting, Instant::now());
    assert!(matches!(
        &plan(&region, now())[..],
        [Action::Patch { .. }, Action::Tell { .. }]
    ));
    let claim = |phase: &str, version: &str| {
        object_of(json!({
            "metadata": {"name": "data", "namespace": "shop", "uid": "u", "resourceVersion": version}, "status": {"phase": phase},
        }))
    };
    region.claims.wrote(claim("Pending", "3"), Instant::now());
    assert_eq!(plan(&region, now()), []);
    region.claims.wrote(claim("Bound", "4"), Instant::now());
    assert_eq!(bound(&plan(&region, now())), [("a", "n0")]);
}

#[test]
fn a_volume_for_one_node_keeps_its_pods_on_the_node_that_has_it() {
    let volume = json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
    // It should be gone, but nobody has seen it end.
    let mut writer = value(&pod("old", "set"));
    json_patch::merge(&mut writer, &volume);
    json_patch::merge(
        &mut writer,
        &json!({"spec": {"nodeName": "n0"}, "metadata": {"resourceVersion": "2", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    let mut next = pending("next", volume);
    next.metadata.resource_version = Some("3".to_owned());
    let plan_with = |mode: &str, writer: Option<&Value>, first: &Node| {
        let mut region = Region::default();
        region.nodes.wrote(first.clone(), Instant::now());
        region.nodes.wrote(node("n1", json!({})), Instant::now());
        region.claims.wrote(
            object_of(json!({
                "metadata": {"name": "data", "namespace": "shop", "uid": "u", "resourceVersion": "4"},
                "spec": {"accessModes": [mode]}, "status": {"phase": "Bound"},
            })),
            Instant::now(),
        );
        region.pods.wrote(next.clone(), Instant::now());
        if let Some(writer) = writer {
            region.pods.wrote(object_of(writer.clone()), Instant::now());
        }
        plan(&region, now())
    };
    let (well, ill) = (
        node("n0", json!({})),
        node("n0", json!({"spec": {"unschedulable": true}})),
    );
    let mode = "ReadWriteOnce";
    assert_eq!(bound(&plan_with(mode, Some(&writer), &well)), [("next", "n0")]);
    assert_eq!(bound(&plan_with(mode, Some(&writer), &ill)), []);
    assert_eq!(bound(&plan_with(mode, None, &ill)), [("next", "n1")]);
    assert_eq!(
        bound(&plan_with("ReadWriteMany", Some(&writer), &ill)),
        [("next", "n1")]
    );
}
