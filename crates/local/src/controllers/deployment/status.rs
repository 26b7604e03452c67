//! What a Deployment says about itself.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use serde_json::json;

use super::{Set, View};
use crate::controllers::{
    action::{Action, Kind, Target, value},
    object::{self, is_active, is_ready},
    replica_set::{differs, omit_zero},
};

/// How far a Deployment has come, in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    replicas: usize,
    updated: usize,
    ready: usize,
    available: usize,
    terminating: usize,
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
            terminating: sets
                .iter()
                .flat_map(|set| &set.pods)
                .filter(|pod| object::is_ending(pod))
                .count(),
        }
    }

    /// Further than the Deployment's status says.
    fn is_beyond(&self, deployment: &Deployment) -> bool {
        let status = deployment.status.clone().unwrap_or_default();
        let count = |number: Option<i32>| usize::try_from(number.unwrap_or(0)).unwrap_or(0);
        let old = count(status.replicas).saturating_sub(count(status.updated_replicas));
        self.updated > count(status.updated_replicas)
            || self.ready > count(status.ready_replicas)
            || self.available > count(status.available_replicas)
            || self.replicas.saturating_sub(self.updated) < old
    }

    /// Every wanted pod is of the new template and available, and no other is left.
    pub(super) fn is_complete(&self, wanted: i32) -> bool {
        let wanted = usize::try_from(wanted).unwrap_or(0);
        self.updated == wanted && self.replicas == wanted && self.available == wanted
    }
}

/// The patch of the status, if it changed, and when to look at it again. `created` is the name of a set that is about to be created.
pub(super) fn plan(view: &View<'_>, progress: &Progress, created: Option<&str>) -> Vec<Action> {
    let deployment = view.deployment;
    let total: i32 = view.all().map(Set::replicas).sum();
    let total = usize::try_from(total).unwrap_or(0);
    let mut conditions = Conditions::of(deployment, view.now);
    let mut actions = Vec::new();
    // The largest number stands for no deadline at all.
    let deadline = view.spec.progress_deadline_seconds.unwrap_or(600);
    if deadline < i32::MAX {
        conditions.pause(view.spec.paused == Some(true));
        conditions.found(view.new.map(Set::name), created);
        conditions.availability(progress.available >= least(view));
        if view.spec.paused != Some(true) {
            actions.extend(conditions.progress(view, progress, deadline));
        }
    } else {
        conditions.list.retain(|condition| condition.type_ != "Progressing");
        conditions.availability(progress.available >= least(view));
    }
    let status = json!({
        "replicas": omit_zero(progress.replicas),
        "updatedReplicas": omit_zero(progress.updated),
        "readyReplicas": omit_zero(progress.ready),
        "availableReplicas": omit_zero(progress.available),
        "unavailableReplicas": omit_zero(total.saturating_sub(progress.available)),
        "terminatingReplicas": progress.terminating,
        "observedGeneration": deployment.metadata.generation,
        "conditions": value(&conditions.list),
    });
    if differs(&value(&deployment.status), &status) {
        actions.push(Action::status(
            Target::new(Kind::Deployment, &deployment.metadata),
            status,
        ));
    }
    actions
}

fn least(view: &View<'_>) -> usize {
    usize::try_from(view.wanted - view.limits.unavailable).unwrap_or(0)
}

// A Deployment's conditions while they are brought up to date; one that changes goes to the end.
struct Conditions<'a> {
    deployment: &'a Deployment,
    list: Vec<DeploymentCondition>,
    // A condition is written with whole seconds.
    now: Timestamp,
}

impl<'a> Conditions<'a> {
    fn of(deployment: &'a Deployment, now: Timestamp) -> Self {
        let status = deployment.status.as_ref();
        Self {
            deployment,
            list: status.and_then(|status| status.conditions.clone()).unwrap_or_default(),
            now: Timestamp::from_second(now.as_second()).unwrap_or(now),
        }
    }

    fn find(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    fn reason(&self) -> &str {
        let progressing = self.find("Progressing");
        progressing
            .and_then(|condition| condition.reason.as_deref())
            .unwrap_or_default()
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let same = self.find(kind);
        let same = same.is_some_and(|there| there.status == status && there.reason.as_deref() == Some(reason));
        if !same {
            self.renew(kind, status, reason, message);
        }
    }

    // Also where only the time of the update changes.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let now = object::time(self.now);
        let before = self.find(kind).filter(|there| there.status == status);
        let since = before.and_then(|there| there.last_transition_time.clone());
        self.list.retain(|condition| condition.type_ != kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or_else(|| Some(now.clone())),
            last_update_time: Some(now),
        });
    }

    // A rollout that was paused for long has not failed when it goes on.
    fn pause(&mut self, paused: bool) {
        match (self.reason(), paused) {
            ("ProgressDeadlineExceeded", _) => {}
            (_, true) => self.set(
                "Progressing",
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused".into(),
            ),
            ("DeploymentPaused", false) => {
                self.set(
                    "Progressing",
                    "Unknown",
                    "DeploymentResumed",
                    "Deployment is resumed".into(),
                );
            }
            _ => {}
        }
    }

    fn found(&mut self, new: Option<&str>, created: Option<&str>) {
        if let Some(name) = created {
            let message = format!("Created new replica set {name:?}");
            self.set("Progressing", "True", "NewReplicaSetCreated", message);
        } else if let Some(name) = new.filter(|_| self.find("Progressing").is_none()) {
            let message = format!("Found new replica set {name:?}");
            self.set("Progressing", "True", "FoundNewReplicaSet", message);
        }
    }

    fn availability(&mut self, enough: bool) {
        let (status, reason, has) = if enough {
            ("True", "MinimumReplicasAvailable", "has")
        } else {
            ("False", "MinimumReplicasUnavailable", "does not have")
        };
        let message = format!("Deployment {has} minimum availability.");
        self.set("Available", status, reason, message);
    }

    fn progress(&mut self, view: &View<'_>, progress: &Progress, deadline: i32) -> Option<Action> {
        let complete = self.reason() == "NewReplicaSetAvailable";
        if complete && progress.replicas == progress.updated {
            // The rollout was complete; that a pod is not available now is no rollout.
            return None;
        }
        let who = match view.new {
            Some(new) => format!("ReplicaSet {:?}", new.name()),
            None => format!(
                "Deployment {:?}",
                view.deployment.metadata.name.as_deref().unwrap_or_default()
            ),
        };
        if progress.is_complete(view.wanted) && view.new.is_some() {
            let message = format!("{who} has successfully progressed.");
            self.set("Progressing", "True", "NewReplicaSetAvailable", message);
        } else if progress.is_beyond(self.deployment) {
            self.renew(
                "Progressing",
                "True",
                "ReplicaSetUpdated",
                format!("{who} is progressing."),
            );
        } else if !complete && self.reason() != "ProgressDeadlineExceeded" {
            let since = self
                .find("Progressing")?
                .last_update_time
                .as_ref()
                .map_or(self.now, |time| time.0);
            let deadline = SignedDuration::from_secs(i64::from(deadline));
            let end = since.checked_add(deadline).unwrap_or(Timestamp::MAX);
            if end > view.now {
                return Some(Action::LookAgain(end));
            }
            let message = format!("{who} has timed out progressing.");
            self.set("Progressing", "False", "ProgressDeadlineExceeded", message);
        }
        None
    }
}
