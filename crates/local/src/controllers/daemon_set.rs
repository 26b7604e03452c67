//! DaemonSet: one pod on every node that its template chooses and tolerates. A new template replaces them within `maxUnavailable`.
//!
//! A pod belongs to its node from the start: it asks the scheduler for this one. It stays where nothing else would: on a node that is not
//! ready, not heard of, under pressure or cordoned. Not acted on: `maxSurge`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec},
    core::v1::{Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration},
};
use serde_json::json;

use super::{
    action::{self, Action, Kind, News, Target, value},
    deployment::resolve,
    object::{self, is_active, is_ready, is_terminating},
    replica_set::{differs, omit_zero},
    revision::{self, Newest},
    scheduler, taint,
};

const FROM: &str = "daemonset-controller";
const GENERATION_LABEL: &str = "pod-template-generation";
/// What a pod of a DaemonSet tolerates beside what its template says.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// What to do for one DaemonSet. `pods` are those that it controls, `revisions` those of its namespace; `seed` differs from plan to plan.
pub fn plan<'a>(
    set: &'a DaemonSet,
    pods: &[&'a Pod],
    nodes: impl Iterator<Item = &'a Node>,
    revisions: &[&ControllerRevision],
    (now, seed): (Timestamp, u64),
) -> Vec<Action> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let own = revision::of(&set.metadata, revisions);
    let collisions = set
        .status
        .as_ref()
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    let newest = revision::newest(set, &spec.template, (&own, revisions), revision::LABEL, collisions);
    let mut view = View {
        set,
        spec,
        newest,
        sample: sample(spec),
        nodes: BTreeMap::new(),
        strays: Vec::new(),
        now,
    };
    view.sort(pods, nodes);
    let mut actions = Vec::new();
    if !is_terminating(&set.metadata) {
        actions.extend(view.newest.action.clone());
        actions.extend(view.place(seed));
        if actions.is_empty() {
            actions.extend(view.update());
        }
        let used: Vec<&str> = pods.iter().filter_map(|pod| hash_of(pod)).collect();
        let used: Vec<String> = used.iter().map(|hash| format!("{}-{hash}", view.name())).collect();
        let used: Vec<&str> = used
            .iter()
            .map(String::as_str)
            .chain([view.newest.name.as_str()])
            .collect();
        actions.extend(revision::forget(&own, &used, spec.revision_history_limit));
    }
    let soon = pods
        .iter()
        .filter_map(|pod| object::available_from(pod, view.min_ready()));
    actions.extend(soon.filter(|from| *from > now).min().map(Action::LookAgain));
    actions.extend(view.status());
    actions
}

struct Place<'a> {
    wanted: bool,
    stays: bool,
    pods: Vec<&'a Pod>,
}

struct View<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    newest: Newest,
    // A pod as it would be made, to ask where it may be.
    sample: Pod,
    nodes: BTreeMap<&'a str, Place<'a>>,
    // Pods whose node is gone.
    strays: Vec<&'a Pod>,
    now: Timestamp,
}

fn sample(spec: &DaemonSetSpec) -> Pod {
    let mut sample = Pod {
        spec: spec.template.spec.clone(),
        ..Pod::default()
    };
    let tolerations = sample.spec.get_or_insert_default().tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED {
        let known = |there: &Toleration| {
            let exists = there.operator.as_deref() == Some("Exists");
            exists && there.key.as_deref() == Some(key) && there.effect.as_deref() == Some(effect)
        };
        if !tolerations.iter().any(known) {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some(effect.to_owned()),
                ..Toleration::default()
            });
        }
    }
    sample
}

// The node that a pod is on, or asks for.
fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.first()?.match_fields.as_ref()?;
    fields.first()?.values.as_ref()?.first().map(String::as_str)
}

fn hash_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(revision::LABEL).map(String::as_str)
}

// On this node, and no other.
fn ask_for(spec: &mut PodSpec, node: &str) {
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let required = &mut affinity
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution;
    *required = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![field]),
            match_expressions: None,
        }],
    });
}

impl<'a> View<'a> {
    fn sort(&mut self, pods: &[&'a Pod], nodes: impl Iterator<Item = &'a Node>) {
        for node in nodes.filter(|node| !is_terminating(&node.metadata)) {
            let taints = taint::of(node);
            let bears = |effect: &str| {
                let mut untolerated = taints.iter().filter(|taint| !taint::tolerates(&self.sample, taint));
                !untolerated.any(|taint| taint.effect == effect)
            };
            let chosen = scheduler::matches_node(&self.sample, node);
            let stays = chosen && bears("NoExecute");
            let place = Place {
                wanted: stays && bears("NoSchedule"),
                stays,
                pods: Vec::new(),
            };
            self.nodes
                .insert(node.metadata.name.as_deref().unwrap_or_default(), place);
        }
        for pod in pods {
            match node_of(pod).and_then(|node| self.nodes.get_mut(node)) {
                Some(place) => place.pods.push(pod),
                None => self.strays.push(pod),
            }
        }
        // The oldest first, and one that is bound before one that is not.
        for place in self.nodes.values_mut() {
            place.pods.sort_by_key(|pod| {
                let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_some();
                let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (!bound, created, pod.metadata.name.clone())
            });
        }
    }

    fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    fn hash(&self) -> &str {
        self.newest.name.rsplit('-').next().unwrap_or_default()
    }

    fn min_ready(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        object::is_available(pod, self.min_ready(), self.now)
    }

    fn is_new(&self, pod: &Pod) -> bool {
        hash_of(pod) == Some(self.hash())
    }

    fn place(&self, seed: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for (node, place) in &self.nodes {
            let ended = place
                .pods
                .iter()
                .filter(|pod| object::has_ended(pod) && !is_terminating(&pod.metadata));
            actions.extend(ended.flat_map(|pod| self.delete(pod)));
            let present = place.pods.iter().filter(|pod| is_active(pod));
            // One that has ended keeps its place until it is gone.
            let keep = usize::from(place.stays);
            actions.extend(present.skip(keep).flat_map(|pod| self.delete(pod)));
            if place.wanted && place.pods.is_empty() {
                actions.extend(self.create(node, seed));
            }
        }
        let strays = self.strays.iter().filter(|pod| !is_terminating(&pod.metadata));
        actions.extend(strays.flat_map(|pod| self.delete(pod)));
        actions
    }

    // Pods of an earlier template go: at once where they serve nobody, else as many as may be missing.
    fn update(&self) -> Vec<Action> {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return Vec::new();
        }
        let wanted: Vec<&Place<'_>> = self.nodes.values().filter(|place| place.wanted).collect();
        let limit = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.max_unavailable.as_ref());
        let count = i32::try_from(wanted.len()).unwrap_or(i32::MAX);
        let limit = limit.map_or(1, |limit| resolve(limit, count, true)).max(1);
        let available = |place: &&&Place<'_>| place.pods.iter().any(|pod| self.is_available(pod));
        let missing = wanted.len() - wanted.iter().filter(available).count();
        let mut room = usize::try_from(limit).unwrap_or(0).saturating_sub(missing);
        let mut actions = Vec::new();
        let old = wanted.iter().flat_map(|place| &place.pods);
        for pod in old.filter(|pod| is_active(pod) && !self.is_new(pod)) {
            if !self.is_available(pod) {
                actions.extend(self.delete(pod));
            } else if room > 0 {
                room -= 1;
                actions.extend(self.delete(pod));
            }
        }
        actions
    }

    fn tell(&self, news: News) -> Action {
        Action::told(Target::new(Kind::DaemonSet, &self.set.metadata), news)
    }

    fn delete(&self, pod: &Pod) -> [Action; 2] {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        [
            Action::delete(Target::new(Kind::Pod, &pod.metadata)),
            self.tell(News::normal(FROM, "SuccessfulDelete", format!("Deleted pod: {name}"))),
        ]
    }

    fn create(&self, node: &str, seed: u64) -> [Action; 2] {
        let owner = self.set.metadata.uid.as_deref().unwrap_or_default();
        let parts = [owner.as_bytes(), &seed.to_le_bytes(), node.as_bytes()];
        let name = format!("{}-{}", object::cut(self.name(), 57), object::short_hash(&parts, 5));
        let mut meta = self.spec.template.metadata.clone().unwrap_or_default();
        let labels = meta.labels.get_or_insert_default();
        labels.insert(revision::LABEL.to_owned(), self.hash().to_owned());
        let generation = self.set.metadata.generation.unwrap_or(1);
        labels.insert(
            GENERATION_LABEL.to_owned(),
            self.template_generation().unwrap_or(generation).to_string(),
        );
        let mut pod = object::pod_of(self.set, name.clone(), meta, self.sample.spec.clone());
        ask_for(pod.spec.get_or_insert_default(), node);
        [
            action::create(Kind::Pod, &pod),
            self.tell(News::normal(FROM, "SuccessfulCreate", format!("Created pod: {name}"))),
        ]
    }

    fn template_generation(&self) -> Option<i64> {
        let annotations = self.set.metadata.annotations.as_ref()?;
        annotations
            .get("deprecated.daemonset.template.generation")?
            .parse()
            .ok()
    }

    fn status(&self) -> Option<Action> {
        let places = || self.nodes.values();
        let wanted = places().filter(|place| place.wanted);
        let (mut desired, mut current, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0);
        for place in wanted {
            desired += 1;
            // The oldest stands for its node.
            let Some(pod) = place.pods.first() else { continue };
            current += 1;
            ready += usize::from(is_ready(pod));
            available += usize::from(self.is_available(pod));
            updated += usize::from(self.is_new(pod));
        }
        let misplaced = places().filter(|place| !place.wanted && !place.pods.is_empty()).count();
        let wanted = json!({
            "currentNumberScheduled": current,
            "numberMisscheduled": misplaced,
            "desiredNumberScheduled": desired,
            "numberReady": ready,
            "observedGeneration": self.set.metadata.generation,
            "updatedNumberScheduled": omit_zero(updated),
            "numberAvailable": omit_zero(available),
            "numberUnavailable": omit_zero(desired - available),
            "collisionCount": if self.newest.collisions > 0 { json!(self.newest.collisions) } else { json!(null) },
        });
        differs(&value(&self.set.status), &wanted)
            .then(|| Action::status(Target::new(Kind::DaemonSet, &self.set.metadata), wanted))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::controllers::samples::{names, now, object_of, ready};

    fn set(extra: Value) -> DaemonSet {
        let mut set = json!({
            "metadata": {"name": "ds", "namespace": "shop", "uid": "set", "generation": 1},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            },
        });
        json_patch::merge(&mut set, &extra);
        object_of(set)
    }

    fn node(name: &str, extra: Value) -> Node {
        let mut node = json!({
            "metadata": {"name": name, "uid": name, "labels": {"zone": name}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        json_patch::merge(&mut node, &extra);
        object_of(node)
    }

    fn planned(set: &DaemonSet, nodes: &[Node], pods: &[Pod]) -> Vec<Action> {
        plan(set, &pods.iter().collect::<Vec<_>>(), nodes.iter(), &[], (now(), 1))
    }

    fn created(actions: &[Action]) -> Vec<Pod> {
        let pods = actions.iter().filter_map(|action| match action {
            Action::Create {
                kind: Kind::Pod,
                object,
            } => Some(object_of::<Pod>(object.clone())),
            _ => None,
        });
        let named = |mut pod: Pod| {
            pod.metadata.uid = pod.metadata.name.clone();
            pod.metadata.name = node_of(&pod).map(str::to_owned);
            pod
        };
        pods.map(named).collect()
    }

    fn on(actions: &[Action]) -> Vec<String> {
        created(actions)
            .iter()
            .map(|pod| node_of(pod).unwrap().to_owned())
            .collect()
    }

    fn deleted(actions: &[Action]) -> Vec<&str> {
        names(actions.iter().filter_map(|action| match action {
            Action::Delete { target, .. } => Some(target),
            _ => None,
        }))
    }

    #[test]
    fn every_node_that_fits_gets_one_pod() {
        let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
        let cordoned = json!({"spec": {"unschedulable": true}});
        let nodes = [node("a", json!({})), node("b", tainted), node("c", cordoned)];
        assert_eq!(on(&planned(&set(json!({})), &nodes, &[])), ["a", "c"]);
        let choosy = set(json!({"spec": {"template": {"spec": {"nodeSelector": {"zone": "c"}}}}}));
        assert_eq!(on(&planned(&choosy, &nodes, &[])), ["c"]);
        let pods = created(&planned(&set(json!({})), &nodes, &[]));
        let next = planned(&set(json!({})), &nodes, &pods);
        assert_eq!((on(&next), deleted(&next)), (vec![], vec![]));
    }

    #[test]
    fn a_pod_goes_where_its_node_no_longer_fits_and_from_a_node_that_is_gone() {
        let set = set(json!({}));
        let nodes = [node("a", json!({})), node("b", json!({}))];
        let pods = created(&planned(&set, &nodes, &[]));
        let executed = json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}});
        assert_eq!(deleted(&planned(&set, &[node("a", executed)], &pods)), ["a", "b"]);
        let lost = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        let nodes = [node("a", lost), nodes[1].clone()];
        assert_eq!(deleted(&planned(&set, &nodes, &pods)), [""; 0]);
    }

    #[test]
    fn a_new_template_replaces_one_pod_at_a_time() {
        let nodes = ["a", "b", "c"].map(|name| node(name, json!({})));
        let pods: Vec<Pod> = created(&planned(&set(json!({})), &nodes, &[]))
            .into_iter()
            .map(ready)
            .collect();
        let new = |extra: Value| {
            let mut spec = json!({"template": {"spec": {"containers": [{"name": "c", "image": "new"}]}}});
            json_patch::merge(&mut spec, &extra);
            let mut new = set(json!({ "spec": spec }));
            new.metadata.generation = Some(2);
            new
        };
        let revised = |set: &DaemonSet, pods: &[Pod]| {
            let made = revision::newest(
                set,
                &set.spec.as_ref().unwrap().template,
                (&[], &[]),
                revision::LABEL,
                0,
            );
            let Some(Action::Create { object, .. }) = made.action else {
                panic!()
            };
            let revision: ControllerRevision = object_of(object);
            let pods: Vec<&Pod> = pods.iter().collect();
            let actions = plan(set, &pods, nodes.iter(), &[&revision], (now(), 1));
            deleted(&actions).len()
        };
        assert_eq!(revised(&new(json!({})), &pods), 1);
        let two = json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}});
        assert_eq!(revised(&new(two), &pods), 2);
        assert_eq!(revised(&new(json!({"updateStrategy": {"type": "OnDelete"}})), &pods), 0);
        let mut waiting = pods.clone();
        waiting[0].status = None;
        assert_eq!(revised(&new(json!({})), &waiting), 1, "the one that serves nobody");
    }

    #[test]
    fn status_counts_nodes() {
        let set = set(json!({}));
        let nodes = ["a", "b"].map(|name| node(name, json!({})));
        let mut pods = created(&planned(&set, &nodes, &[]));
        pods[0] = ready(pods[0].clone());
        let actions = planned(&set, &nodes, &pods);
        let Some(Action::Patch { patch, .. }) = actions.last() else {
            panic!("{actions:?}")
        };
        let counts = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "numberUnavailable",
            "updatedNumberScheduled",
        ];
        assert_eq!(
            counts.map(|name| patch["status"][name].as_i64().unwrap()),
            [2, 2, 1, 1, 2]
        );
    }
}
