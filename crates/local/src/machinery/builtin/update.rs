//! What may not change in an object of a built-in kind.

use serde_json::Value;

use crate::machinery::FieldError;

const IMMUTABLE: &str = "field is immutable";

/// What is wrong with replacing `old` by `new`.
pub(super) fn validate(kind: &str, old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match kind {
        "Pod" => pod(old, new, &mut errors),
        "Deployment" | "ReplicaSet" | "DaemonSet" => fixed(old, new, "/spec/selector", &mut errors),
        "StatefulSet" => stateful_set(old, new, &mut errors),
        "Service" => service(old, new, &mut errors),
        "PersistentVolumeClaim" => claim(old, new, &mut errors),
        "PersistentVolume" => {
            let source = |object: &Value| without(object.get("spec"), &VOLUME_MUTABLE);
            if source(old) != source(new) {
                let detail = "spec.persistentvolumesource is immutable after creation";
                errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
            }
        }
        "StorageClass" => {
            for field in ["/parameters", "/provisioner", "/reclaimPolicy", "/volumeBindingMode"] {
                fixed(old, new, field, &mut errors);
            }
        }
        "EndpointSlice" => fixed(old, new, "/addressType", &mut errors),
        "ConfigMap" | "Secret" => data(kind, old, new, &mut errors),
        _ => {}
    }
    errors
}

/// Fields of a volume that say how it is used, not what it is.
const VOLUME_MUTABLE: [&str; 9] = [
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

fn fixed(old: &Value, new: &Value, pointer: &str, errors: &mut Vec<FieldError>) {
    if old.pointer(pointer) != new.pointer(pointer) {
        let field = pointer.trim_start_matches('/').replace('/', ".");
        let value = new.pointer(pointer).unwrap_or(&Value::Null);
        errors.push(FieldError::invalid(field, value, IMMUTABLE));
    }
}

/// A copy without some of the fields.
fn without(value: Option<&Value>, names: &[&str]) -> Value {
    let mut copy = value.cloned().unwrap_or_default();
    if let Some(map) = copy.as_object_mut() {
        for name in names {
            map.remove(*name);
        }
    }
    copy
}

fn pod(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let rest = |object: &Value| {
        let mut spec = without(
            object.get("spec"),
            &[
                "activeDeadlineSeconds",
                "terminationGracePeriodSeconds",
                "tolerations",
                "schedulingGates",
                "ephemeralContainers",
            ],
        );
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(map) = container.as_object_mut() {
                    // A pod's containers are resized in place, and their images may be changed.
                    for name in ["image", "resources"] {
                        map.remove(name);
                    }
                }
            }
        }
        spec
    };
    let (mut before, after) = (rest(old), rest(new));
    // The scheduler binds a pod once.
    if before.get("nodeName").is_none()
        && let (Some(map), Some(node)) = (before.as_object_mut(), after.get("nodeName"))
    {
        map.insert("nodeName".into(), node.clone());
    }
    if before != after {
        let detail = "pod updates may not change fields other than `spec.containers[*].image`, \
                      `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to \
                      existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                      previously negative)";
        errors.push(FieldError::forbidden("spec", detail));
    }
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
    let rest = |object: &Value| {
        let mut spec = without(object.get("spec"), &mutable);
        // What the server keeps about a template's claim is no change.
        for claim in spec
            .get_mut("volumeClaimTemplates")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(map) = claim.as_object_mut() {
                map.remove("status");
            }
        }
        spec
    };
    if rest(old) != rest(new) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", detail));
    }
}

fn service(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let external = |object: &Value| object.pointer("/spec/type") == Some(&"ExternalName".into());
    let address = old
        .pointer("/spec/clusterIP")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if address.is_empty() || external(old) || external(new) {
        return;
    }
    if new.pointer("/spec/clusterIP").is_none_or(|new| new != address) {
        let value = new.pointer("/spec/clusterIP").unwrap_or(&Value::Null);
        errors.push(FieldError::invalid("spec.clusterIP", value, "may not change once set"));
    }
}

fn claim(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let rest = |object: &Value| {
        let mut spec = without(object.get("spec"), &["volumeAttributesClassName"]);
        if let Some(resources) = spec.get_mut("resources").and_then(Value::as_object_mut) {
            resources.remove("requests");
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
}

fn data(kind: &str, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    if kind == "Secret" {
        fixed(old, new, "/type", errors);
    }
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    for name in ["data", "binaryData", "immutable"] {
        if old.get(name) != new.get(name) {
            errors.push(FieldError::forbidden(
                name,
                "field is immutable when `immutable` is set",
            ));
        }
    }
}
