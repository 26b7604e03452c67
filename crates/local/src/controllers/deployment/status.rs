//! What a Deployment says about itself.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use serde_json::json;

use super::{Limits, Set};
use crate::controllers::{
    action::{Action, Kind, Target, value},
    object::{self, is_active, is_ready},
    replica_set::differs,
};

/// How far a Deployment has come, in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    replicas: usize,
    updated: usize,
    ready: usize,
    available: usize,
}

impl Progress {
    pub(super) fn of(sets: &[Set<'_>], new: Option<&Set<'_>>, min_ready: i32, now: Timestamp) -> Self {
        let count = |sets: &[Set<'_>], test: &dyn Fn(&k8s_openapi::api::core::v1::Pod) -> bool| {
            sets.iter()
                .flat_map(|set| &set.pods)
                .filter(|pod| is_active(pod) && test(pod))
                .count()
        };
        Self {
            replicas: count(sets, &|_| true),
            updated: new.map_or(0, |new| count(std::slice::from_ref(new), &|_| true)),
            ready: count(sets, &is_ready),
            available: count(sets, &|pod| object::is_available(pod, min_ready, now)),
        }
    }

    /// Every wanted pod is of the new template and available, and no other is left.
    pub(super) fn is_complete(&self, wanted: i32) -> bool {
        let wanted = usize::try_from(wanted).unwrap_or(0);
        self.updated == wanted && self.replicas == wanted && self.available == wanted
    }
}

struct Finding {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

/// The patch of the status, if it changed, and when to look at it again.
pub(super) fn plan(deployment: &Deployment, progress: &Progress, limits: Limits, now: Timestamp) -> Vec<Action> {
    let spec = deployment.spec.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1).max(0);
    let total = usize::try_from(wanted).unwrap_or(0).max(progress.replicas);
    let enough = progress.available >= usize::try_from(wanted - limits.unavailable).unwrap_or(0);
    let available = Finding {
        kind: "Available",
        status: if enough { "True" } else { "False" },
        reason: if enough {
            "MinimumReplicasAvailable"
        } else {
            "MinimumReplicasUnavailable"
        },
        message: format!(
            "Deployment {} minimum availability.",
            if enough { "has" } else { "does not have" }
        ),
    };
    let mut actions = Vec::new();
    let deadline = spec.and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
    let (progressing, touched) = progressing(deployment, progress, wanted, deadline, now, &mut actions);
    let conditions = vec![
        condition(deployment, available, false, now),
        condition(deployment, progressing, touched, now),
    ];
    let status = json!({
        "replicas": progress.replicas,
        "updatedReplicas": progress.updated,
        "readyReplicas": progress.ready,
        "availableReplicas": progress.available,
        "unavailableReplicas": total - progress.available.min(total),
        "observedGeneration": deployment.metadata.generation,
        "conditions": value(&conditions),
    });
    if differs(&value(&deployment.status), &status) {
        actions.push(Action::status(
            Target::new(Kind::Deployment, &deployment.metadata),
            status,
        ));
    }
    actions
}

// Also says whether there was progress, which begins the deadline anew.
fn progressing(
    deployment: &Deployment,
    progress: &Progress,
    wanted: i32,
    deadline: i32,
    now: Timestamp,
    actions: &mut Vec<Action>,
) -> (Finding, bool) {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let finding = |status, reason, message: String| Finding {
        kind: "Progressing",
        status,
        reason,
        message,
    };
    let available = || {
        let message = format!("Deployment {name:?} has successfully progressed.");
        finding("True", "NewReplicaSetAvailable", message)
    };
    let updated = || {
        finding(
            "True",
            "ReplicaSetUpdated",
            format!("Deployment {name:?} is progressing."),
        )
    };
    if progress.is_complete(wanted) {
        return (available(), false);
    }
    let status = deployment.status.clone().unwrap_or_default();
    let count = |number: Option<i32>| usize::try_from(number.unwrap_or(0)).unwrap_or(0);
    let moved = progress.updated > count(status.updated_replicas)
        || progress.ready > count(status.ready_replicas)
        || progress.available > count(status.available_replicas)
        || count(status.replicas) - count(status.updated_replicas).min(count(status.replicas))
            > progress.replicas - progress.updated.min(progress.replicas);
    let present = find(deployment, "Progressing");
    let new_spec = status.observed_generation != deployment.metadata.generation;
    let Some(present) = present.filter(|_| !moved && !new_spec) else {
        return (updated(), true);
    };
    if present.reason.as_deref() == Some("NewReplicaSetAvailable") {
        // The rollout was complete; that a pod is not available now is no rollout.
        return (available(), false);
    }
    let since = present.last_update_time.as_ref().map_or(now, |time| time.0);
    let end = since
        .checked_add(SignedDuration::from_secs(i64::from(deadline)))
        .unwrap_or(Timestamp::MAX);
    if end <= now {
        let message = format!("Deployment {name:?} has timed out progressing.");
        return (finding("False", "ProgressDeadlineExceeded", message), false);
    }
    actions.push(Action::LookAgain(end));
    (updated(), false)
}

fn find<'a>(deployment: &'a Deployment, kind: &str) -> Option<&'a DeploymentCondition> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn condition(deployment: &Deployment, finding: Finding, touched: bool, now: Timestamp) -> DeploymentCondition {
    let present = find(deployment, finding.kind);
    let same_status = present.filter(|present| present.status == finding.status);
    let same = same_status.filter(|present| present.reason.as_deref() == Some(finding.reason) && !touched);
    // A condition is written with whole seconds.
    let now = object::time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    DeploymentCondition {
        type_: finding.kind.to_owned(),
        status: finding.status.to_owned(),
        reason: Some(finding.reason.to_owned()),
        message: Some(finding.message),
        last_transition_time: same_status
            .and_then(|present| present.last_transition_time.clone())
            .or_else(|| Some(now.clone())),
        last_update_time: same.and_then(|present| present.last_update_time.clone()).or(Some(now)),
    }
}
