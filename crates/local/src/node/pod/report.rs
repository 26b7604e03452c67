//! Writes a pod's status whenever it changed; the newest wins, and a write that failed is tried again. What others write over it is put
//! right: while a node is not heard of, its pods are called unready, and only the node knows when they are ready again.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};

use super::Life;

/// Runs until it is aborted or the object is gone.
pub(super) async fn report(life: std::sync::Arc<Life>) {
    let mut written = life.pod().status.clone().unwrap_or_default();
    let mut wait = Duration::from_millis(50);
    loop {
        let status = current(&life, &written);
        if status == written {
            match overwritten(&life, &written).await {
                Ok(None) => life.shared.changed.notified().await,
                Ok(Some(theirs)) => written = theirs,
                Err(kube::Error::Api(answer)) if answer.code == 404 => return,
                Err(_) => tokio::time::sleep(wait).await,
            }
            continue;
        }
        match write(&life, &status).await {
            Ok(()) => {
                written = status;
                wait = Duration::from_millis(50);
            }
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return,
            Err(error) => {
                tracing::debug!(pod = %life.shared.name, %error, "cannot write the pod's status yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
        }
    }
}

/// One last status: every container has ended.
pub(super) async fn final_status(life: &Life) {
    let status = current(life, &life.pod().status.clone().unwrap_or_default());
    let _ = tokio::time::timeout(Duration::from_secs(1), write(life, &status)).await;
}

/// The status now. Conditions of others come from the newest object, transition times from what was written last.
fn current(life: &Life, written: &PodStatus) -> PodStatus {
    let pod = life.pod();
    let mut previous = written.clone();
    let mut conditions = previous.conditions.take().unwrap_or_default();
    for theirs in pod.status.iter().flat_map(|status| status.conditions.iter().flatten()) {
        if !MINE.contains(&theirs.type_.as_str()) {
            conditions.retain(|condition| condition.type_ != theirs.type_);
            conditions.push(theirs.clone());
        }
    }
    previous.conditions = Some(conditions);
    life.shared
        .state()
        .status(&pod, life.place.host_ip, &previous, Timestamp::now())
}

/// The status in the API where it says otherwise than what was written. The object that the node watches may be older than that, so a
/// difference in it is looked at again.
async fn overwritten(life: &Life, written: &PodStatus) -> Result<Option<PodStatus>, kube::Error> {
    let seen = |pod: &Pod| pod.status.as_ref().is_some_and(|status| mine(status) == mine(written));
    if seen(&life.pod()) {
        return Ok(None);
    }
    let api: Api<Pod> = Api::namespaced(life.node.client.clone(), &life.shared.namespace);
    let pod = api.get(&life.shared.name).await?;
    let same = pod.metadata.uid.as_ref() == Some(&life.shared.uid);
    Ok(if same && !seen(&pod) { pod.status } else { None })
}

/// What the node says of itself, each with its state.
fn mine(status: &PodStatus) -> BTreeMap<&str, &str> {
    let conditions = status.conditions.iter().flatten();
    conditions
        .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
        .filter(|(type_, _)| MINE.contains(type_))
        .collect()
}

/// The conditions that the node writes.
const MINE: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

async fn write(life: &Life, status: &PodStatus) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(life.node.client.clone(), &life.shared.namespace);
    let patch = serde_json::json!({"metadata": {"uid": life.shared.uid}, "status": status});
    api.patch_status(&life.shared.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(drop)
}
