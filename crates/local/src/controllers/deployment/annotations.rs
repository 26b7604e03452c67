//! The annotations by which a Deployment's ReplicaSets are its revisions, and by which a change of its scale is known.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::Set;
use crate::controllers::action::{Action, Kind, Target};

/// The number of a revision; the Deployment has that of its newest.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// The replicas that the Deployment had when the set was scaled.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same and what the surge allows beyond it.
pub(super) const MOST: &str = "deployment.kubernetes.io/max-replicas";
// The numbers that a set had before a Deployment went back to it.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const HISTORY_LENGTH: usize = 2000;
// What a set does not take over from its Deployment.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    HISTORY,
    DESIRED,
    MOST,
];

type Annotations = BTreeMap<String, String>;

fn inherited(deployment: &Deployment) -> Annotations {
    let annotations = deployment.metadata.annotations.iter().flatten();
    annotations
        .filter(|(key, _)| !OWN.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What a set says about the scale of its Deployment.
pub(super) fn scale(wanted: i32, surge: i32) -> Annotations {
    let most = wanted.saturating_add(surge);
    [(DESIRED, wanted), (MOST, most)]
        .map(|(key, count)| (key.to_owned(), count.to_string()))
        .into()
}

/// The annotations of a new set.
pub(super) fn first(deployment: &Deployment, revision: u64, wanted: i32, surge: i32) -> Annotations {
    let mut annotations = inherited(deployment);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.extend(scale(wanted, surge));
    annotations
}

/// Brings those of the present template's set up to date, and its `minReadySeconds`.
pub(super) fn renew(deployment: &Deployment, set: &Set<'_>, revision: u64, min_ready: i32) -> Option<Action> {
    let mut wanted = inherited(deployment);
    if set.revision() < revision {
        wanted.insert(REVISION.to_owned(), revision.to_string());
        wanted.extend(set.annotated(REVISION).map(|before| history(set, before)));
    }
    wanted.retain(|key, value| set.annotated(key) != Some(value));
    let mut patch = json!({});
    if !wanted.is_empty() {
        patch["metadata"] = json!({ "annotations": wanted });
    }
    if set
        .set
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or(0)
        != min_ready
    {
        patch["spec"] = json!({ "minReadySeconds": min_ready });
    }
    let changed = patch.as_object().is_some_and(|patch| !patch.is_empty());
    changed.then(|| Action::patch(Target::new(Kind::ReplicaSet, &set.set.metadata), patch))
}

fn history(set: &Set<'_>, before: &str) -> (String, String) {
    let mut all: Vec<&str> = set.annotated(HISTORY).unwrap_or_default().split(',').collect();
    all.retain(|one| !one.is_empty());
    all.push(before);
    while all.len() > 1 && all.join(",").len() > HISTORY_LENGTH {
        all.remove(0);
    }
    (HISTORY.to_owned(), all.join(","))
}

/// The Deployment's own revision.
pub(super) fn renew_deployment(deployment: &Deployment, revision: u64) -> Option<Action> {
    let present = deployment
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(REVISION));
    (present != Some(&revision.to_string())).then(|| {
        Action::patch(
            Target::new(Kind::Deployment, &deployment.metadata),
            json!({"metadata": {"annotations": {REVISION: revision.to_string()}}}),
        )
    })
}
