//! Writes a pod's status whenever it changed; the newest wins, and a write that failed is tried again.

use std::time::Duration;

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
            life.shared.changed.notified().await;
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
