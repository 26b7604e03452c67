//! Whether the pods that an application would start here have room.
//!
//! Flow: the objects as they are to serve here -> what each workload's pods ask for, read once for each version of the objects -> less the
//! pods that run here already -> the cluster's [`Ledger`]. The answer is kept: it is asked again when the objects or the own pods changed,
//! and else, where the cluster's room changed, after a second.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{Pod, PodTemplateSpec, ResourceQuota},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    ResourceExt as _,
    core::{Selector, SelectorExt as _},
};
use leeward_core::{
    capacity::{Demand, Lack, pod},
    lease::Moment,
};
use leeward_state::config::{Id, Kind};
use serde_json::Value;

use super::quota::{self, Counted};
use crate::room::{self, Ledger};

/// How long an answer holds while the cluster's room changes.
const HOLDS: Duration = Duration::from_secs(1);

/// A workload as it is to serve.
struct Wanted {
    workload: String,
    replicas: u32,
    pod: pod::Pod,
    counted: Counted,
    pods: Selector,
}

/// What an application would start here, and what was answered last.
#[derive(Default)]
pub struct Capacity {
    state: String,
    wanted: Vec<Wanted>,
    answer: Option<Answer>,
}

struct Answer {
    running: Vec<u32>,
    version: u64,
    at: Moment,
    said: Result<Vec<Lack>, String>,
}

impl Capacity {
    /// Which workloads do not have room. `state` names the version of the objects, which are made only where it is a new one; `pods` are the
    /// application's own.
    ///
    /// # Errors
    /// Why nobody knows.
    pub fn look(
        &mut self,
        ledger: &Ledger,
        state: String,
        objects: impl FnOnce() -> Vec<Value>,
        pods: &[Arc<Pod>],
        now: Moment,
    ) -> Result<&[Lack], &str> {
        if self.state != state {
            self.wanted = objects().iter().filter_map(wanted).collect();
            self.state = state;
            self.answer = None;
        }
        let bound = || pods.iter().filter(|pod| room::node_of(pod).is_some());
        let running = |wanted: &Wanted| bound().filter(|pod| wanted.pods.matches(pod.labels())).count() as u32;
        let running: Vec<u32> = self.wanted.iter().map(running).collect();
        let version = ledger.version();
        let answer = self.answer.take().filter(|answer| {
            let holds = answer.version == version || now.since(answer.at) < HOLDS;
            answer.said.is_ok() && answer.running == running && holds
        });
        let answer = self.answer.insert(answer.unwrap_or_else(|| {
            let each = self.wanted.iter().zip(&running);
            let demands: Vec<Demand> = each
                .map(|(wanted, running)| Demand {
                    workload: wanted.workload.clone(),
                    pods: wanted.replicas.saturating_sub(*running),
                    running: *running,
                    pod: wanted.pod.clone(),
                })
                .collect();
            Answer {
                version,
                at: now,
                said: ledger.lacking(&demands),
                running,
            }
        }));
        match &answer.said {
            Ok(lacks) => Ok(lacks),
            Err(why) => Err(why),
        }
    }

    /// Which workloads the quotas of the namespace do not let in, of the objects that were looked at last, and what is not known of them. `pods` are the
    /// application's own.
    pub(super) fn quotas<'a>(
        &self,
        quotas: impl IntoIterator<Item = &'a ResourceQuota>,
        pods: &[Arc<Pod>],
    ) -> (Vec<quota::Lack>, Vec<String>) {
        // One that waits for a node counts in a quota already.
        let counts = |pod: &&Arc<Pod>| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        };
        let demands = self.wanted.iter().map(|wanted| {
            let own = pods.iter().filter(|pod| wanted.pods.matches(pod.labels()));
            let here = own.filter(counts).count() as u32;
            quota::Demand {
                workload: &wanted.workload,
                pods: wanted.replicas.saturating_sub(here),
                here,
                counted: &wanted.counted,
            }
        });
        quota::lacking(quotas, &demands.collect::<Vec<_>>())
    }
}

/// What a workload asks for; none for other objects.
fn wanted(object: &Value) -> Option<Wanted> {
    let id = Id::of(object)?;
    let (replicas, selector, template): (_, LabelSelector, PodTemplateSpec) = match id.kind {
        Kind::Deployment => {
            let spec = serde_json::from_value::<Deployment>(object.clone()).ok()?.spec?;
            (spec.replicas, spec.selector, spec.template)
        }
        Kind::StatefulSet => {
            let spec = serde_json::from_value::<StatefulSet>(object.clone()).ok()?.spec?;
            (spec.replicas, spec.selector, spec.template)
        }
        _ => return None,
    };
    let spec = template.spec?;
    Some(Wanted {
        workload: id.to_string(),
        replicas: u32::try_from(replicas.unwrap_or(1)).unwrap_or(0),
        pod: room::pod(&spec),
        counted: Counted::of(&spec),
        pods: selector.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }

    fn web(replicas: u32, cpu: &str) -> Vec<Value> {
        let labels = json!({ "app": "web" });
        vec![
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "web" } }),
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": {
                "replicas": replicas, "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": {
                    "containers": [{ "name": "web", "resources": { "requests": { "cpu": cpu } } }] } } } }),
        ]
    }

    fn pod(name: &str, labels: Value, node: &str) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "shop", "labels": labels },
            "spec": { "nodeName": node, "containers": [{ "name": "a", "resources": { "requests": { "cpu": "1" } } }] } }))
        .unwrap()
    }

    fn node(cpu: &str) -> Event<k8s_openapi::api::core::v1::Node> {
        let node = json!({ "metadata": { "name": "n1" }, "status": { "allocatable": { "cpu": cpu, "pods": "10" },
            "conditions": [{ "type": "Ready", "status": "True" }] } });
        Event::Apply(serde_json::from_value(node).unwrap())
    }

    fn ledger(cpu: &str) -> Ledger {
        let ledger = Ledger::default();
        for event in [Event::Init, Event::InitDone, node(cpu)] {
            ledger.heed_node(&Ok(event));
        }
        for event in [Event::Init, Event::InitDone] {
            ledger.heed_pod(&Ok(event));
        }
        ledger
    }

    fn said(looked: Result<&[Lack], &str>) -> Vec<String> {
        looked.unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_runs_here_already_needs_no_more_room() {
        let ledger = ledger("2");
        let mut capacity = Capacity::default();
        let mut look = |pods: &[Arc<Pod>]| {
            let looked = capacity.look(&ledger, "1".into(), || web(3, "1"), pods, at(0));
            said(looked)
        };
        assert_eq!(
            look(&[]),
            ["capacity: 3 pods of Deployment web need 1 cpu each; the nodes have room for 2: short of cpu"]
        );
        let labels = json!({ "app": "web" });
        let others = [
            pod("pending", labels.clone(), ""),
            pod("other", json!({ "app": "other" }), "n1"),
        ];
        let others = others.map(Arc::new);
        assert_eq!(look(&others).len(), 1);
        let own = Arc::new(pod("own", labels, "n1"));
        ledger.heed_pod(&Ok(Event::Apply((*own).clone())));
        assert_eq!(
            look(&[own]),
            ["capacity: 2 pods of Deployment web need 1 cpu each; the nodes have room for 1: short of cpu"]
        );
    }

    #[test]
    fn an_answer_is_kept_while_nothing_changes_and_asked_again_when_something_did() {
        let ledger = ledger("1");
        let mut capacity = Capacity::default();
        let mut read = 0;
        let mut look = |state: &str, cpu: &str, ms| {
            let objects = || {
                read += 1;
                web(2, cpu)
            };
            let looked = capacity.look(&ledger, state.into(), objects, &[], at(ms));
            (said(looked).is_empty(), read)
        };
        assert_eq!(look("1", "1", 0), (false, 1));
        assert_eq!(look("1", "1", 10_000), (false, 1), "the objects are not read again");
        assert_eq!(look("2", "500m", 10_000), (true, 2));
        assert_eq!(look("3", "1", 10_000), (false, 3));
        ledger.heed_node(&Ok(node("2")));
        assert_eq!(look("3", "1", 10_999), (false, 3));
        assert_eq!(look("3", "1", 11_000), (true, 3), "there is room now");
        ledger.heed_node(&Ok(node("1")));
        assert_eq!(look("3", "1", 11_999), (true, 3));
        assert_eq!(look("3", "1", 12_000), (false, 3));
    }

    #[test]
    fn a_quota_is_asked_for_the_pods_that_are_not_here_yet() {
        let mut capacity = Capacity::default();
        let labels = json!({ "app": "web" });
        let quota =
            json!({ "metadata": { "name": "few" }, "status": { "hard": { "pods": "3" }, "used": { "pods": "2" } } });
        let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
        let mut lacks = |own: Vec<Pod>| {
            let own: Vec<_> = own.into_iter().map(Arc::new).collect();
            // That nothing is known of the nodes is told apart.
            let unknown = capacity.look(&Ledger::default(), "1".into(), || web(3, "1"), &own, at(0));
            assert!(unknown.is_err());
            let (lacks, _) = capacity.quotas([&quota], &own);
            lacks
                .iter()
                .map(|lack| (lack.is_whole(), lack.to_string()))
                .collect::<Vec<_>>()
        };
        let none = lacks(vec![]);
        assert!(
            none[0]
                .1
                .starts_with("capacity: ResourceQuota few lets 1 of 3 pods of Deployment web in"),
            "{none:?}"
        );
        // One waits for a node and one has ended.
        let mut ended = pod("ended", labels.clone(), "n1");
        ended.status = serde_json::from_value(json!({ "phase": "Failed" })).unwrap();
        let one = lacks(vec![pod("waits", labels.clone(), ""), ended]);
        assert!(one[0].1.contains("lets 1 of 2 pods"), "{one:?}");
        let two = lacks(vec![pod("a", labels.clone(), ""), pod("b", labels, "n1")]);
        assert_eq!(two, []);
    }

    #[test]
    fn what_is_unknown_is_asked_again_at_once() {
        let ledger = Ledger::default();
        let mut capacity = Capacity::default();
        assert!(capacity.look(&ledger, "1".into(), || web(1, "1"), &[], at(0)).is_err());
        for event in [Event::Init, Event::InitDone] {
            ledger.heed_node(&Ok(event));
        }
        for event in [Event::Init, Event::InitDone] {
            ledger.heed_pod(&Ok(event));
        }
        let looked = capacity.look(&ledger, "1".into(), || web(1, "1"), &[], at(0));
        assert!(said(looked)[0].ends_with("this cluster has no node"));
    }
}
