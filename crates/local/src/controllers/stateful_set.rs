//! StatefulSet: pods with stable names and claims of their own, started and ended one after another.
//!
//! A name is used again only when the pod that had it is gone. By default (`OrderedReady`) pod `n` starts when pod `n-1` is available, and
//! pods end from the highest; `Parallel` waits for none of that. A new template replaces pods from the highest down to
//! `partition`, one at a time.

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetSpec},
    core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume},
};
use kube::core::ObjectMeta;
use serde_json::json;

use super::{
    action::{self, Action, Kind, Target, value},
    object::{self, is_active, is_ready, is_terminating},
    replica_set::differs,
};

const REVISION_LABEL: &str = "controller-revision-hash";
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// What to do for one StatefulSet. `pods` and `claims` are those of its namespace.
pub fn plan(set: &StatefulSet, pods: &[&Pod], claims: &[&PersistentVolumeClaim], now: Timestamp) -> Vec<Action> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let view = View::of(set, spec, pods, now);
    let mut actions = Vec::new();
    if !is_terminating(&set.metadata) {
        actions.extend(view.adoptions());
        actions.extend(view.scale(claims));
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
    revision: String,
    min_ready: i32,
    parallel: bool,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn of(set: &'a StatefulSet, spec: &'a StatefulSetSpec, pods: &[&'a Pod], now: Timestamp) -> Self {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let mut owned: Vec<(i32, &Pod)> = Vec::new();
        let mut orphans = Vec::new();
        for pod in pods {
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
        let template = value(&spec.template).to_string();
        Self {
            set,
            spec,
            owned,
            orphans,
            first,
            end: first.saturating_add(spec.replicas.unwrap_or(1).max(0)),
            revision: format!("{name}-{}", object::short_hash(&[template.as_bytes()], 10)),
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
                    actions.push(Action::delete(Target::new(Kind::Pod, &pod.metadata)));
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
        let ending = surplus.iter().any(|pod| is_terminating(&pod.metadata));
        let mut next = surplus.iter().filter(|pod| !is_terminating(&pod.metadata));
        let delete = |pod: &&Pod| Action::delete(Target::new(Kind::Pod, &pod.metadata));
        if self.parallel {
            actions.extend(next.map(delete));
        } else if !ending {
            actions.extend(next.next().map(delete));
        }
        if actions.is_empty() && surplus.is_empty() {
            actions.extend(self.update(whole));
        }
        actions
    }

    // One pod at a time; the next one when all are available again.
    fn update(&self, whole: bool) -> Option<Action> {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        let partition = strategy
            .and_then(|strategy| strategy.rolling_update.as_ref()?.partition)
            .unwrap_or(0);
        let outdated = |pod: &Pod| revision_of(pod) != Some(self.revision.as_str());
        let candidates = self
            .owned
            .iter()
            .rev()
            .filter(|(ordinal, pod)| *ordinal - self.first >= partition && outdated(pod));
        let mut candidates = candidates.map(|(_, pod)| *pod);
        // A pod of the old template that is not available would hold up the very change that may mend it.
        let broken = candidates
            .clone()
            .find(|pod| !self.is_available(pod) && !is_terminating(&pod.metadata));
        let next = if whole {
            candidates.next()
        } else {
            broken.filter(|_| self.only_outdated_are_broken())
        };
        next.map(|pod| Action::delete(Target::new(Kind::Pod, &pod.metadata)))
    }

    fn only_outdated_are_broken(&self) -> bool {
        self.owned.iter().all(|(_, pod)| {
            self.is_available(pod) || revision_of(pod) != Some(self.revision.as_str()) && !is_terminating(&pod.metadata)
        })
    }

    fn pod_name(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.set.metadata.name.as_deref().unwrap_or_default())
    }

    // First its claims, then the pod.
    fn create(&self, ordinal: i32, claims: &[&PersistentVolumeClaim]) -> Vec<Action> {
        let name = self.pod_name(ordinal);
        let template = self.spec.template.clone();
        let meta = template.metadata.unwrap_or_default();
        let mut labels = meta.labels.unwrap_or_default();
        labels.insert(POD_NAME_LABEL.to_owned(), name.clone());
        labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
        labels.insert(REVISION_LABEL.to_owned(), self.revision.clone());
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
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: self.set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: meta.annotations,
                finalizers: meta.finalizers,
                owner_references: Some(vec![object::owner_reference(self.set)]),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            ..Pod::default()
        };
        actions.push(action::create(Kind::Pod, &pod));
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
        let active: Vec<&Pod> = self
            .owned
            .iter()
            .map(|(_, pod)| *pod)
            .filter(|pod| is_active(pod))
            .collect();
        let updated = active
            .iter()
            .filter(|pod| revision_of(pod) == Some(self.revision.as_str()))
            .count();
        let complete = updated == active.len();
        let known = self
            .set
            .status
            .as_ref()
            .and_then(|status| status.current_revision.clone());
        let current = known.filter(|_| !complete).unwrap_or_else(|| self.revision.clone());
        let wanted = json!({
            "replicas": active.len(),
            "readyReplicas": active.iter().filter(|pod| is_ready(pod)).count(),
            "availableReplicas": active.iter().filter(|pod| self.is_available(pod)).count(),
            "currentReplicas": active.iter().filter(|pod| revision_of(pod) == Some(current.as_str())).count(),
            "updatedReplicas": updated,
            "currentRevision": current,
            "updateRevision": self.revision,
            "observedGeneration": self.set.metadata.generation,
        });
        differs(&value(&self.set.status), &wanted)
            .then(|| Action::status(Target::new(Kind::StatefulSet, &self.set.metadata), wanted))
    }
}

fn revision_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(REVISION_LABEL).map(String::as_str)
}

fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    let digits = pod.metadata.name.as_deref()?.strip_prefix(set)?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    (ordinal.to_string() == digits).then_some(ordinal)
}

#[cfg(test)]
mod tests;
