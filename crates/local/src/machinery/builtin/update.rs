//! What may not change in an object of a built-in kind.

use serde_json::{Value, json};

use super::quantity::Amount;
use crate::machinery::{FieldError, Reason};

/// How a change is refused.
#[derive(Clone, Copy)]
enum How {
    /// `field is immutable`, with the new value.
    Fixed,
    /// In other words.
    Forbidden(&'static str),
}

/// Fields that stay as they are made.
const FIXED: &[(&str, &[(&str, How)])] = &[
    ("DaemonSet", &[("spec.selector", How::Fixed)]),
    ("Deployment", &[("spec.selector", How::Fixed)]),
    ("EndpointSlice", &[("addressType", How::Fixed)]),
    ("IngressClass", &[("spec.controller", How::Fixed)]),
    (
        "Job",
        &[
            ("spec.completions", How::Fixed),
            ("spec.selector", How::Fixed),
            ("spec.template", How::Fixed),
            ("spec.completionMode", How::Fixed),
            ("spec.podFailurePolicy", How::Fixed),
            ("spec.backoffLimitPerIndex", How::Fixed),
            ("spec.managedBy", How::Fixed),
            ("spec.successPolicy", How::Fixed),
        ],
    ),
    (
        "PriorityClass",
        &[
            ("value", How::Forbidden("may not be changed in an update.")),
            ("preemptionPolicy", How::Fixed),
        ],
    ),
    ("ReplicaSet", &[("spec.selector", How::Fixed)]),
    ("RuntimeClass", &[("handler", How::Fixed)]),
    ("Secret", &[("type", How::Fixed)]),
    (
        "StorageClass",
        &[
            ("parameters", How::Fixed),
            ("provisioner", How::Fixed),
            ("reclaimPolicy", How::Fixed),
            ("volumeBindingMode", How::Fixed),
        ],
    ),
];

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    object.pointer(&format!("/{}", path.replace('.', "/")))
}

/// What is wrong with replacing `old` by `new`.
pub(super) fn validate(kind: &str, old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let fixed = FIXED
        .iter()
        .filter(|(name, _)| *name == kind)
        .flat_map(|(_, fields)| *fields);
    for (path, how) in fixed.filter(|(path, _)| at(old, path) != at(new, path)) {
        if *path == "spec.template" && may_change_template(old) {
            continue;
        }
        errors.push(refused(path, *how, at(new, path).unwrap_or(&Value::Null)));
    }
    match kind {
        "Pod" => pod(old, new, &mut errors),
        "StatefulSet" => stateful_set(old, new, &mut errors),
        "Service" => service(old, new, &mut errors),
        "PersistentVolumeClaim" => claim(old, new, &mut errors),
        "PersistentVolume" => volume(old, new, &mut errors),
        "ClusterRoleBinding" | "RoleBinding" => role(old, new, &mut errors),
        "ConfigMap" | "Secret" => data(old, new, &mut errors),
        _ => {}
    }
    errors
}

/// A value as messages show it, selectors with their labels first.
fn shown(path: &str, value: &Value) -> String {
    let part = |name: &str| value.get(name).map(|value| format!("\"{name}\":{value}"));
    if path == "spec.selector" {
        let parts: Vec<String> = ["matchLabels", "matchExpressions"]
            .into_iter()
            .filter_map(part)
            .collect();
        return format!("{{{}}}", parts.join(","));
    }
    value.to_string()
}

fn refused(path: &str, how: How, value: &Value) -> FieldError {
    match how {
        How::Fixed => {
            let message = format!("Invalid value: {}: field is immutable", shown(path, value));
            FieldError::new(path, Reason::Invalid, message)
        }
        How::Forbidden(why) => FieldError::forbidden(path, why),
    }
}

/// The pods of a Job that has not started may still be changed.
fn may_change_template(job: &Value) -> bool {
    let suspended = job.pointer("/spec/suspend") == Some(&Value::Bool(true));
    suspended && job.pointer("/status/startTime").is_none()
}

/// A copy without some of the fields.
fn without(value: Option<&Value>, names: &[&str]) -> Value {
    let mut copy = value.cloned().unwrap_or_default();
    if let Some(map) = copy.as_object_mut() {
        map.retain(|name, _| !names.contains(&name.as_str()));
    }
    copy
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn pod(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let deadline = |object: &Value| object.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64);
    let field = "spec.activeDeadlineSeconds";
    match (deadline(old), deadline(new)) {
        (Some(before), Some(after)) if after > before => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(field, &after.into(), detail));
            return;
        }
        (Some(_), None) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(field, &Value::Null, detail));
        }
        _ => {}
    }
    if items(old, "/spec/tolerations").any(|known| !items(new, "/spec/tolerations").any(|kept| kept == known)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", detail));
    }
    for (i, gate) in items(new, "/spec/schedulingGates").enumerate() {
        if !items(old, "/spec/schedulingGates").any(|known| known == gate) {
            let detail = "only deletion is allowed, but found new scheduling gate";
            let name = gate.get("name").and_then(Value::as_str).unwrap_or_default();
            let field = format!("spec.schedulingGates[{i}].name");
            errors.push(FieldError::forbidden(field, &format!("{detail} '{name}'")));
        }
    }
    let (mut before, after) = (rest_of_pod(old), rest_of_pod(new));
    // The scheduler binds a pod once.
    if before.get("nodeName").is_none()
        && let (Some(map), Some(node)) = (before.as_object_mut(), after.get("nodeName"))
    {
        map.insert("nodeName".into(), node.clone());
    }
    if before != after {
        let detail = "pod updates may not change fields other than `spec.containers[*].image`,\
                      `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                      existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                      previously negative)";
        errors.push(FieldError::forbidden("spec", detail));
    }
}

/// What of a pod may not change.
fn rest_of_pod(object: &Value) -> Value {
    let mutable = [
        "activeDeadlineSeconds",
        "terminationGracePeriodSeconds",
        "tolerations",
        "schedulingGates",
        "ephemeralContainers",
    ];
    let mut spec = without(object.get("spec"), &mutable);
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            // A pod's containers are resized in place, and their images may be changed.
            *container = without(Some(container), &["image", "resources"]);
        }
    }
    spec
}

fn stateful_set(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let mutable = [
        "minReadySeconds",
        "ordinals",
        "persistentVolumeClaimRetentionPolicy",
        "replicas",
        "revisionHistoryLimit",
        "template",
        "updateStrategy",
    ];
    if without(old.get("spec"), &mutable) != without(new.get("spec"), &mutable) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", detail));
    }
}

fn service(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let external = |object: &Value| object.pointer("/spec/type") == Some(&"ExternalName".into());
    let address = |object: &Value| {
        object
            .pointer("/spec/clusterIP")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (before, after) = (address(old), address(new));
    if !before.is_empty() && !external(old) && !external(new) && before != after {
        let message = format!("Invalid value: {}: may not change once set", json!([after]));
        errors.push(FieldError::new("spec.clusterIPs[0]", Reason::Invalid, message));
    }
}

fn claim(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let bound = new.pointer("/status/phase") == Some(&"Bound".into());
    let rest = |object: &Value| {
        let mut spec = object.get("spec").cloned().unwrap_or_default();
        if bound {
            spec = without(Some(&spec), &["volumeAttributesClassName"]);
            if let Some(resources) = spec.get_mut("resources").and_then(Value::as_object_mut) {
                resources.remove("requests");
            }
        }
        spec
    };
    let (mut before, after) = (rest(old), rest(new));
    // A claim is bound once, and a class that was left open is then known.
    for name in ["volumeName", "storageClassName"] {
        if before.get(name).is_none()
            && let (Some(map), Some(value)) = (before.as_object_mut(), after.get(name))
        {
            map.insert(name.into(), value.clone());
        }
    }
    if before != after {
        let detail =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let size = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Amount::of).map_or(0, Amount::nanos);
    let requested = "/spec/resources/requests/storage";
    if size(new, requested) < size(old, requested) && size(new, requested) <= size(old, "/status/capacity/storage") {
        let detail = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
    mode(old, new, errors);
}

/// Kubernetes tells a mode without the specification that holds it.
fn mode(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let mode = |object: &Value| object.pointer("/spec/volumeMode").cloned().unwrap_or_default();
    if mode(old) != mode(new) {
        errors.push(refused("volumeMode", How::Fixed, &mode(new)));
    }
}

fn volume(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let mutable = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    if without(old.get("spec"), &mutable) != without(new.get("spec"), &mutable) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
    }
    mode(old, new, errors);
}

fn role(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    if old.get("roleRef") == new.get("roleRef") {
        return;
    }
    let part = |name: &str| at(new, &format!("roleRef.{name}")).cloned().unwrap_or_default();
    let (group, kind, name) = (part("apiGroup"), part("kind"), part("name"));
    let shown = format!("{{\"APIGroup\":{group},\"Kind\":{kind},\"Name\":{name}}}");
    let message = format!("Invalid value: {shown}: cannot change roleRef");
    errors.push(FieldError::new("roleRef", Reason::Invalid, message));
}

fn data(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    for name in ["immutable", "data", "binaryData"] {
        if old.get(name) != new.get(name) {
            errors.push(FieldError::forbidden(
                name,
                "field is immutable when `immutable` is set",
            ));
        }
    }
}
