//! What a server does to an object after it noted whose its fields are, and before it validates it: a status of its own,
//! selectors, finalizers, what admission adds to every object of a kind. What needs other objects is not here.

use serde_json::{Map, Value, json};

use super::{Given, TEMPLATE_GENERATION, defaults};

/// Completes a new object whose metadata is complete.
pub(super) fn create(kind: &str, given: Given, object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    if !given.status {
        map.remove("status");
    }
    match kind {
        "DaemonSet" => count_template(object, 1),
        "Job" => job(object, given),
        "Namespace" => namespace(object),
        "PersistentVolume" => protect(object, "kubernetes.io/pv-protection"),
        "PersistentVolumeClaim" => {
            protect(object, "kubernetes.io/pvc-protection");
            data_sources(object);
        }
        "Pod" => pod(object),
        "Service" => service_families(object),
        _ => {}
    }
    defaults::default(kind, object);
}

/// Keeps in a changed object what only a server sets and a client need not repeat.
pub(super) fn update(kind: &str, old: &Value, new: &mut Value) {
    if kind == "DaemonSet" {
        let changed = old.pointer("/spec/template") != new.pointer("/spec/template");
        let before = old
            .pointer(&format!("/metadata/annotations/{TEMPLATE_GENERATION}"))
            .and_then(Value::as_str);
        let before: u64 = before.and_then(|text| text.parse().ok()).unwrap_or(0);
        count_template(new, before + u64::from(changed));
    }
    let kept: &[&str] = match kind {
        "Pod" => &["preemptionPolicy", "priority", "serviceAccount", "serviceAccountName"],
        _ => return,
    };
    let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    for name in kept {
        if let Some(value) = old.pointer(&format!("/spec/{name}")) {
            spec.entry(*name).or_insert_with(|| value.clone());
        }
    }
    tolerate(spec);
}

fn count_template(object: &mut Value, number: u64) {
    if let Some(annotations) = made(object, &["metadata", "annotations"]) {
        annotations.insert(TEMPLATE_GENERATION.into(), number.to_string().into());
    }
}

fn made<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    let mut map = object.as_object_mut()?;
    for name in path {
        map = map.entry(*name).or_insert_with(|| json!({})).as_object_mut()?;
    }
    Some(map)
}

fn text(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).cloned().unwrap_or_default()
}

fn protect(object: &mut Value, finalizer: &str) {
    let Some(list) = made(object, &["metadata"])
        .and_then(|metadata| metadata.entry("finalizers").or_insert_with(|| json!([])).as_array_mut())
    else {
        return;
    };
    if !list.iter().any(|known| known == finalizer) {
        list.push(finalizer.into());
    }
}

/// A Job's pods are told from others by its uid, unless it brings a selector.
fn job(object: &mut Value, given: Given) {
    if object.pointer("/spec/manualSelector") == Some(&json!(true)) {
        return;
    }
    let (name, uid) = (text(object, "/metadata/name"), text(object, "/metadata/uid"));
    if let Some(labels) = made(object, &["spec", "template", "metadata", "labels"]) {
        for (label, value) in [
            ("job-name", &name),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("batch.kubernetes.io/controller-uid", &uid),
        ] {
            labels.entry(label).or_insert_with(|| value.clone());
        }
    }
    // The labels of a Job that came without any are those of its pods.
    if !given.labels {
        object["metadata"]["labels"] = text(object, "/spec/template/metadata/labels");
    }
    if let Some(labels) = made(object, &["spec", "selector", "matchLabels"]) {
        labels.entry("batch.kubernetes.io/controller-uid").or_insert(uid);
    }
}

fn namespace(object: &mut Value) {
    if let Some(spec) = made(object, &["spec"])
        && let Some(list) = spec.entry("finalizers").or_insert_with(|| json!([])).as_array_mut()
        && !list.iter().any(|known| known == "kubernetes")
    {
        list.push("kubernetes".into());
    }
}

/// A claim names where its data comes from in two ways.
fn data_sources(object: &mut Value) {
    let Some(spec) = made(object, &["spec"]) else { return };
    if let (Some(source), None) = (spec.get("dataSource"), spec.get("dataSourceRef")) {
        spec.insert("dataSourceRef".into(), source.clone());
    } else if let (None, Some(source)) = (spec.get("dataSource"), spec.get("dataSourceRef"))
        && source.get("namespace").is_none()
    {
        spec.insert("dataSource".into(), source.clone());
    }
}

/// Addresses are of one family here, where there are any.
fn service_families(object: &mut Value) {
    let Some(spec) = made(object, &["spec"]) else { return };
    if spec.get("type") == Some(&json!("ExternalName")) {
        return;
    }
    let chosen = spec
        .get("selector")
        .and_then(Value::as_object)
        .is_some_and(|labels| !labels.is_empty());
    // What a Service without addresses and pods of its own leads to may be of either family.
    let both = !chosen && spec.get("clusterIP") == Some(&json!("None"));
    let (families, policy) = if both {
        (json!(["IPv4", "IPv6"]), "RequireDualStack")
    } else {
        (json!(["IPv4"]), "SingleStack")
    };
    spec.entry("ipFamilies").or_insert(families);
    spec.entry("ipFamilyPolicy").or_insert_with(|| json!(policy));
}

fn pod(object: &mut Value) {
    let class = qos_class(object);
    let gated = object
        .pointer("/spec/schedulingGates")
        .and_then(Value::as_array)
        .is_some_and(|gates| !gates.is_empty());
    let mut status = json!({"phase": "Pending", "qosClass": class});
    if gated {
        status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
    }
    object["status"] = status;
    let Some(spec) = made(object, &["spec"]) else { return };
    spec.entry("serviceAccountName").or_insert_with(|| json!("default"));
    spec.entry("priority").or_insert_with(|| json!(0));
    spec.entry("preemptionPolicy")
        .or_insert_with(|| json!("PreemptLowerPriority"));
    tolerate(spec);
}

/// A pod stays for a while on a node that is not ready or cannot be reached.
fn tolerate(spec: &mut Map<String, Value>) {
    let Some(tolerations) = spec.entry("tolerations").or_insert_with(|| json!([])).as_array_mut() else {
        return;
    };
    let one_of = |toleration: &Value, name: &str, known: &str| {
        let said = toleration.get(name).and_then(Value::as_str).unwrap_or_default();
        said.is_empty() || said == known
    };
    let before = tolerations.clone();
    for taint in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !before
            .iter()
            .any(|t| one_of(t, "key", taint) && one_of(t, "effect", "NoExecute"))
        {
            tolerations
                .push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
}

fn qos_class(pod: &Value) -> &'static str {
    let containers = ["/spec/containers", "/spec/initContainers"]
        .into_iter()
        .filter_map(|p| pod.pointer(p).and_then(Value::as_array))
        .flatten();
    let (mut any, mut all) = (false, true);
    for container in containers {
        let part = |name: &str, what: &str| container.pointer(&format!("/resources/{name}/{what}")).cloned();
        for what in ["cpu", "memory"] {
            let (request, limit) = (part("requests", what), part("limits", what));
            any |= request.is_some() || limit.is_some();
            all &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        _ => "BestEffort",
    }
}
