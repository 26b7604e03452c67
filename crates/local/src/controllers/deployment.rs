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

use super::{
    action::{self, Action, Kind, News, Target, value},
    object::{self, is_terminating},
};

mod annotations;
mod roll;
mod status;

/// The label by which a ReplicaSet and its pods are those of one template.
pub const HASH_LABEL: &str = "pod-template-hash";
const FROM: &str = "deployment-controller";

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

    fn annotated(&self, key: &str) -> Option<&str> {
        let annotations = self.set.metadata.annotations.as_ref();
        annotations?.get(key).map(String::as_str)
    }

    fn revision(&self) -> u64 {
        self.annotated(annotations::REVISION)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    fn created(&self) -> Option<Timestamp> {
        self.set.metadata.creation_timestamp.as_ref().map(|time| time.0)
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
        if is_recreate(spec) {
            return Self {
                surge: 0,
                unavailable: 0,
            };
        }
        let rolling = spec
            .strategy
            .as_ref()
            .and_then(|strategy| strategy.rolling_update.as_ref());
        let share = IntOrString::String("25%".to_owned());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&share);
        let unavailable = rolling
            .and_then(|rolling| rolling.max_unavailable.as_ref())
            .unwrap_or(&share);
        let surge = resolve(surge, wanted, true);
        let unavailable = resolve(unavailable, wanted, false);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self {
            surge,
            unavailable: unavailable.min(wanted),
        }
    }
}

/// A number, or a share of `wanted`, rounded up or down.
pub(super) fn resolve(limit: &IntOrString, wanted: i32, up: bool) -> i32 {
    let percent = match limit {
        IntOrString::Int(number) => return (*number).max(0),
        IntOrString::String(text) => text.trim_end_matches('%').parse::<i64>().unwrap_or(0),
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
    let view = View::of(deployment, spec, sets, now);
    let mut actions = Vec::new();
    let mut created = None;
    let revision = view.revision();
    if let Some(new) = view.new {
        actions.extend(annotations::renew(deployment, new, revision, view.min_ready));
    }
    let scaled = view.scale();
    if !scaled.is_empty() {
        actions.extend(scaled);
    } else if spec.paused != Some(true) {
        let (rolled, name) = view.roll(revision);
        actions.extend(rolled);
        created = name;
    }
    if view.new.is_some() || created.is_some() {
        actions.extend(annotations::renew_deployment(deployment, revision));
    }
    let soon = sets
        .iter()
        .flat_map(|set| &set.pods)
        .filter_map(|pod| object::available_from(pod, view.min_ready))
        .filter(|from| *from > now);
    actions.extend(soon.min().map(Action::LookAgain));
    let progress = status::Progress::of(sets, view.new, view.min_ready, now);
    if spec.paused == Some(true) || progress.is_complete(view.wanted) {
        actions.extend(view.forget_old());
    }
    actions.extend(status::plan(&view, &progress, created.as_deref()));
    actions
}

// A Deployment and its sets, told apart.
struct View<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    new: Option<&'a Set<'a>>,
    // From the oldest revision to the newest.
    old: Vec<&'a Set<'a>>,
    hash: String,
    wanted: i32,
    limits: Limits,
    min_ready: i32,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn of(deployment: &'a Deployment, spec: &'a DeploymentSpec, sets: &'a [Set<'a>], now: Timestamp) -> Self {
        let hash = template_hash(&spec.template);
        let wanted = spec.replicas.unwrap_or(1).max(0);
        let new = sets
            .iter()
            .filter(|set| is_of_template(set.set, &hash, &spec.template))
            .min_by_key(|set| set.created());
        let is_new = |set: &Set<'_>| new.is_some_and(|new| std::ptr::eq(new.set, set.set));
        let mut old: Vec<&Set<'_>> = sets.iter().filter(|set| !is_new(set)).collect();
        old.sort_by_key(|set| set.revision());
        Self {
            deployment,
            spec,
            new,
            old,
            hash,
            wanted,
            limits: Limits::of(spec, wanted),
            min_ready: spec.min_ready_seconds.unwrap_or(0),
            now,
        }
    }

    fn all(&self) -> impl Iterator<Item = &'a Set<'a>> {
        self.old.iter().copied().chain(self.new)
    }

    fn available(&self, set: &Set<'_>) -> i32 {
        set.available(self.min_ready, self.now)
    }

    // The revision that the present template has, or gets.
    fn revision(&self) -> u64 {
        let highest = self.old.last().map_or(0, |set| set.revision());
        let own = self.new.map_or(0, Set::revision);
        own.max(highest + 1)
    }

    fn create(&self, revision: u64, replicas: i32) -> (Vec<Action>, String) {
        let mut template = self.spec.template.clone();
        let label = (HASH_LABEL.to_owned(), self.hash.clone());
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.extend([label.clone()]);
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().extend([label]);
        let name = self.deployment.metadata.name.as_deref().unwrap_or_default();
        let name = format!("{}-{}", object::cut(name, 242), self.hash);
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: self.deployment.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: Some(annotations::first(
                    self.deployment,
                    revision,
                    self.wanted,
                    self.limits.surge,
                )),
                owner_references: Some(vec![object::owner_reference(self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let mut actions = vec![action::create(Kind::ReplicaSet, &set)];
        if replicas > 0 {
            actions.push(self.tell_scaled(&name, 0, replicas));
        }
        (actions, name)
    }

    fn tell_scaled(&self, set: &str, from: i32, to: i32) -> Action {
        let way = if from < to { "up" } else { "down" };
        Action::told(
            Target::new(Kind::Deployment, &self.deployment.metadata),
            News::normal(
                FROM,
                "ScalingReplicaSet",
                format!("Scaled {way} replica set {set} from {from} to {to}"),
            ),
        )
    }

    // Earlier sets beyond the limit go, the oldest first; one that has pods stays.
    fn forget_old(&self) -> Vec<Action> {
        let limit = usize::try_from(self.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let present: Vec<&&Set<'_>> = self
            .old
            .iter()
            .filter(|set| !is_terminating(&set.set.metadata))
            .collect();
        let surplus = present.len().saturating_sub(limit);
        present
            .into_iter()
            .take(surplus)
            .filter(|set| set.replicas() == 0 && set.pods.iter().all(|pod| !object::is_active(pod)))
            .map(|set| Action::delete(Target::new(Kind::ReplicaSet, &set.set.metadata)))
            .collect()
    }
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

fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

#[cfg(test)]
mod tests;
