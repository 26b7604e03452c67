//! Waiting: until definitions can be used, and until an agent is ready. What is waited for is said whenever it is another thing.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use anyhow::bail;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Pod},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, ListParams},
    core::GroupVersionKind,
    discovery,
};
use leeward_api::install::{AGENT, CONFIG_MAP, NAME};
use serde_json::Value;
use tokio::time::Instant;

use crate::output;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(500);
/// The revision of a Deployment, and of the ReplicaSet that is its newest.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Waits until the cluster serves what the definitions define.
///
/// # Errors
/// It does not in time, or cannot be asked.
pub(super) async fn definitions(client: &Client, objects: &[Value], within: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + within;
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for object in objects {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        loop {
            let why = match api.get_opt(name).await? {
                None => "it is gone again".to_owned(),
                Some(found) => match refused(&found) {
                    None if is_served(client, &found).await => break,
                    None => "the API server does not serve it yet".to_owned(),
                    Some(why) => why,
                },
            };
            if Instant::now() > until {
                bail!("the definition {name} cannot be used after {within:?}: {why}; installing again is safe");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Why a definition is not established, in the API server's words.
fn refused(found: &CustomResourceDefinition) -> Option<String> {
    let conditions = found
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let conditions: Vec<_> = conditions.collect();
    let is = |type_: &str| conditions.iter().find(|one| one.type_ == type_);
    match is("Established") {
        Some(one) if one.status == "True" => None,
        _ => Some(match is("NamesAccepted").filter(|one| one.status == "False") {
            Some(one) => one.message.clone().unwrap_or_default(),
            None => "it is not established yet".to_owned(),
        }),
    }
}

/// Whether the kind can be found, as whoever applies something of it looks for it.
async fn is_served(client: &Client, found: &CustomResourceDefinition) -> bool {
    let Some(version) = found.spec.versions.iter().find(|version| version.served) else {
        return false;
    };
    let gvk = GroupVersionKind::gvk(&found.spec.group, &version.name, &found.spec.names.kind);
    let Ok((resource, _)) = discovery::pinned_kind(client, &gvk).await else {
        return false;
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    api.list(&ListParams::default().limit(1)).await.is_ok()
}

/// Whether the cluster has its region's part.
///
/// # Errors
/// It cannot be asked.
pub(super) async fn is_configured(client: &Client, namespace: &str) -> anyhow::Result<bool> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    Ok(maps.get_opt(CONFIG_MAP).await?.is_some())
}

/// Waits until an agent of what was applied last is ready, and says what it waits for; whether it is.
///
/// # Errors
/// The cluster does not let this user look.
pub(super) async fn agent(client: &Client, namespace: &str, within: Duration) -> anyhow::Result<bool> {
    let until = Instant::now() + within;
    let mut said = String::new();
    loop {
        let waits = match look(client, namespace).await {
            Ok(None) => return Ok(true),
            Ok(Some(waits)) => waits,
            Err(error @ kube::Error::Api(_)) => {
                bail!(
                    "everything is applied; whether an agent is ready cannot be seen: {}",
                    leeward_state::api_text(&error)
                )
            }
            Err(error) => format!("the API server does not answer: {error}"),
        };
        if waits != said {
            output::say(format_args!("waiting for an agent: {waits}"));
            said = waits;
        }
        if Instant::now() > until {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What an agent waits for; nothing where one is ready.
///
/// # Errors
/// The cluster cannot be asked, or does not let this user look.
pub(crate) async fn look(client: &Client, namespace: &str) -> Result<Option<String>, kube::Error> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let Some(deployment) = deployments.get_opt(NAME).await? else {
        return Ok(Some(format!("the Deployment {NAME} is gone")));
    };
    let selected = ListParams::default().labels(&format!("app.kubernetes.io/component={AGENT}"));
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), namespace);
    let sets = sets.list(&selected).await?.items;
    let Some(newest) = newest(&deployment, &sets) else {
        return Ok(Some("the Deployment was not acted on yet".to_owned()));
    };
    let ready = newest.status.as_ref().and_then(|status| status.ready_replicas);
    if ready.unwrap_or_default() > 0 {
        return Ok(None);
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = pods.list(&selected).await?.items;
    let own: Vec<&Pod> = pods
        .iter()
        .filter(|pod| {
            pod.owner_references()
                .iter()
                .any(|owner| Some(&owner.uid) == newest.uid().as_ref())
        })
        .collect();
    Ok(Some(reasons(newest, &own)))
}

/// The ReplicaSet of what the Deployment says now.
fn newest<'a>(deployment: &Deployment, sets: &'a [ReplicaSet]) -> Option<&'a ReplicaSet> {
    let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
    let revision = deployment.annotations().get(REVISION);
    let current = seen >= deployment.metadata.generation && revision.is_some();
    let mut sets = sets.iter().filter(|set| {
        let of_it = set
            .owner_references()
            .iter()
            .any(|owner| Some(&owner.uid) == deployment.uid().as_ref());
        of_it && set.annotations().get(REVISION) == revision
    });
    sets.next().filter(|_| current)
}

/// Why none of the pods is ready, each reason once.
fn reasons(set: &ReplicaSet, pods: &[&Pod]) -> String {
    if pods.is_empty() {
        let conditions = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let failed = conditions.filter(|one| one.type_ == "ReplicaFailure");
        let why = failed.filter_map(|one| one.message.clone()).next();
        return why.unwrap_or_else(|| "there is no pod of it yet".to_owned());
    }
    let reasons: BTreeSet<String> = pods.iter().map(|pod| reason(pod)).collect();
    reasons.into_iter().collect::<Vec<_>>().join("; ")
}

/// Why a pod is not ready. Its name is left out: it is another one each time.
fn reason(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|one| one.type_ == "PodScheduled" && one.status == "False");
    if let Some(one) = unscheduled {
        return format!(
            "a pod is not scheduled: {}",
            one.message.as_deref().unwrap_or("no reason is told")
        );
    }
    let Some(container) = status.container_statuses.iter().flatten().next() else {
        return "a pod is scheduled".to_owned();
    };
    let state = container.state.clone().unwrap_or_default();
    if let Some(waiting) = state.waiting {
        let mut text = format!("a pod waits: {}", waiting.reason.unwrap_or_default());
        if let Some(message) = waiting.message {
            let _ = write!(text, ", {message}");
        }
        let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        if let Some(last) = last {
            let _ = write!(text, "; its agent ended with {}, see `kubectl logs`", last.exit_code);
        }
        return text;
    }
    match state.running {
        Some(_) => {
            "an agent runs and is not ready: it has neither reached the quorum nor its API yet; see `kubectl logs`"
                .to_owned()
        }
        None => "a pod's agent has ended".to_owned(),
    }
}
