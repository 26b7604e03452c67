//! What the nodes of this cluster have left, kept up to date by the watches of nodes and pods.
//!
//! Flow: each event of either watch changes the one [`Room`] a little; every application asks it with the pods that it would start. The
//! number of pods of the cluster does not matter to who asks.
//!
//! Invariant: until nodes and pods were both read as a whole, and while nodes may not be read, there is no answer, only the reason why.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{
    api::core::v1::{self as api, Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    ResourceExt as _,
    runtime::watcher::{self, Event},
};
use leeward_core::{
    capacity::{
        Demand, Lack, lacking,
        pod::{Amounts, Containers, Pod, Taint, Toleration},
        room::{Node, Room},
    },
    quantity::Amount,
};

/// The room of this cluster, shared by all applications.
#[derive(Clone, Default)]
pub struct Ledger {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    room: Room,
    /// Nodes of a listing that has not ended yet.
    listed_nodes: BTreeMap<String, Node>,
    /// Pods of a listing that has not ended yet.
    listed_pods: HashSet<String>,
    knows_nodes: bool,
    knows_pods: bool,
    /// Why nodes may not be read.
    forbidden: Option<String>,
}

impl Ledger {
    /// Grows whenever an answer may have become another one.
    pub fn version(&self) -> u64 {
        self.lock().room.version()
    }

    /// Which of the workloads do not have room.
    ///
    /// # Errors
    /// Why nobody knows.
    pub fn lacking(&self, demands: &[Demand]) -> Result<Vec<Lack>, String> {
        let state = self.lock();
        if let Some(why) = &state.forbidden {
            return Err(format!(
                "capacity: this cluster's nodes cannot be read, so nobody knows whether the pods would have room; allow the agent get, list \
                 and watch of nodes ({why})"
            ));
        }
        if !(state.knows_nodes && state.knows_pods) {
            return Err("capacity: this cluster's nodes and pods have not been read yet".to_owned());
        }
        Ok(lacking(&state.room, demands))
    }

    /// Takes in an event of the watch of nodes; whether an answer may have changed.
    pub(crate) fn heed_node(&self, event: &watcher::Result<Event<api::Node>>) -> bool {
        let mut state = self.lock();
        let before = (state.room.version(), state.knows_nodes, state.forbidden.is_some());
        match event {
            Ok(Event::Apply(object)) => state.room.set_node(&object.name_any(), node(object)),
            Ok(Event::Delete(object)) => state.room.forget_node(&object.name_any()),
            Ok(Event::Init) => state.listed_nodes.clear(),
            Ok(Event::InitApply(object)) => drop(state.listed_nodes.insert(object.name_any(), node(object))),
            Ok(Event::InitDone) => {
                let nodes = std::mem::take(&mut state.listed_nodes);
                state.room.set_nodes(nodes);
                state.knows_nodes = true;
                state.forbidden = None;
            }
            Err(error) => {
                if let Some(why) = forbids(error) {
                    if state.forbidden.is_none() {
                        tracing::warn!(
                            why,
                            "nodes may not be read: whether a failover would have room here is unknown"
                        );
                    }
                    state.forbidden = Some(why);
                }
            }
        }
        before != (state.room.version(), state.knows_nodes, state.forbidden.is_some())
    }

    /// Takes in an event of the watch of pods.
    pub(crate) fn heed_pod(&self, event: &watcher::Result<Event<api::Pod>>) {
        let mut state = self.lock();
        match event {
            Ok(Event::Apply(pod)) => state.take(pod),
            Ok(Event::Delete(pod)) => state.room.release(&name(pod)),
            Ok(Event::Init) => state.listed_pods.clear(),
            Ok(Event::InitApply(pod)) => {
                state.take(pod);
                state.listed_pods.insert(name(pod));
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut state.listed_pods);
                state.room.keep_pods(|pod| listed.contains(pod));
                state.knows_pods = true;
            }
            Err(_) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in between ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, pod: &api::Pod) {
        let spec = pod.spec.as_ref();
        let makes_room = spec.and_then(|spec| spec.priority).is_some_and(|priority| priority < 0);
        match (spec, node_of(pod)) {
            (Some(spec), Some(node)) if !makes_room => {
                self.room.bind(&name(pod), node, containers(spec).requests());
            }
            _ => self.room.release(&name(pod)),
        }
    }
}

fn forbids(error: &watcher::Error) -> Option<String> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return None,
    };
    matches!(status.code, 401 | 403).then(|| status.message.clone())
}

fn name(pod: &api::Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// The node that a pod takes something of: until it has ended, the one that it is bound to.
pub(crate) fn node_of(pod: &api::Pod) -> Option<&str> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let node = pod.spec.as_ref()?.node_name.as_deref();
    node.filter(|node| !node.is_empty())
}

/// What pods of a template ask of their nodes.
pub(crate) fn pod(template: &PodSpec) -> Pod {
    let tolerations = template.tolerations.iter().flatten().map(|given| Toleration {
        key: given.key.clone().filter(|key| !key.is_empty()),
        any_value: given.operator.as_deref() == Some("Exists"),
        value: given.value.clone().unwrap_or_default(),
        effect: given.effect.clone().filter(|effect| !effect.is_empty()),
    });
    Pod {
        requests: containers(template).requests(),
        tolerations: tolerations.collect(),
        node_selector: template.node_selector.clone().unwrap_or_default(),
    }
}

/// What pods of a template are limited to, counted like what they request.
pub(crate) fn limits(template: &PodSpec) -> Amounts {
    let limited = |resources: Option<&ResourceRequirements>| {
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        limits.map(amounts).unwrap_or_default()
    };
    let of = |container: &Container| limited(container.resources.as_ref());
    let init = template.init_containers.iter().flatten();
    let all = Containers {
        main: template.containers.iter().map(of).collect(),
        init: init.map(|container| (is_sidecar(container), of(container))).collect(),
        whole: limited(template.resources.as_ref()),
        overhead: template.overhead.as_ref().map(amounts).unwrap_or_default(),
    };
    all.requests()
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn containers(spec: &PodSpec) -> Containers {
    let of = |container: &Container| asked(container.resources.as_ref());
    let init = spec.init_containers.iter().flatten();
    let whole = spec.resources.as_ref().and_then(|whole| whole.requests.as_ref());
    Containers {
        main: spec.containers.iter().map(of).collect(),
        init: init.map(|container| (is_sidecar(container), of(container))).collect(),
        whole: whole.map(amounts).unwrap_or_default(),
        overhead: spec.overhead.as_ref().map(amounts).unwrap_or_default(),
    }
}

/// What a container requests. The API server gives a pod its limits as requests where it has none; a template does not show that.
fn asked(resources: Option<&ResourceRequirements>) -> Amounts {
    let Some(resources) = resources else {
        return Amounts::default();
    };
    let mut all = resources.limits.clone().unwrap_or_default();
    all.extend(resources.requests.clone().unwrap_or_default());
    amounts(&all)
}

/// Amounts by resource; what the API does not let through anyway is left out.
fn amounts(quantities: &BTreeMap<String, Quantity>) -> Amounts {
    let read = quantities.iter();
    read.filter_map(|(name, quantity)| Some((name.clone(), Amount::parse(&quantity.0)?)))
        .collect()
}

fn node(object: &api::Node) -> Node {
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();
    let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
    let taints = spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    Node {
        ready: conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        cordoned: spec.and_then(|spec| spec.unschedulable) == Some(true),
        taints: taints
            .map(|taint| Taint {
                key: taint.key.clone(),
                value: taint.value.clone().unwrap_or_default(),
                effect: taint.effect.clone(),
            })
            .collect(),
        labels: object.labels().clone(),
        allocatable: status
            .and_then(|status| status.allocatable.as_ref())
            .map(amounts)
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, cpu: &str) -> api::Node {
        let node = json!({ "metadata": { "name": name }, "status": {
            "allocatable": { "cpu": cpu, "memory": "8Gi", "pods": "10" }, "conditions": [{ "type": "Ready", "status": "True" }] } });
        serde_json::from_value(node).unwrap()
    }

    fn pod_on(name: &str, node: &str, more: Value) -> api::Pod {
        let mut pod = json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": { "nodeName": node, "containers": [
            { "name": "a", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "2", "memory": "1Gi" } } }] } });
        json_merge(&mut pod, more);
        serde_json::from_value(pod).unwrap()
    }

    fn json_merge(into: &mut Value, more: Value) {
        match (into, more) {
            (Value::Object(into), Value::Object(more)) => {
                for (key, value) in more {
                    json_merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, more) => *into = more,
        }
    }

    fn demand(cpu: &str) -> Vec<Demand> {
        let template = json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": cpu } } }] });
        vec![Demand {
            workload: "Deployment web".into(),
            pods: 1,
            running: 0,
            pod: pod(&serde_json::from_value(template).unwrap()),
        }]
    }

    /// A cluster with one node of three cores.
    fn read(pods: Vec<api::Pod>) -> Ledger {
        let ledger = Ledger::default();
        for event in [Event::Init, Event::InitApply(node("n1", "3")), Event::InitDone] {
            ledger.heed_node(&Ok(event));
        }
        ledger.heed_pod(&Ok(Event::Init));
        for pod in pods {
            ledger.heed_pod(&Ok(Event::InitApply(pod)));
        }
        ledger.heed_pod(&Ok(Event::InitDone));
        ledger
    }

    fn fits(ledger: &Ledger, cpu: &str) -> bool {
        ledger.lacking(&demand(cpu)).unwrap().is_empty()
    }

    #[test]
    fn a_pod_takes_room_from_when_it_is_bound_until_it_has_ended() {
        let ledger = read(vec![pod_on("one", "n1", json!({}))]);
        assert!(fits(&ledger, "2") && !fits(&ledger, "2001m"));
        ledger.heed_pod(&Ok(Event::Apply(pod_on("two", "", json!({})))));
        assert!(fits(&ledger, "2"), "not bound yet");
        ledger.heed_pod(&Ok(Event::Apply(pod_on("two", "n1", json!({})))));
        assert!(!fits(&ledger, "2"));
        let ended = json!({ "status": { "phase": "Succeeded" } });
        ledger.heed_pod(&Ok(Event::Apply(pod_on("two", "n1", ended))));
        assert!(fits(&ledger, "2"));
        ledger.heed_pod(&Ok(Event::Delete(pod_on("one", "n1", json!({})))));
        assert!(fits(&ledger, "3"));
    }

    #[test]
    fn a_pod_of_a_negative_priority_holds_room_for_others() {
        let ledger = read(vec![pod_on("one", "n1", json!({ "spec": { "priority": -10 } }))]);
        assert!(fits(&ledger, "3"));
        ledger.heed_pod(&Ok(Event::Apply(pod_on(
            "one",
            "n1",
            json!({ "spec": { "priority": 0 } }),
        ))));
        assert!(!fits(&ledger, "3"));
    }

    #[test]
    fn who_is_not_in_a_new_listing_is_gone() {
        let ledger = read(vec![pod_on("one", "n1", json!({})), pod_on("two", "n1", json!({}))]);
        assert!(!fits(&ledger, "2"));
        for event in [
            Event::Init,
            Event::InitApply(pod_on("two", "n1", json!({}))),
            Event::InitDone,
        ] {
            ledger.heed_pod(&Ok(event));
        }
        assert!(fits(&ledger, "2") && !fits(&ledger, "3"));
        for event in [Event::Init, Event::InitApply(node("n2", "1")), Event::InitDone] {
            assert!(fits(&ledger, "2"), "a listing counts as a whole");
            ledger.heed_node(&Ok(event));
        }
        assert!(!fits(&ledger, "2"));
    }

    #[test]
    fn a_limit_is_a_request_where_there_is_none() {
        let ledger = read(vec![]);
        let template = json!({ "containers": [{ "name": "a", "resources": { "limits": { "memory": "9Gi" } } }] });
        let template = pod(&serde_json::from_value(template).unwrap());
        assert_eq!(template.requests.get("memory"), Amount::parse("9Gi").unwrap());
        let demand = Demand {
            pod: template,
            ..demand("1")[0].clone()
        };
        assert_eq!(ledger.lacking(&[demand]).unwrap()[0].short_of, ["memory"]);
        let both = pod_on("one", "n1", json!({}));
        let both = pod(&both.spec.unwrap()).requests;
        assert_eq!(both.get("cpu"), Amount::whole(1));
    }

    #[test]
    fn what_was_not_read_or_may_not_be_is_unknown() {
        let ledger = Ledger::default();
        let why = |ledger: &Ledger| ledger.lacking(&demand("1")).unwrap_err();
        assert!(why(&ledger).contains("have not been read yet"));
        ledger.heed_pod(&Ok(Event::Init));
        ledger.heed_pod(&Ok(Event::InitDone));
        assert!(why(&ledger).contains("have not been read yet"));
        let status = |code, message: &str| {
            let status = json!({ "status": "Failure", "code": code, "message": message, "reason": "" });
            Err(watcher::Error::InitialListFailed(kube::Error::Api(
                serde_json::from_value(status).unwrap(),
            )))
        };
        assert!(!ledger.heed_node(&status(500, "away")));
        assert!(why(&ledger).contains("have not been read yet"));
        assert!(ledger.heed_node(&status(403, "nodes is forbidden")));
        let said = why(&ledger);
        assert!(
            said.contains("get, list and watch of nodes") && said.contains("nodes is forbidden"),
            "{said}"
        );
        for event in [Event::Init, Event::InitApply(node("n1", "1"))] {
            assert!(!ledger.heed_node(&Ok(event)));
        }
        assert!(ledger.heed_node(&Ok(Event::InitDone)));
        assert!(fits(&ledger, "1"));
        assert!(
            !ledger.heed_node(&Ok(Event::Apply(node("n1", "1")))),
            "nobody is woken for it"
        );
        assert!(ledger.heed_node(&Ok(Event::Apply(node("n1", "2")))));
    }
}
