//! Deployment: the ReplicaSet of the present template grows and those of earlier ones shrink, within what may be missing
//! (`maxUnavailable`) and what may be extra (`maxSurge`).

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec},
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::core::ObjectMeta;
use serde_json::json;

use super::{
    action::{self, Action, Kind, Target, value},
    object::{self, is_active, is_terminating},
};

mod status;

/// The label by which a ReplicaSet and its pods are those of one template.
pub const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A ReplicaSet of the Deployment with the pods that it controls.
#[derive(Debug, Clone)]
pub struct Set<'a> {
    /// The ReplicaSet.
    pub set: &'a ReplicaSet,
    /// Its pods, those that end included.
    pub pods: Vec<&'a Pod>,
}

impl Set<'_> {
    /// How many pods it is told to have.
    pub fn replicas(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    // Those beyond its replicas are about to go, and are counted as gone.
    fn available(&self, min_ready: i32, now: Timestamp) -> i32 {
        let available = self
            .pods
            .iter()
            .filter(|pod| object::is_available(pod, min_ready, now))
            .count();
        i32::try_from(available).unwrap_or(i32::MAX).min(self.replicas())
    }

    fn revision(&self) -> u64 {
        let annotations = self.set.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(REVISION)?.parse().ok()).unwrap_or(0)
    }
}

/// How many pods may be missing and extra while a new template rolls out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pods beyond the wanted ones.
    pub surge: i32,
    /// Wanted pods that may be unavailable.
    pub unavailable: i32,
}

impl Limits {
    /// The limits for this many wanted pods; a share of them is rounded up for the surge and down for the unavailable, and both
    /// together are at least 1.
    pub fn of(spec: &DeploymentSpec, wanted: i32) -> Self {
        let rolling = spec
            .strategy
            .as_ref()
            .and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), wanted, true);
        let unavailable = resolve(
            rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
            wanted,
            false,
        );
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self {
            surge,
            unavailable: unavailable.min(wanted),
        }
    }
}

fn resolve(limit: Option<&IntOrString>, wanted: i32, up: bool) -> i32 {
    let percent = match limit {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse::<i64>().unwrap_or(25),
        None => 25,
    };
    let product = i64::from(wanted) * percent.max(0);
    i32::try_from(if up { (product + 99) / 100 } else { product / 100 }).unwrap_or(i32::MAX)
}

/// The hash of a template, as the label has it.
pub fn template_hash(template: &PodTemplateSpec) -> String {
    object::short_hash(&[value(template).to_string().as_bytes()], 10)
}

/// What to do for one Deployment. `sets` are the ReplicaSets of its namespace that it controls, `orphans` those that nobody does.
pub fn plan(deployment: &Deployment, sets: &[Set<'_>], orphans: &[&ReplicaSet], now: Timestamp) -> Vec<Action> {
    let Some(spec) = &deployment.spec else {
        return Vec::new();
    };
    if is_terminating(&deployment.metadata) {
        return Vec::new();
    }
    let adopted: Vec<Action> = orphans
        .iter()
        .filter(|set| !is_terminating(&set.metadata))
        .filter(|set| object::selects(&spec.selector, set.metadata.labels.as_ref()))
        .map(|set| {
            Action::patch(
                Target::new(Kind::ReplicaSet, &set.metadata),
                object::adoption(deployment, &set.metadata),
            )
        })
        .collect();
    if !adopted.is_empty() {
        return adopted;
    }
    let wanted = spec.replicas.unwrap_or(1).max(0);
    let hash = template_hash(&spec.template);
    let (new, old): (Vec<&Set<'_>>, Vec<&Set<'_>>) = sets
        .iter()
        .partition(|set| is_of_template(set.set, &hash, &spec.template));
    let new = new
        .into_iter()
        .min_by_key(|set| set.set.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let mut actions = Vec::new();
    let revision = revision(new, &old);
    if spec.paused == Some(true) {
        actions.extend(scale_paused(sets, wanted));
    } else {
        match new {
            None => actions.push(create(deployment, spec, &hash, revision, initial(spec, &old, wanted))),
            Some(new) => {
                actions.extend(annotate(new, revision));
                actions.extend(roll(spec, new, &old, wanted, now));
            }
        }
        actions.extend(annotate_deployment(deployment, revision));
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let soon = sets
        .iter()
        .flat_map(|set| &set.pods)
        .filter_map(|pod| object::available_from(pod, min_ready))
        .filter(|from| *from > now);
    actions.extend(soon.min().map(Action::LookAgain));
    let progress = status::Progress::of(sets, new, min_ready, now);
    if progress.is_complete(wanted) {
        actions.extend(forget_old(spec, &old));
    }
    actions.extend(status::plan(deployment, &progress, Limits::of(spec, wanted), now));
    actions
}

fn is_of_template(set: &ReplicaSet, hash: &str, template: &PodTemplateSpec) -> bool {
    let labelled = set.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL));
    if labelled.is_some_and(|label| label == hash) {
        return true;
    }
    let Some(mut own) = set.spec.as_ref().and_then(|spec| spec.template.clone()) else {
        return false;
    };
    if let Some(labels) = own.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    own == *template
}

fn revision(new: Option<&Set<'_>>, old: &[&Set<'_>]) -> u64 {
    let highest = old.iter().map(|set| set.revision()).max().unwrap_or(0);
    match new.map(Set::revision) {
        Some(own) if own > highest => own,
        _ => highest + 1,
    }
}

fn annotate(new: &Set<'_>, revision: u64) -> Option<Action> {
    (new.revision() != revision).then(|| {
        let target = Target::new(Kind::ReplicaSet, &new.set.metadata);
        Action::patch(
            target,
            json!({"metadata": {"annotations": {REVISION: revision.to_string()}}}),
        )
    })
}

fn annotate_deployment(deployment: &Deployment, revision: u64) -> Option<Action> {
    let present = deployment
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(REVISION));
    (present != Some(&revision.to_string())).then(|| {
        let target = Target::new(Kind::Deployment, &deployment.metadata);
        Action::patch(
            target,
            json!({"metadata": {"annotations": {REVISION: revision.to_string()}}}),
        )
    })
}

fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

// Pods that still run, even if they are about to end, hold what the new ones need.
fn any_left(old: &[&Set<'_>]) -> bool {
    old.iter()
        .any(|set| set.pods.iter().any(|pod| !object::has_ended(pod)) || set.replicas() > 0)
}

fn initial(spec: &DeploymentSpec, old: &[&Set<'_>], wanted: i32) -> i32 {
    if is_recreate(spec) {
        return if any_left(old) { 0 } else { wanted };
    }
    let total: i32 = old.iter().map(|set| set.replicas()).sum();
    (wanted + Limits::of(spec, wanted).surge - total).clamp(0, wanted)
}

fn create(deployment: &Deployment, spec: &DeploymentSpec, hash: &str, revision: u64, replicas: i32) -> Action {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let mut template = spec.template.clone();
    let label = (HASH_LABEL.to_owned(), hash.to_owned());
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.extend([label.clone()]);
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().extend([label]);
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(APPLIED);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    let set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", object::cut(name, 52))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![object::owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    action::create(Kind::ReplicaSet, &set)
}

fn scale(set: &Set<'_>, replicas: i32) -> Option<Action> {
    (set.replicas() != replicas).then(|| {
        let target = Target::new(Kind::ReplicaSet, &set.set.metadata);
        Action::patch(target, json!({"spec": {"replicas": replicas}}))
    })
}

// While paused nothing rolls, but the newest set follows the wanted number as far as the others leave room.
fn scale_paused(sets: &[Set<'_>], wanted: i32) -> Option<Action> {
    let newest = sets.iter().max_by_key(|set| set.revision())?;
    let others: i32 = sets.iter().map(Set::replicas).sum::<i32>() - newest.replicas();
    scale(newest, (wanted - others).max(0))
}

fn roll(spec: &DeploymentSpec, new: &Set<'_>, old: &[&Set<'_>], wanted: i32, now: Timestamp) -> Vec<Action> {
    if is_recreate(spec) {
        let mut actions: Vec<Action> = old.iter().filter_map(|set| scale(set, 0)).collect();
        if !any_left(old) {
            actions.extend(scale(new, wanted));
        }
        return actions;
    }
    let limits = Limits::of(spec, wanted);
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let old_total: i32 = old.iter().map(|set| set.replicas()).sum();
    if new.replicas() != wanted {
        let room = (wanted + limits.surge - old_total - new.replicas()).max(0);
        let next = if new.replicas() > wanted {
            wanted
        } else {
            (new.replicas() + room).min(wanted)
        };
        let scaled = scale(new, next);
        if scaled.is_some() {
            return scaled.into_iter().collect();
        }
    }
    shrink_old(new, old, wanted - limits.unavailable, min_ready, now)
}

// First what serves nobody anyway, then as many as leave `least` available.
fn shrink_old(new: &Set<'_>, old: &[&Set<'_>], least: i32, min_ready: i32, now: Timestamp) -> Vec<Action> {
    let new_unavailable = new.replicas() - new.available(min_ready, now);
    let total: i32 = new.replicas() + old.iter().map(|set| set.replicas()).sum::<i32>();
    let mut room = total - least - new_unavailable;
    let available: i32 =
        new.available(min_ready, now) + old.iter().map(|set| set.available(min_ready, now)).sum::<i32>();
    let mut healthy_room = (available - least).max(0);
    let mut sorted = old.to_vec();
    sorted.sort_by_key(|set| set.revision());
    let mut actions = Vec::new();
    for set in sorted {
        let healthy = set.available(min_ready, now);
        let broken = (set.replicas() - healthy).min(room).max(0);
        room -= broken;
        // A set drops its broken pods first, so healthy ones go only once no broken one is left in it.
        let drained = if set.replicas() - broken == healthy {
            healthy.min(room).min(healthy_room).max(0)
        } else {
            0
        };
        room -= drained;
        healthy_room -= drained;
        actions.extend(scale(set, set.replicas() - broken - drained));
    }
    actions
}

fn forget_old(spec: &DeploymentSpec, old: &[&Set<'_>]) -> Vec<Action> {
    let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let mut idle: Vec<&&Set<'_>> = old
        .iter()
        .filter(|set| {
            set.replicas() == 0 && set.pods.iter().all(|pod| !is_active(pod)) && !is_terminating(&set.set.metadata)
        })
        .collect();
    idle.sort_by_key(|set| set.revision());
    let surplus = idle.len().saturating_sub(limit);
    idle.into_iter()
        .take(surplus)
        .map(|set| Action::delete(Target::new(Kind::ReplicaSet, &set.set.metadata)))
        .collect()
}

#[cfg(test)]
mod tests;
