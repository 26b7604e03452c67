//! Taints: what a node's conditions and its cordon say to pods, and the end of pods that do not tolerate it.
//!
//! A node that is not ready, or not heard of, or under pressure, has the taints that Kubernetes gives it. A pod that tolerates a `NoExecute`
//! taint only for a time ends when that is over; the API gives every pod such a toleration of 300 s for nodes that are not ready or
//! not heard of.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint, Toleration};
use serde_json::json;

use super::{
    action::{Action, Kind, News, Target, value},
    object::{self, time},
    region::Region,
};

const FROM: &str = "taint-eviction-controller";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// For how many seconds a pod tolerates either where it does not say so.
const DEFAULT_TOLERATION: i64 = 300;
/// Type and status of a condition, and the key of the taint that it means.
const OF_CONDITIONS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// The taints that a node has, or gets as soon as its conditions are looked at.
pub fn of(node: &Node) -> Vec<Taint> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
    let holds = |(kind, status, _): &(&str, &str, &str)| {
        let mut all = conditions.unwrap_or_default().iter();
        all.any(|condition| condition.type_ == *kind && condition.status == *status)
    };
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for row in OF_CONDITIONS.iter().filter(|row| holds(row)) {
        wanted.push((row.2, "NoSchedule"));
        if row.0 == "Ready" {
            wanted.push((row.2, "NoExecute"));
        }
    }
    let spec = node.spec.as_ref();
    if spec.and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Taint| {
        let by_condition = OF_CONDITIONS.iter().any(|(kind, _, key)| {
            *key == taint.key && (taint.effect == "NoSchedule" || taint.effect == "NoExecute" && *kind == "Ready")
        });
        by_condition || taint.key == UNSCHEDULABLE && taint.effect == "NoSchedule"
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let present = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let mut taints: Vec<Taint> = present
        .iter()
        .filter(|taint| !ours(taint) || is_wanted(taint))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: None,
            });
        }
    }
    taints
}

/// Whether the pod may be where this taint is.
pub fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    matching(pod, taint).next().is_some()
}

/// Whether the pod may be put on a node that is cordoned.
pub fn tolerates_cordon(pod: &Pod) -> bool {
    let cordon = Taint {
        key: UNSCHEDULABLE.to_owned(),
        effect: "NoSchedule".to_owned(),
        value: None,
        time_added: None,
    };
    tolerates(pod, &cordon)
}

fn matching<'a>(pod: &'a Pod, taint: &'a Taint) -> impl Iterator<Item = &'a Toleration> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    let tolerations = tolerations.unwrap_or_default().iter();
    tolerations.filter(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || key.is_empty() && exists)
            && (exists || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
    })
}

/// Brings the nodes' taints up to date, and ends the pods that do not tolerate them.
pub fn plan(region: &Region, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    for node in region.nodes.iter() {
        let mut taints = of(node);
        // From here on counts the time for which a pod tolerates it.
        let added = time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        for taint in taints.iter_mut().filter(|taint| taint.effect == "NoExecute") {
            taint.time_added.get_or_insert_with(|| added.clone());
        }
        let present = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.as_deref())
            .unwrap_or_default();
        if taints != present {
            let patch = json!({
                // Somebody else may write taints, too: the list is replaced as a whole.
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"taints": value(&taints)},
            });
            actions.push(Action::patch(Target::new(Kind::Node, &node.metadata), patch));
        }
        taints.retain(|taint| taint.effect == "NoExecute");
        if taints.is_empty() || object::is_terminating(&node.metadata) {
            continue;
        }
        let here = region.pods.iter().filter(|pod| {
            let its_node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            its_node == node.metadata.name.as_ref() && object::is_active(pod)
        });
        for pod in here {
            match end_of(pod, &taints) {
                Some(end) if end <= now => actions.extend(evict(pod, now)),
                Some(end) => actions.push(Action::LookAgain(end)),
                None => {}
            }
        }
    }
    actions
}

// When the pod has to go because of the taints; never, if it tolerates all of them without end.
fn end_of(pod: &Pod, taints: &[Taint]) -> Option<Timestamp> {
    let ends = taints.iter().filter_map(|taint| {
        let tolerated: Vec<&Toleration> = matching(pod, taint).collect();
        let seconds = match tolerated.iter().filter_map(|one| one.toleration_seconds).min() {
            Some(seconds) => seconds,
            None if !tolerated.is_empty() => return None,
            // A pod that the API has not given its tolerations, as it does, is from before it did.
            None if taint.key == NOT_READY || taint.key == UNREACHABLE => DEFAULT_TOLERATION,
            None => return Some(Timestamp::MIN),
        };
        let since = taint.time_added.as_ref().map_or(Timestamp::MIN, |time| time.0);
        Some(
            since
                .checked_add(SignedDuration::from_secs(seconds.max(0)))
                .unwrap_or(Timestamp::MAX),
        )
    });
    ends.min()
}

fn evict(pod: &Pod, now: Timestamp) -> [Action; 3] {
    let target = Target::new(Kind::Pod, &pod.metadata);
    let mut conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByTaintManager".to_owned()),
        message: Some("Taint manager: deleting due to NoExecute taint".to_owned()),
        last_transition_time: Some(time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
        ..PodCondition::default()
    });
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let message = format!("Marking for deletion Pod {namespace}/{}", target.name);
    [
        Action::status(target.clone(), json!({ "conditions": value(&conditions) })),
        Action::delete(target.clone()),
        Action::told(target, News::normal(FROM, "TaintManagerEviction", message)),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::Value;

    use super::*;
    use crate::controllers::samples::{names, now, object_of, pod};

    fn node(extra: Value) -> Node {
        let mut node = json!({
            "metadata": {"name": "n0", "uid": "n0", "resourceVersion": "1"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        json_patch::merge(&mut node, &extra);
        object_of(node)
    }

    fn keys(node: &Node) -> Vec<String> {
        let key = |taint: &Taint| format!("{}:{}", taint.key.rsplit('/').next().unwrap(), taint.effect);
        of(node).iter().map(key).collect()
    }

    fn planned(node: &Node, tolerations: Value, at: Timestamp) -> Vec<Action> {
        let mut region = Region::default();
        region.nodes.wrote(node.clone(), Instant::now());
        let mut pod = pod("a", "set");
        pod.metadata.resource_version = Some("2".to_owned());
        pod.spec.as_mut().unwrap().tolerations = object_of(tolerations);
        region.pods.wrote(pod, Instant::now());
        plan(&region, at)
    }

    fn deleted(actions: &[Action]) -> Vec<&str> {
        names(actions.iter().filter_map(|action| match action {
            Action::Delete { target, .. } => Some(target),
            _ => None,
        }))
    }

    #[test]
    fn conditions_and_the_cordon_are_taints() {
        let ready = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        assert_eq!(keys(&node(json!({}))), [""; 0]);
        assert_eq!(
            keys(&node(ready("False"))),
            ["not-ready:NoSchedule", "not-ready:NoExecute"]
        );
        assert_eq!(
            keys(&node(ready("Unknown"))),
            ["unreachable:NoSchedule", "unreachable:NoExecute"]
        );
        assert_eq!(
            keys(&node(json!({"spec": {"unschedulable": true}}))),
            ["unschedulable:NoSchedule"]
        );
        let pressure = json!({"status": {"conditions": [{"type": "DiskPressure", "status": "True"}]}});
        assert_eq!(keys(&node(pressure)), ["disk-pressure:NoSchedule"]);
    }

    #[test]
    fn a_taint_goes_with_its_condition_and_others_stay() {
        let taints = json!([
            {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
            {"key": "mine", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/not-ready", "effect": "PreferNoSchedule"},
        ]);
        let node = node(json!({"spec": {"taints": taints}}));
        assert_eq!(keys(&node), ["mine:NoSchedule", "not-ready:PreferNoSchedule"]);
        let [Action::Patch { patch, .. }] = &planned(&node, json!([]), now())[..] else {
            panic!()
        };
        assert_eq!(patch["spec"]["taints"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_pod_ends_when_the_time_for_which_it_tolerates_a_taint_is_over() {
        let taint = json!({"key": "k", "effect": "NoExecute", "timeAdded": now().to_string()});
        let node = node(json!({"spec": {"taints": [taint]}}));
        let later = |seconds| now() + SignedDuration::from_secs(seconds);
        let for_a_time = json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]);
        assert_eq!(
            planned(&node, for_a_time.clone(), later(299)),
            [Action::LookAgain(later(300))]
        );
        assert_eq!(deleted(&planned(&node, for_a_time, later(300))), ["a"]);
        assert_eq!(deleted(&planned(&node, json!([]), now())), ["a"]);
        assert_eq!(
            planned(&node, json!([{"key": "k", "operator": "Exists"}]), later(9999)),
            []
        );
    }

    #[test]
    fn the_time_begins_when_the_taint_is_seen() {
        let node = node(json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
        let actions = planned(&node, json!([{"operator": "Exists", "tolerationSeconds": 5}]), now());
        let [Action::Patch { patch, .. }, Action::LookAgain(end)] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(patch["spec"]["taints"][0]["timeAdded"], now().to_string());
        assert_eq!(*end, now() + SignedDuration::from_secs(5));
    }
}
