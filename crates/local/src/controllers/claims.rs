//! Claims and volumes: a PersistentVolumeClaim of the class `local` becomes a PersistentVolume that is a directory.
//!
//! A directory is removed only when its claim is gone for certain: the plan asks for it, the executor asks the API once more. A volume
//! that carries [`RETAIN`] or a finalizer of somebody else is kept, whatever its reclaim policy says.

use std::{collections::HashSet, path::Path};

use k8s_openapi::{
    api::{
        core::v1::{
            HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
        },
        storage::v1::StorageClass,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::core::ObjectMeta;
use serde_json::json;

use super::{
    action::{self, Action, Kind, Target, value},
    object::{self, is_terminating},
    region::Region,
};

/// The StorageClass of a local region's directories.
pub const CLASS: &str = "local";
/// Who provisions for it.
pub const PROVISIONER: &str = "leeward.dev/local";
/// A volume with this annotation, set to `true`, is kept when its claim is gone.
pub const RETAIN: &str = "leeward.dev/retain";
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";

/// The class itself, if it is not there.
pub fn plan_class(region: &Region) -> Option<Action> {
    if region.classes.get(None, CLASS).is_some() {
        return None;
    }
    let class = StorageClass {
        metadata: ObjectMeta {
            name: Some(CLASS.to_owned()),
            annotations: Some([(IS_DEFAULT.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        provisioner: PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("Immediate".to_owned()),
        ..StorageClass::default()
    };
    Some(action::create(Kind::StorageClass, &class))
}

/// What to do for all claims and volumes. Directories are made under `directory`.
pub fn plan(region: &Region, directory: &Path) -> Vec<Action> {
    let used: HashSet<(&str, &str)> = region
        .pods
        .iter()
        .filter(|pod| !object::has_ended(pod))
        .flat_map(claims_of)
        .collect();
    let mut actions = Vec::new();
    for claim in region.claims.iter() {
        actions.extend(plan_claim(claim, region, &used, directory));
    }
    for volume in region.volumes.iter() {
        actions.extend(plan_volume(volume, region));
    }
    actions
}

/// Namespace and name of each claim that a pod mounts.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = (&str, &str)> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    volumes
        .iter()
        .filter_map(move |volume| Some((namespace, volume.persistent_volume_claim.as_ref()?.claim_name.as_str())))
}

fn key(meta: &ObjectMeta) -> (&str, &str) {
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

fn with_finalizer(meta: &ObjectMeta, finalizer: &str) -> Vec<String> {
    let mut all = meta.finalizers.clone().unwrap_or_default();
    all.push(finalizer.to_owned());
    all
}

fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers
        .as_deref()
        .unwrap_or_default()
        .iter()
        .any(|one| one == finalizer)
}

fn drop_finalizer(target: Target, meta: &ObjectMeta, finalizer: &str) -> Action {
    let mut left = meta.finalizers.clone().unwrap_or_default();
    left.retain(|one| one != finalizer);
    Action::patch(target, finalizers_patch(meta, &left))
}

// The list is replaced as a whole, so it must be the one that was read.
fn finalizers_patch(meta: &ObjectMeta, finalizers: &[String]) -> serde_json::Value {
    json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": finalizers}})
}

fn plan_claim(
    claim: &PersistentVolumeClaim,
    region: &Region,
    used: &HashSet<(&str, &str)>,
    directory: &Path,
) -> Vec<Action> {
    let meta = &claim.metadata;
    let target = || Target::new(Kind::PersistentVolumeClaim, meta);
    if is_terminating(meta) {
        let free = has_finalizer(meta, CLAIM_PROTECTION) && !used.contains(&key(meta));
        return free
            .then(|| drop_finalizer(target(), meta, CLAIM_PROTECTION))
            .into_iter()
            .collect();
    }
    let mut actions = Vec::new();
    if !has_finalizer(meta, CLAIM_PROTECTION) {
        let finalizers = with_finalizer(meta, CLAIM_PROTECTION);
        // The next plan, on what this one wrote, goes on.
        return vec![Action::patch(target(), finalizers_patch(meta, &finalizers))];
    }
    let Some(spec) = &claim.spec else { return actions };
    let volume = match spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => region.volumes.get(None, name).filter(|volume| fits(volume, claim)),
        None => region.volumes.iter().find(|volume| is_reserved_for(volume, claim)),
    };
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let Some(volume) = volume else {
        if spec.volume_name.as_deref().is_some_and(|name| !name.is_empty()) {
            let lost = phase == Some("Bound");
            actions.extend(lost.then(|| Action::status(target(), json!({"phase": "Lost"}))));
            return actions;
        }
        actions.extend(provision(claim, region, directory));
        actions.extend(
            phase
                .is_none()
                .then(|| Action::status(target(), json!({"phase": "Pending"}))),
        );
        return actions;
    };
    actions.extend(bind(claim, volume, phase));
    actions
}

fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn names_claim(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace
}

// A volume that says it is for this claim, or for one of this name.
fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    !is_terminating(&volume.metadata)
        && claim_ref(volume).is_some_and(|reference| {
            names_claim(reference, claim) && (reference.uid.is_none() || reference.uid == claim.metadata.uid)
        })
}

fn fits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_none() || is_reserved_for(volume, claim)
}

fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume, phase: Option<&str>) -> Vec<Action> {
    let target = || Target::new(Kind::PersistentVolumeClaim, &claim.metadata);
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let mut actions = Vec::new();
    if claim_ref(volume).is_none_or(|reference| reference.uid.is_none()) {
        let reference = reference(claim);
        let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version}, "spec": {"claimRef": value(&reference)}});
        actions.push(Action::patch(
            Target::new(Kind::PersistentVolume, &volume.metadata),
            patch,
        ));
    }
    let spec = claim.spec.as_ref();
    if spec.and_then(|spec| spec.volume_name.as_deref()) != Some(name) {
        let patch = json!({
            "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}},
            "spec": {"volumeName": name},
        });
        actions.push(Action::patch(target(), patch));
    }
    if phase != Some("Bound") {
        let volume = volume.spec.as_ref();
        let status = json!({
            "phase": "Bound",
            "accessModes": volume.and_then(|spec| spec.access_modes.clone()),
            "capacity": volume.and_then(|spec| spec.capacity.clone()),
        });
        actions.push(Action::status(target(), status));
    }
    actions
}

fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn is_default(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(IS_DEFAULT))
        .is_some_and(|value| value == "true")
}

fn provision(claim: &PersistentVolumeClaim, region: &Region, directory: &Path) -> Option<Action> {
    let spec = claim.spec.as_ref()?;
    let Some(class) = &spec.storage_class_name else {
        // The default class is written into the claim, and the next plan provisions.
        let class = region
            .classes
            .iter()
            .filter(|class| is_default(class))
            .map(|class| &class.metadata.name)
            .next()?;
        let target = Target::new(Kind::PersistentVolumeClaim, &claim.metadata);
        return Some(Action::patch(target, json!({"spec": {"storageClassName": class}})));
    };
    let class = region
        .classes
        .get(None, class)
        .filter(|class| class.provisioner == PROVISIONER)?;
    let uid = claim.metadata.uid.as_deref().filter(|uid| is_plain(uid))?;
    let name = format!("pvc-{uid}");
    let path = directory.join(&name);
    let request = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref()?.get("storage").cloned());
    let volume = PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            finalizers: Some(vec![VOLUME_PROTECTION.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(
                spec.access_modes
                    .clone()
                    .unwrap_or_else(|| vec!["ReadWriteOnce".to_owned()]),
            ),
            capacity: Some(
                [(
                    "storage".to_owned(),
                    request.unwrap_or_else(|| Quantity("1Gi".to_owned())),
                )]
                .into(),
            ),
            claim_ref: Some(reference(claim)),
            host_path: Some(HostPathVolumeSource {
                path: path.display().to_string(),
                type_: Some("Directory".to_owned()),
            }),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        ..PersistentVolume::default()
    };
    Some(Action::Provision {
        path,
        volume: value(&volume),
    })
}

// A uid becomes part of a path.
fn is_plain(uid: &str) -> bool {
    !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn plan_volume(volume: &PersistentVolume, region: &Region) -> Vec<Action> {
    let target = || Target::new(Kind::PersistentVolume, &volume.metadata);
    let phase = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    let say = |wanted: &str| (phase != wanted).then(|| Action::status(target(), json!({"phase": wanted})));
    let Some(reference) = claim_ref(volume) else {
        return release_deleted(volume)
            .or_else(|| say("Available"))
            .into_iter()
            .collect();
    };
    let Some(uid) = &reference.uid else {
        return release_deleted(volume)
            .or_else(|| say("Available"))
            .into_iter()
            .collect();
    };
    let namespace = reference.namespace.as_deref();
    let name = reference.name.as_deref().unwrap_or_default();
    let claim = region.claims.get(namespace, name);
    if let Some(claim) = claim.filter(|claim| claim.metadata.uid.as_ref() == Some(uid)) {
        let bound = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) == volume.metadata.name.as_deref();
        return bound.then(|| say("Bound")).flatten().into_iter().collect();
    }
    if let Some(path) = removable(volume) {
        let claim = (namespace.unwrap_or_default().to_owned(), name.to_owned(), uid.clone());
        let path = path.into();
        return vec![Action::Reclaim {
            volume: target(),
            path,
            claim,
        }];
    }
    release_deleted(volume)
        .or_else(|| say("Released"))
        .into_iter()
        .collect()
}

// Somebody deleted the volume itself: it goes, its directory stays.
fn release_deleted(volume: &PersistentVolume) -> Option<Action> {
    let meta = &volume.metadata;
    (is_terminating(meta) && has_finalizer(meta, VOLUME_PROTECTION))
        .then(|| drop_finalizer(Target::new(Kind::PersistentVolume, meta), meta, VOLUME_PROTECTION))
}

/// The directory of a volume that we made and that nobody asked to keep.
fn removable(volume: &PersistentVolume) -> Option<&str> {
    let annotation = |key| volume.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let finalizers = volume.metadata.finalizers.as_deref().unwrap_or_default();
    let spec = volume.spec.as_ref()?;
    let wanted = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete")
        && annotation(PROVISIONED_BY) == Some(PROVISIONER)
        && annotation(RETAIN) != Some("true")
        && finalizers.iter().all(|finalizer| finalizer == VOLUME_PROTECTION);
    let path = spec.host_path.as_ref()?.path.as_str();
    let own = Path::new(path).file_name().and_then(|name| name.to_str()) == volume.metadata.name.as_deref();
    (wanted && own).then_some(path)
}

#[cfg(test)]
mod tests;
