//! StatefulSet: pods with stable names and claims of their own, started and ended one after another.
//!
//! A name is used again only when the pod that had it is gone. By default (`OrderedReady`) pod `n` starts when pod `n-1` is available, and
//! pods end from the highest; `Parallel` waits for none of that. A new template replaces pods from the highest down to
//! `partition`, one at a time, and a pod below that is made of the template from before. With `OrderedReady` a pod that never gets ready
//! holds up also the template that would mend it, as it does in every cluster: somebody has to delete it.

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec},
    core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
};
use kube::core::ObjectMeta;
use serde_json::json;

use super::{
    action::{self, Action, Kind, News, Target, value},
    object::{self, is_active, is_ready, is_terminating},
    replica_set::{differs, omit_zero},
    revision::{self, Newest},
};

const FROM: &str = "statefulset-controller";
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// What a StatefulSet's plan looks at: what is in its namespace.
#[derive(Debug, Clone, Copy)]
pub struct Near<'a> {
    /// The pods that it controls or that nobody does.
    pub pods: &'a [&'a Pod],
    /// The claims.
    pub claims: &'a [&'a PersistentVolumeClaim],
    /// The revisions.
    pub revisions: &'a [&'a ControllerRevision],
}

/// What to do for one StatefulSet.
pub fn plan(set: &StatefulSet, near: Near<'_>, now: Timestamp) -> Vec<Action> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let view = View::of(set, spec, near, now);
    let mut actions = Vec::new();
    if !is_terminating(&set.metadata) {
        actions.extend(view.newest.action.clone());
        actions.extend(view.adoptions());
        actions.extend(view.scale(near.claims));
        actions.extend(view.forget());
    }
    let soon = view
        .owned
        .iter()
        .filter_map(|(_, pod)| object::available_from(pod, view.min_ready))
        .filter(|from| *from > now);
    actions.extend(soon.min().map(Action::LookAgain));
    actions.extend(view.status());
    actions
}

struct View<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    // By ordinal, ascending; those that end included.
    owned: Vec<(i32, &'a Pod)>,
    orphans: Vec<&'a Pod>,
    // The lowest ordinal and the one after the highest.
    first: i32,
    end: i32,
    // The revisions that it controls, from the oldest to the newest.
    revisions: Vec<&'a ControllerRevision>,
    newest: Newest,
    // The name of the revision that it had before, until every pod is of the newest.
    current: String,
    min_ready: i32,
    parallel: bool,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn of(set: &'a StatefulSet, spec: &'a StatefulSetSpec, near: Near<'a>, now: Timestamp) -> Self {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let mut owned: Vec<(i32, &Pod)> = Vec::new();
        let mut orphans = Vec::new();
        for pod in near.pods {
            let Some(ordinal) = ordinal(name, pod) else { continue };
            if object::controls(&set.metadata, &pod.metadata) {
                owned.push((ordinal, pod));
            } else if object::controller(&pod.metadata).is_none()
                && is_active(pod)
                && object::selects(&spec.selector, pod.metadata.labels.as_ref())
            {
                orphans.push(*pod);
            }
        }
        owned.sort_by_key(|(ordinal, _)| *ordinal);
        let first = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let status = set.status.clone().unwrap_or_default();
        let revisions = revision::of(&set.metadata, near.revisions);
        let collisions = status.collision_count.unwrap_or(0);
        let newest = revision::newest(
            set,
            &spec.template,
            (&revisions, near.revisions),
            revision::HASH,
            collisions,
        );
        let known = |name: &String| revisions.iter().any(|one| one.metadata.name.as_ref() == Some(name));
        let current = status
            .current_revision
            .filter(known)
            .unwrap_or_else(|| newest.name.clone());
        Self {
            set,
            spec,
            owned,
            orphans,
            first,
            end: first.saturating_add(spec.replicas.unwrap_or(1).max(0)),
            revisions,
            newest,
            current,
            min_ready: spec.min_ready_seconds.unwrap_or(0),
            parallel: spec.pod_management_policy.as_deref() == Some("Parallel"),
            now,
        }
    }

    fn adoptions(&self) -> Vec<Action> {
        let adopt = |pod: &&Pod| {
            Action::patch(
                Target::new(Kind::Pod, &pod.metadata),
                object::adoption(self.set, &pod.metadata),
            )
        };
        self.orphans.iter().map(adopt).collect()
    }

    fn is_available(&self, pod: &Pod) -> bool {
        object::is_available(pod, self.min_ready, self.now)
    }

    fn pod(&self, ordinal: i32) -> Option<&'a Pod> {
        self.owned.iter().find(|(own, _)| *own == ordinal).map(|(_, pod)| *pod)
    }

    fn scale(&self, claims: &[&PersistentVolumeClaim]) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut whole = true;
        for ordinal in self.first..self.end {
            match self.pod(ordinal) {
                None => {
                    whole = false;
                    // An orphan of this name is taken first.
                    let name = self.pod_name(ordinal);
                    if !self
                        .orphans
                        .iter()
                        .any(|pod| pod.metadata.name.as_deref() == Some(&name))
                    {
                        actions.extend(self.create(ordinal, claims));
                    }
                }
                Some(pod) if is_terminating(&pod.metadata) => whole = false,
                Some(pod) if object::has_ended(pod) => {
                    whole = false;
                    actions.extend(self.delete(pod));
                }
                Some(pod) if !self.is_available(pod) => whole = false,
                Some(_) => {}
            }
            if !whole && !self.parallel {
                break;
            }
        }
        let surplus: Vec<&Pod> = self
            .owned
            .iter()
            .rev()
            .filter(|(ordinal, _)| !(self.first..self.end).contains(ordinal))
            .map(|(_, pod)| *pod)
            .collect();
        if self.parallel {
            let left = surplus.iter().filter(|pod| !is_terminating(&pod.metadata));
            actions.extend(left.flat_map(|pod| self.delete(pod)));
        } else if whole && let Some(highest) = surplus.first() {
            // One that does not run goes only once nothing before it needs mending.
            let broken = surplus.iter().rev().find(|pod| !self.is_available(pod));
            let its_turn =
                self.is_available(highest) || broken.is_some_and(|broken| broken.metadata.uid == highest.metadata.uid);
            if !is_terminating(&highest.metadata) && its_turn {
                actions.extend(self.delete(highest));
            }
        }
        if actions.is_empty() && surplus.is_empty() && (whole || self.parallel) {
            actions.extend(self.update());
        }
        actions
    }

    // One pod at a time, the highest first; the next one when that is available again.
    fn update(&self) -> Vec<Action> {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return Vec::new();
        }
        let from = self.first.saturating_add(self.partition().unwrap_or(0));
        for (_, pod) in self.owned.iter().rev().filter(|(ordinal, _)| *ordinal >= from) {
            if revision_of(pod) != Some(self.newest.name.as_str()) && !is_terminating(&pod.metadata) {
                return self.delete(pod);
            }
            if !self.is_available(pod) {
                break;
            }
        }
        Vec::new()
    }

    fn partition(&self) -> Option<i32> {
        let rolling = self.spec.update_strategy.as_ref()?.rolling_update.as_ref()?;
        Some(rolling.partition.unwrap_or(0))
    }

    // The name and the template of the revision of which a pod is made anew.
    fn revision_for(&self, ordinal: i32) -> (&str, PodTemplateSpec) {
        let kept = || self.set.status.as_ref()?.current_replicas;
        let strategy = self.spec.update_strategy.as_ref();
        let on_delete = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
        let earlier = self.partition().or_else(|| kept().filter(|_| !on_delete)).unwrap_or(0);
        if ordinal < self.first.saturating_add(earlier) && self.current != self.newest.name {
            let current = self
                .revisions
                .iter()
                .find(|one| one.metadata.name.as_ref() == Some(&self.current));
            if let Some(template) = current.and_then(|current| revision::template(current)) {
                return (&self.current, template);
            }
        }
        (&self.newest.name, self.spec.template.clone())
    }

    fn delete(&self, pod: &Pod) -> Vec<Action> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        vec![
            Action::delete(Target::new(Kind::Pod, &pod.metadata)),
            self.tell("SuccessfulDelete", &format!("Delete Pod {name}"), "successful"),
        ]
    }

    fn tell(&self, reason: &'static str, what: &str, end: &str) -> Action {
        let set = self.set.metadata.name.as_deref().unwrap_or_default();
        let message = format!("{what} in StatefulSet {set} {end}");
        Action::told(
            Target::new(Kind::StatefulSet, &self.set.metadata),
            News::normal(FROM, reason, message),
        )
    }

    fn forget(&self) -> Vec<Action> {
        let of_pods = self.owned.iter().filter_map(|(_, pod)| revision_of(pod));
        let used: Vec<&str> = of_pods.chain([self.current.as_str(), &self.newest.name]).collect();
        revision::forget(&self.revisions, &used, self.spec.revision_history_limit)
    }

    fn pod_name(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.set.metadata.name.as_deref().unwrap_or_default())
    }

    // First its claims, then the pod.
    fn create(&self, ordinal: i32, claims: &[&PersistentVolumeClaim]) -> Vec<Action> {
        let name = self.pod_name(ordinal);
        let (revision, template) = self.revision_for(ordinal);
        let mut meta = template.metadata.unwrap_or_default();
        let labels = meta.labels.get_or_insert_default();
        labels.insert(POD_NAME_LABEL.to_owned(), name.clone());
        labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
        labels.insert(revision::LABEL.to_owned(), revision.to_owned());
        let mut spec = template.spec.unwrap_or_default();
        spec.hostname = Some(name.clone());
        spec.subdomain = self.spec.service_name.clone().filter(|service| !service.is_empty());
        let mut actions = Vec::new();
        for template in self.spec.volume_claim_templates.iter().flatten() {
            let volume = template.metadata.name.clone().unwrap_or_default();
            let claim = format!("{volume}-{name}");
            if !claims
                .iter()
                .any(|there| there.metadata.name.as_deref() == Some(&claim))
            {
                actions.push(self.claim(template, claim.clone()));
                let what = format!("Create Claim {claim} Pod {name}");
                actions.push(self.tell("SuccessfulCreate", &what, "success"));
            }
            let volumes = spec.volumes.get_or_insert_default();
            volumes.retain(|there| there.name != volume);
            volumes.push(Volume {
                name: volume,
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim,
                    read_only: None,
                }),
                ..Volume::default()
            });
        }
        let created = self.tell("SuccessfulCreate", &format!("Create Pod {name}"), "successful");
        let pod = object::pod_of(self.set, name, meta, Some(spec));
        actions.push(action::create(Kind::Pod, &pod));
        actions.push(created);
        actions
    }

    fn claim(&self, template: &PersistentVolumeClaim, name: String) -> Action {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(self.spec.selector.match_labels.clone().unwrap_or_default());
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: self.set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        };
        action::create(Kind::PersistentVolumeClaim, &claim)
    }

    fn status(&self) -> Option<Action> {
        let pods = || self.owned.iter().map(|(_, pod)| *pod);
        let is_running_and_ready = |pod: &&Pod| object::phase(pod) == "Running" && is_ready(pod);
        let of = |revision: &str| {
            pods()
                .filter(|pod| !is_terminating(&pod.metadata) && revision_of(pod) == Some(revision))
                .count()
        };
        let (all, ready) = (pods().count(), pods().filter(is_running_and_ready).count());
        let updated = of(&self.newest.name);
        let wanted = usize::try_from(self.end - self.first).unwrap_or(0);
        let strategy = self.spec.update_strategy.as_ref();
        let on_delete = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
        let complete = !on_delete && [all, ready, updated] == [wanted; 3];
        let current = if complete { &self.newest.name } else { &self.current };
        let wanted = json!({
            "replicas": all,
            "readyReplicas": omit_zero(ready),
            "availableReplicas": pods().filter(|pod| self.is_available(pod)).count(),
            "currentReplicas": omit_zero(of(current)),
            "updatedReplicas": omit_zero(updated),
            "currentRevision": current,
            "updateRevision": self.newest.name,
            "collisionCount": self.newest.collisions,
            "observedGeneration": self.set.metadata.generation,
        });
        differs(&value(&self.set.status), &wanted)
            .then(|| Action::status(Target::new(Kind::StatefulSet, &self.set.metadata), wanted))
    }
}

fn revision_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(revision::LABEL).map(String::as_str)
}

fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    let digits = pod.metadata.name.as_deref()?.strip_prefix(set)?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    (ordinal.to_string() == digits).then_some(ordinal)
}

#[cfg(test)]
mod tests;
