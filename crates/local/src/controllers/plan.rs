//! One look at the whole region: every controller's plan, put together.
//!
//! A controller whose object an earlier one is about to change waits for the next look, so that it never acts on what is already
//! outdated: a Deployment's decision about a ReplicaSet comes before the ReplicaSet's about its pods.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, batch::v1::Job, core::v1::Pod, discovery::v1::EndpointSlice};
use kube::core::{ObjectMeta, Resource};

use super::{
    action::Action,
    claims, daemon_set,
    deployment::{self, Set},
    disruption, endpoints, job, namespaces,
    node_life::{self, Sign},
    object::{controller, is_terminating},
    region::Region,
    replica_set, scheduler, stateful_set, taint,
};

/// What a plan needs beside the region's objects.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Nodes' signs of life, by name.
    pub signs: &'a HashMap<String, Sign>,
    /// Where directories of volumes are made.
    pub volumes: &'a Path,
    /// The time.
    pub now: Timestamp,
    /// Differs from plan to plan.
    pub seed: u64,
}

/// Everything that is to be done now.
pub fn plan(region: &Region, facts: &Facts<'_>) -> Vec<Action> {
    let mut actions = namespaces::plan(region);
    actions.extend(claims::plan_class(region));
    actions.extend(node_life::plan(region, facts.signs, facts.now));
    let lost = touched(&actions);
    let tainted = taint::plan(region, facts.now).into_iter();
    actions.extend(tainted.filter(|action| action.target().is_none_or(|target| !lost.contains(&target.uid))));
    plan_workloads(region, facts, &mut actions);
    plan_endpoints(region, &mut actions);
    plan_budgets(region, facts.now, &mut actions);
    actions.extend(claims::plan(region, facts.volumes));
    let gone = touched(&actions);
    let bindings = scheduler::plan(region, facts.now).into_iter();
    actions.extend(bindings.filter(|action| {
        let subject = match action {
            Action::Tell { about, .. } => Some(about),
            other => other.target(),
        };
        subject.is_none_or(|target| !gone.contains(&target.uid))
    }));
    // Nothing can be created in a namespace that is being deleted, and what its owners would replace is meant to go.
    let ending: HashSet<&str> = region
        .namespaces
        .iter()
        .filter(|namespace| is_terminating(&namespace.metadata))
        .filter_map(|namespace| namespace.metadata.name.as_deref())
        .collect();
    actions.retain(|action| match action {
        Action::Create { object, .. } => {
            let namespace = object
                .pointer("/metadata/namespace")
                .and_then(serde_json::Value::as_str);
            !namespace.is_some_and(|namespace| ending.contains(namespace))
        }
        Action::Tell { about, .. } => !about
            .namespace
            .as_deref()
            .is_some_and(|namespace| ending.contains(namespace)),
        _ => true,
    });
    actions
}

fn touched(actions: &[Action]) -> HashSet<String> {
    actions
        .iter()
        .filter_map(Action::target)
        .map(|target| target.uid.clone())
        .collect()
}

fn by_namespace<'a, K: Resource + 'a>(objects: impl Iterator<Item = &'a K>) -> BTreeMap<&'a str, Vec<&'a K>> {
    let mut all: BTreeMap<&str, Vec<&K>> = BTreeMap::new();
    for object in objects {
        all.entry(namespace(object.meta())).or_default().push(object);
    }
    all
}

fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

fn plan_workloads(region: &Region, facts: &Facts<'_>, actions: &mut Vec<Action>) {
    let owned = region.pods_by_controller();
    let sets = by_namespace(region.replica_sets.iter());
    let none: Vec<&ReplicaSet> = Vec::new();
    for deployment in region.deployments.iter() {
        let near = sets.get(namespace(&deployment.metadata)).unwrap_or(&none);
        let own: Vec<Set<'_>> = near
            .iter()
            .filter(|set| controller(&set.metadata).is_some_and(|owner| owner.uid == uid(&deployment.metadata)))
            .map(|set| Set {
                set,
                pods: owned.get(uid(&set.metadata)).cloned().unwrap_or_default(),
            })
            .collect();
        let orphans: Vec<&ReplicaSet> = near
            .iter()
            .copied()
            .filter(|set| controller(&set.metadata).is_none())
            .collect();
        actions.extend(deployment::plan(deployment, &own, &orphans, facts.now));
    }
    let orphans = by_namespace(region.pods.iter().filter(|pod| controller(&pod.metadata).is_none()));
    let near = |owner: &ObjectMeta| -> Vec<&Pod> {
        let own = owned.get(uid(owner)).into_iter().flatten();
        let free = orphans.get(namespace(owner)).into_iter().flatten();
        own.chain(free).copied().collect()
    };
    let busy = touched(actions);
    for set in region
        .replica_sets
        .iter()
        .filter(|set| !busy.contains(uid(&set.metadata)))
    {
        actions.extend(replica_set::plan(set, &near(&set.metadata), facts.now, facts.seed));
    }
    let claims = by_namespace(region.claims.iter());
    let jobs: Vec<&Job> = region.jobs.iter().collect();
    for job in &jobs {
        let own = owned.get(uid(&job.metadata)).map(Vec::as_slice).unwrap_or_default();
        actions.extend(job::plan(job, own, facts.now, facts.seed));
    }
    actions.extend(job::release(&jobs, region.pods.iter()));
    let revisions = by_namespace(region.revisions.iter());
    for set in region.stateful_sets.iter() {
        let namespace = namespace(&set.metadata);
        let near = stateful_set::Near {
            pods: &near(&set.metadata),
            claims: claims.get(namespace).map(Vec::as_slice).unwrap_or_default(),
            revisions: revisions.get(namespace).map(Vec::as_slice).unwrap_or_default(),
        };
        actions.extend(stateful_set::plan(set, near, facts.now));
    }
    for set in region.daemon_sets.iter() {
        let own = owned.get(uid(&set.metadata)).map(Vec::as_slice).unwrap_or_default();
        let revisions = revisions
            .get(namespace(&set.metadata))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let at = (facts.now, facts.seed);
        actions.extend(daemon_set::plan(set, own, region.nodes.iter(), revisions, at));
    }
}

fn plan_budgets(region: &Region, now: Timestamp, actions: &mut Vec<Action>) {
    let pods = by_namespace(region.pods.iter());
    let replicas = |uid_: &str| {
        let set = region.replica_sets.iter().find(|set| uid(&set.metadata) == uid_);
        if let Some(set) = set {
            let owner = controller(&set.metadata).map_or("", |owner| owner.uid.as_str());
            let deployment = region.deployments.iter().find(|one| uid(&one.metadata) == owner);
            return match deployment {
                Some(deployment) => deployment.spec.as_ref()?.replicas,
                None => set.spec.as_ref()?.replicas,
            };
        }
        let set = region.stateful_sets.iter().find(|set| uid(&set.metadata) == uid_)?;
        set.spec.as_ref()?.replicas
    };
    for budget in region.budgets.iter() {
        let near = pods
            .get(namespace(&budget.metadata))
            .map(Vec::as_slice)
            .unwrap_or_default();
        actions.extend(disruption::plan(budget, near, replicas, now));
    }
}

fn plan_endpoints(region: &Region, actions: &mut Vec<Action>) {
    let pods = by_namespace(region.pods.iter());
    let slices = by_namespace(region.slices.iter());
    let (no_pods, no_slices): (Vec<&Pod>, Vec<&EndpointSlice>) = (Vec::new(), Vec::new());
    for service in region.services.iter() {
        let namespace = namespace(&service.metadata);
        let pods = pods.get(namespace).unwrap_or(&no_pods);
        let slices = slices.get(namespace).unwrap_or(&no_slices);
        actions.extend(endpoints::plan(service, pods, slices));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::controllers::samples::{now, object_of};

    fn region(namespace: serde_json::Value) -> Region {
        let mut region = Region::default();
        let mut meta = json!({"name": "shop", "uid": "ns", "resourceVersion": "1"});
        json_patch::merge(&mut meta, &namespace);
        region
            .namespaces
            .wrote(object_of(json!({ "metadata": meta })), Instant::now());
        let set = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "set", "resourceVersion": "2"},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
            },
        });
        region.replica_sets.wrote(object_of(set), Instant::now());
        region
    }

    fn planned(region: &Region) -> Vec<Action> {
        let facts = Facts {
            signs: &HashMap::new(),
            volumes: Path::new("/volumes"),
            now: now(),
            seed: 1,
        };
        plan(region, &facts)
    }

    fn creates_pod(actions: &[Action]) -> bool {
        let is_pod = |action: &Action| {
            matches!(
                action,
                Action::Create {
                    kind: super::super::action::Kind::Pod,
                    ..
                }
            )
        };
        actions.iter().any(is_pod)
    }

    #[test]
    fn nothing_is_created_in_a_namespace_that_is_being_deleted() {
        assert!(creates_pod(&planned(&region(json!({})))));
        let ending = json!({"deletionTimestamp": now().to_string()});
        assert!(!creates_pod(&planned(&region(ending))));
    }

    #[test]
    fn a_replica_set_that_its_deployment_changes_waits_for_the_next_look() {
        let mut region = region(json!({}));
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "dep", "resourceVersion": "3"},
            "spec": {
                "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
            },
        });
        region.deployments.wrote(object_of(deployment), Instant::now());
        let set = json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "set", "resourceVersion": "4", "labels": {"app": "web"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "dep", "controller": true}],
            },
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
            },
        });
        region.replica_sets.wrote(object_of(set), Instant::now());
        let actions = planned(&region);
        assert!(
            actions
                .iter()
                .any(|action| action.target().is_some_and(|target| target.uid == "set")),
            "{actions:?}"
        );
        assert!(!creates_pod(&actions), "{actions:?}");
    }
}
