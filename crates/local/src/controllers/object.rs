//! Questions that several controllers ask of an object.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{Pod, PodCondition, PodSpec},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference, Time},
};
use kube::core::{ObjectMeta, Resource, Selector, SelectorExt};
use serde_json::{Value, json};

/// The owner that controls the object.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .as_deref()
        .unwrap_or_default()
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// Whether this object controls that one.
pub fn controls(owner: &ObjectMeta, meta: &ObjectMeta) -> bool {
    controller(meta).is_some_and(|reference| Some(&reference.uid) == owner.uid.as_ref())
}

/// The reference by which an object controls others.
pub fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A pod of a template, which `owner` controls; what its metadata and spec hold besides is the caller's.
pub fn pod_of<K: Resource<DynamicType = ()>>(
    owner: &K,
    name: String,
    template: ObjectMeta,
    spec: Option<PodSpec>,
) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: owner.meta().name.as_ref().map(|name| format!("{name}-")),
            namespace: owner.meta().namespace.clone(),
            labels: template.labels,
            annotations: template.annotations,
            finalizers: template.finalizers,
            owner_references: Some(vec![owner_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec,
        ..Pod::default()
    }
}

/// The patch by which `owner` takes an object under its control; the other owners stay.
pub fn adoption<K: Resource<DynamicType = ()>>(owner: &K, meta: &ObjectMeta) -> Value {
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    owners.retain(|reference| Some(&reference.uid) != owner.meta().uid.as_ref());
    owners.push(owner_reference(owner));
    owners_patch(meta, &owners)
}

/// The patch by which `owner` lets an object go.
pub fn release(owner: &ObjectMeta, meta: &ObjectMeta) -> Value {
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    owners.retain(|reference| Some(&reference.uid) != owner.uid.as_ref());
    owners_patch(meta, &owners)
}

// The list is replaced as a whole, so it must be the one that was read.
fn owners_patch(meta: &ObjectMeta, owners: &[OwnerReference]) -> Value {
    json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "ownerReferences": super::action::value(&owners),
    }})
}

/// Whether the object is being deleted.
pub fn is_terminating(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// Whether a label selector of a workload chooses these labels. One that is malformed or empty chooses nothing.
pub fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    if selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
    {
        return false;
    }
    let none = BTreeMap::new();
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels.unwrap_or(&none)))
}

/// A pod's condition of this type.
pub fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let status = pod.status.as_ref()?;
    status
        .conditions
        .as_deref()?
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// Whether the pod says that it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Whether the pod has ended for good.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The pod's phase; empty before it has one.
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether the pod counts for its controller: neither ended nor ending.
pub fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && !is_terminating(&pod.metadata)
}

/// Whether the pod has been told to end and has not yet.
pub fn is_ending(pod: &Pod) -> bool {
    is_terminating(&pod.metadata) && !has_ended(pod)
}

/// From when on the pod is available: ready for `min_ready_seconds`. None while it is not ready.
pub fn available_from(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    if !is_active(pod) || !is_ready(pod) {
        return None;
    }
    let since = pod_condition(pod, "Ready")
        .and_then(|condition| condition.last_transition_time.as_ref())
        .map_or(Timestamp::MIN, |time| time.0);
    if min_ready_seconds <= 0 {
        return Some(Timestamp::MIN);
    }
    since
        .checked_add(SignedDuration::from_secs(i64::from(min_ready_seconds)))
        .ok()
}

/// Whether the pod is available now.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_from(pod, min_ready_seconds).is_some_and(|from| from <= now)
}

/// The time as the API writes it.
pub fn time(now: Timestamp) -> Time {
    Time(now)
}

/// A short name part made from `parts`, in letters that spell no words, as Kubernetes does for its hashes.
pub fn short_hash(parts: &[&[u8]], length: usize) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    let letters = hash.as_bytes().iter().take(length);
    letters
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
        .collect()
}

/// `name` cut to `length`, so that a suffix still fits into what a name may be.
pub fn cut(name: &str, length: usize) -> &str {
    name.get(..length).unwrap_or(name).trim_end_matches(['-', '.'])
}
