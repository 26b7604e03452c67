//! Scheduling: a pending pod is bound to the live node that fits it and runs the fewest of its kind.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Pod};
use serde_json::json;

use super::{
    action::{Action, Kind, News, Target, value},
    claims,
    object::{self, is_terminating, time},
    quantity,
    region::Region,
    taint,
};

const FROM: &str = "default-scheduler";

/// What is taken of a node, in thousandths of a core, bytes, and pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    cpu: u64,
    memory: u64,
    pods: u64,
}

impl Load {
    fn of(pod: &Pod) -> Self {
        let containers = pod
            .spec
            .as_ref()
            .map(|spec| spec.containers.as_slice())
            .unwrap_or_default();
        let mut load = Self {
            pods: 1,
            ..Self::default()
        };
        for container in containers {
            let request = |name| container.resources.as_ref()?.requests.as_ref()?.get(name);
            load.cpu = load
                .cpu
                .saturating_add(request("cpu").and_then(quantity::milli).unwrap_or(0));
            load.memory = load
                .memory
                .saturating_add(request("memory").and_then(quantity::bytes).unwrap_or(0));
        }
        load
    }

    fn capacity(node: &Node) -> Self {
        let status = node.status.as_ref();
        let amounts = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let amount = |name| amounts.and_then(|amounts| amounts.get(name));
        Self {
            cpu: amount("cpu").and_then(quantity::milli).unwrap_or(u64::MAX),
            memory: amount("memory").and_then(quantity::bytes).unwrap_or(u64::MAX),
            pods: amount("pods").and_then(quantity::bytes).unwrap_or(110),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
            pods: self.pods + other.pods,
        }
    }
}

/// What to do for all pods that have no node.
pub fn plan(region: &Region, now: Timestamp) -> Vec<Action> {
    let mut pending: Vec<&Pod> = region.pods.iter().filter(|pod| is_pending(pod)).collect();
    if pending.is_empty() {
        return Vec::new();
    }
    pending.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let mut loads: HashMap<&str, Load> = HashMap::new();
    let mut kin: HashMap<(&str, &str), u32> = HashMap::new();
    let mut mounted: Mounted<'_> = HashMap::new();
    for pod in region.pods.iter().filter(|pod| !object::has_ended(pod)) {
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
            let load = loads.entry(node).or_default();
            *load = load.plus(Load::of(pod));
            if let Some(owner) = object::controller(&pod.metadata) {
                *kin.entry((node, &owner.uid)).or_default() += 1;
            }
            mounted.extend(alone(pod, region).map(|claim| (claim, node)));
        }
    }
    let mut actions = Vec::new();
    for pod in pending {
        let target = Target::new(Kind::Pod, &pod.metadata);
        let owner = object::controller(&pod.metadata).map_or("", |owner| owner.uid.as_str());
        match choose(pod, owner, region, &loads, &kin, &mounted) {
            Ok(node) => {
                let load = loads.entry(node).or_default();
                *load = load.plus(Load::of(pod));
                *kin.entry((node, owner)).or_default() += 1;
                mounted.extend(alone(pod, region).map(|claim| (claim, node)));
                let message = format!(
                    "Successfully assigned {}/{} to {node}",
                    target.namespace.as_deref().unwrap_or_default(),
                    target.name
                );
                actions.push(Action::Bind {
                    pod: target.clone(),
                    node: node.to_owned(),
                });
                actions.push(Action::told(target, News::normal(FROM, "Scheduled", message)));
            }
            Err(None) => {}
            Err(Some(message)) => actions.extend(unschedulable(pod, target, message, now)),
        }
    }
    actions
}

/// The claims that one node at a time may mount, and the node that does: a pod that only should be gone may still write.
type Mounted<'a> = HashMap<(&'a str, &'a str), &'a str>;

// The pod's claims that only one node at a time may mount.
fn alone<'a>(pod: &'a Pod, region: &Region) -> impl Iterator<Item = (&'a str, &'a str)> {
    claims::claims_of(pod).filter(|(namespace, name)| {
        let claim = region.claims.get(Some(namespace), name);
        let modes = claim
            .and_then(|claim| claim.spec.as_ref()?.access_modes.as_deref())
            .unwrap_or_default();
        !modes
            .iter()
            .any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
    })
}

fn is_pending(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.node_name.as_deref().unwrap_or_default().is_empty()
        && !is_terminating(&pod.metadata)
        && !object::has_ended(pod)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && matches!(spec.scheduler_name.as_deref(), None | Some("" | "default-scheduler"))
}

/// The node; or why there is none, which is nothing where it will be found out without an event (a claim about to be bound).
fn choose<'a>(
    pod: &Pod,
    owner: &str,
    region: &'a Region,
    loads: &HashMap<&str, Load>,
    kin: &HashMap<(&str, &str), u32>,
    mounted: &Mounted<'_>,
) -> Result<&'a str, Option<String>> {
    for (namespace, name) in claims::claims_of(pod) {
        let claim = region.claims.get(Some(namespace), name);
        let Some(claim) = claim else {
            return Err(Some(format!("persistentvolumeclaim {name:?} not found")));
        };
        if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
            return Err(None);
        }
    }
    let mut refusals: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut best: Option<(usize, u32, u64, &str)> = None;
    for node in region.nodes.iter() {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let load = loads.get(name).copied().unwrap_or_default();
        let elsewhere = |claim| mounted.get(&claim).is_some_and(|holder| *holder != name);
        let checked = match alone(pod, region).any(elsewhere) {
            true => Err("node(s) may not mount a volume that another node has"),
            false => check(pod, node, load),
        };
        if let Err(refusal) = checked {
            *refusals.entry(refusal).or_default() += 1;
            continue;
        }
        let kin = kin.get(&(name, owner)).copied().unwrap_or(0);
        let rank = (unwelcome(pod, node), kin, load.pods, name);
        best = Some(best.map_or(rank, |best| best.min(rank)));
    }
    best.map(|(.., name)| name).ok_or_else(|| {
        let total = region.nodes.iter().count();
        let reasons: Vec<String> = refusals
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        Some(match total {
            0 => "no nodes available to schedule pods".to_owned(),
            _ => format!("0/{total} nodes are available: {}.", reasons.join(", ")),
        })
    })
}

fn check(pod: &Pod, node: &Node, load: Load) -> Result<(), &'static str> {
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    if is_terminating(&node.metadata) || cordoned && !taint::tolerates_cordon(pod) {
        return Err("node(s) were unschedulable");
    }
    let mut taints = taint::of(node)
        .into_iter()
        .filter(|taint| taint.effect != "PreferNoSchedule");
    if taints.any(|taint| !taint::tolerates(pod, &taint)) || says_nothing(node) {
        return Err("node(s) had untolerated taint(s)");
    }
    if !matches_node(pod, node) {
        return Err("node(s) didn't match Pod's node affinity/selector");
    }
    let capacity = Load::capacity(node);
    let wanted = load.plus(Load::of(pod));
    match () {
        () if wanted.pods > capacity.pods => Err("Too many pods"),
        () if wanted.cpu > capacity.cpu => Err("Insufficient cpu"),
        () if wanted.memory > capacity.memory => Err("Insufficient memory"),
        () => Ok(()),
    }
}

// A node that has not yet said how it is.
fn says_nothing(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
    !conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready")
}

// How many taints ask the pod to stay away where it can.
fn unwelcome(pod: &Pod, node: &Node) -> usize {
    let taints = taint::of(node).into_iter();
    taints
        .filter(|taint| taint.effect == "PreferNoSchedule" && !taint::tolerates(pod, taint))
        .count()
}

/// Whether the pod's node selector and required node affinity choose the node.
pub fn matches_node(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let required = spec.affinity.as_ref().and_then(|affinity| {
        affinity
            .node_affinity
            .as_ref()?
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let name = node.metadata.name.as_deref().unwrap_or_default();
    selected
        && required.is_none_or(|required| {
            required
                .node_selector_terms
                .iter()
                .any(|term| matches_term(term, labels, name))
        })
}

// Requirements of one term all hold; a term without any matches nothing.
fn matches_term(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let holds = |operator: &str, present: Option<&str>, values: &[String]| {
        let listed = present.is_some_and(|present| values.iter().any(|value| value == present));
        let compared = || {
            let one = present.and_then(|present| present.parse::<i64>().ok());
            one.zip(values.first().and_then(|value| value.parse::<i64>().ok()))
        };
        match operator {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => present.is_some(),
            "DoesNotExist" => present.is_none(),
            "Gt" => compared().is_some_and(|(one, other)| one > other),
            "Lt" => compared().is_some_and(|(one, other)| one < other),
            _ => false,
        }
    };
    expressions.iter().all(|one| {
        let present = labels.get(&one.key).map(String::as_str);
        holds(&one.operator, present, one.values.as_deref().unwrap_or_default())
    }) && fields.iter().all(|one| {
        let present = (one.key == "metadata.name").then_some(name);
        holds(&one.operator, present, one.values.as_deref().unwrap_or_default())
    })
}

// Told once for each reason: the message is kept in the condition.
fn unschedulable(pod: &Pod, target: Target, message: String, now: Timestamp) -> Vec<Action> {
    let known = object::pod_condition(pod, "PodScheduled");
    if known.is_some_and(|known| known.message.as_deref() == Some(message.as_str())) {
        return Vec::new();
    }
    let mut conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(k8s_openapi::api::core::v1::PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.clone()),
        last_transition_time: Some(time(now)),
        ..Default::default()
    });
    vec![
        Action::Patch {
            target: target.clone(),
            status: true,
            // The list is replaced as a whole, so it must be the one that was read.
            patch: json!({
                "metadata": {"resourceVersion": pod.metadata.resource_version},
                "status": {"conditions": value(&conditions)},
            }),
        },
        Action::told(target, News::warning(FROM, "FailedScheduling", message)),
    ]
}

#[cfg(test)]
mod tests;
