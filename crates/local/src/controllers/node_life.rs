//! Node life: a node that no longer renews its lease is not ready, and one whose process is proven gone has lost its pods.
//!
//! Only the loss of the process proves that the pods are gone, because they die with it. A node that merely hangs keeps its pods: a
//! replacement beside a pod that may still write would be a second writer. So a silent node becomes `Ready=Unknown` after
//! [`GRACE`], and its pods are removed [`EVICTION`] later only if its kubelet's address refuses connections.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition};
use serde_json::json;

use super::{
    action::{Action, Kind, News, Target, value},
    object::{self, time},
    region::Region,
};

/// How long a node may stay silent before it is not ready.
pub const GRACE: Duration = Duration::from_secs(2);
/// How much longer before its pods are removed.
pub const EVICTION: Duration = Duration::from_secs(2);

const FROM: &str = "node-controller";

/// What is known of a node's life beside its objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sign {
    /// Since its lease was last seen renewed.
    pub silent: Duration,
    /// Its kubelet's address refuses connections: no process listens there.
    pub process_gone: bool,
}

/// What to do for all nodes. A node without a sign is taken to live.
pub fn plan(region: &Region, signs: &HashMap<String, Sign>, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    for node in region.nodes.iter() {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let Some(sign) = signs.get(name).filter(|sign| sign.silent >= GRACE) else {
            continue;
        };
        actions.extend(declare_unknown(node, now));
        let pods = region.pods.iter().filter(|pod| node_of(pod) == Some(name));
        if sign.silent >= GRACE + EVICTION && sign.process_gone {
            actions.extend(pods.flat_map(|pod| evict(pod, name)));
        } else {
            actions.extend(pods.filter_map(|pod| unready(pod, now)));
        }
    }
    actions
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn declare_unknown(node: &Node, now: Timestamp) -> Vec<Action> {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    if conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "Unknown")
    {
        return Vec::new();
    }
    let target = Target::new(Kind::Node, &node.metadata);
    let mut conditions: Vec<NodeCondition> = conditions
        .into_iter()
        .map(|condition| NodeCondition {
            status: "Unknown".to_owned(),
            reason: Some("NodeStatusUnknown".to_owned()),
            message: Some("The node has stopped renewing its lease.".to_owned()),
            last_transition_time: Some(time(now)),
            ..condition
        })
        .collect();
    if !conditions.iter().any(|condition| condition.type_ == "Ready") {
        conditions.push(NodeCondition {
            type_: "Ready".to_owned(),
            status: "Unknown".to_owned(),
            reason: Some("NodeStatusNeverUpdated".to_owned()),
            message: Some("The node has never said how it is.".to_owned()),
            last_transition_time: Some(time(now)),
            last_heartbeat_time: None,
        });
    }
    let patch = json!({
        // The node writes here, too: a list that it has replaced in between stays.
        "metadata": {"resourceVersion": node.metadata.resource_version},
        "status": {"conditions": value(&conditions)},
    });
    vec![
        Action::Patch {
            target: target.clone(),
            status: true,
            patch,
        },
        Action::told(
            target.clone(),
            News::normal(
                FROM,
                "NodeNotReady",
                format!("Node {} status is now: NodeNotReady", target.name),
            ),
        ),
    ]
}

fn unready(pod: &Pod, now: Timestamp) -> Option<Action> {
    let mut conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let ready = |condition: &PodCondition| condition.type_ == "Ready" && condition.status == "True";
    if !conditions.iter().any(ready) {
        return None;
    }
    for condition in conditions.iter_mut().filter(|condition| ready(condition)) {
        condition.status = "False".to_owned();
        condition.reason = Some("NodeNotReady".to_owned());
        condition.last_transition_time = Some(time(now));
    }
    Some(Action::status(
        Target::new(Kind::Pod, &pod.metadata),
        json!({"conditions": value(&conditions)}),
    ))
}

fn evict(pod: &Pod, node: &str) -> Vec<Action> {
    let target = Target::new(Kind::Pod, &pod.metadata);
    let mut actions = vec![Action::Delete {
        target: target.clone(),
        now: true,
    }];
    if !object::is_terminating(&pod.metadata) {
        let message = format!("The process of node {node} is gone and the pod with it");
        actions.push(Action::told(target, News::warning(FROM, "NodeLost", message)));
    }
    actions
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::controllers::samples::{names, now, object_of, pod, ready};

    fn region(ready_status: &str) -> Region {
        let mut region = Region::default();
        let node = object_of(json!({
            "metadata": {"name": "n0", "uid": "n0", "resourceVersion": "1"},
            "status": {"conditions": [{"type": "Ready", "status": ready_status}, {"type": "DiskPressure", "status": "False"}]},
        }));
        region.nodes.wrote(node, Instant::now());
        for (name, version) in [("a", "2"), ("b", "3")] {
            let mut pod = ready(pod(name, "set"));
            pod.metadata.resource_version = Some(version.to_owned());
            if name == "b" {
                pod.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
            }
            region.pods.wrote(pod, Instant::now());
        }
        region
    }

    fn planned(region: &Region, silent: u64, process_gone: bool) -> Vec<Action> {
        let sign = Sign {
            silent: Duration::from_millis(silent),
            process_gone,
        };
        plan(region, &HashMap::from([("n0".to_owned(), sign)]), now())
    }

    #[test]
    fn a_node_that_renews_is_left_alone() {
        assert_eq!(planned(&region("True"), 1999, true), []);
        assert_eq!(plan(&region("True"), &HashMap::new(), now()), []);
    }

    #[test]
    fn a_silent_node_and_its_pods_are_not_ready() {
        let actions = planned(&region("True"), 2000, true);
        let [
            Action::Patch { patch: node, .. },
            Action::Tell {
                news: News {
                    reason: "NodeNotReady", ..
                },
                ..
            },
            Action::Patch { patch: pod, target, .. },
        ] = &actions[..]
        else {
            panic!("{actions:?}")
        };
        assert_eq!(node["status"]["conditions"][0]["status"], "Unknown");
        assert_eq!(pod["status"]["conditions"][0]["status"], "False");
        assert_eq!(target.name, "a", "the pod of another node is left alone");
    }

    #[test]
    fn pods_are_removed_only_when_the_process_is_gone() {
        let deleted = |actions: &[Action]| {
            let deleted = actions.iter().filter_map(|action| match action {
                Action::Delete { target, now: true } => Some(target.clone()),
                _ => None,
            });
            names(deleted.collect::<Vec<_>>().iter()).join(",")
        };
        assert_eq!(deleted(&planned(&region("Unknown"), 4000, true)), "a");
        assert_eq!(
            deleted(&planned(&region("Unknown"), 60_000, false)),
            "",
            "one that hangs may still write"
        );
        assert_eq!(deleted(&planned(&region("Unknown"), 3999, true)), "");
    }

    #[test]
    fn what_was_said_once_is_not_said_again() {
        let region = region("Unknown");
        let actions = planned(&region, 3000, false);
        assert_eq!(
            actions.len(),
            1,
            "only the pod's condition is left to write: {actions:?}"
        );
    }
}
