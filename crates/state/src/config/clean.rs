//! Takes off an object what belongs to the cluster that it was read from.

use leeward_api::{APP_LABEL, AUTOSCALER_ANNOTATION, CARRIED_FROM_ANNOTATION, REPLICAS_ANNOTATION};
use serde_json::{Map, Value};

use super::autoscaler;
use super::compare::CARRIED_HASH_ANNOTATION;
use super::object::{Id, Kind, annotation};

/// What is kept of `metadata`. All else is written by the cluster: uid, resourceVersion, generation, managedFields,
/// creationTimestamp, and owners and finalizers, which name objects and controllers of that cluster.
const METADATA: &[&str] = &["name", "namespace", "labels", "annotations"];

/// Annotations that a cluster or a tool there writes about its own object. One that ends in `/` stands for all that begin so.
const ANNOTATIONS: &[&str] = &[
    "argocd.argoproj.io/",
    "autoscaling.alpha.kubernetes.io/",
    "control-plane.alpha.kubernetes.io/",
    "deployment.kubernetes.io/",
    "endpoints.kubernetes.io/",
    "kubectl.kubernetes.io/last-applied-configuration",
    "meta.helm.sh/",
    "pv.kubernetes.io/",
    "volume.beta.kubernetes.io/",
    "volume.kubernetes.io/",
    AUTOSCALER_ANNOTATION,
    CARRIED_FROM_ANNOTATION,
    CARRIED_HASH_ANNOTATION,
    REPLICAS_ANNOTATION,
];

/// Labels by which a tool in a cluster knows its own objects: on a copy they would make it prune the copy.
const LABELS: &[&str] = &[
    "argocd.argoproj.io/",
    "helm.toolkit.fluxcd.io/",
    "kustomize.toolkit.fluxcd.io/",
    "kubernetes.io/metadata.name",
    APP_LABEL,
];

/// The object without what belongs to its cluster. Cleaning a second time changes nothing.
///
/// A workload that is scaled down where it stands by gets the number of replicas back that it has where it is active.
pub fn clean(object: &Value) -> Value {
    let kind = Id::of(object).map(|id| id.kind);
    let mut clean = match kind {
        Some(Kind::HorizontalPodAutoscaler) => autoscaler::original(object),
        _ => object.clone(),
    };
    let Some(fields) = clean.as_object_mut() else {
        return clean;
    };
    fields.remove("status");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| METADATA.contains(&key.as_str()));
        retain(metadata, "annotations", |key, _| !listed(ANNOTATIONS, key));
        retain(metadata, "labels", |key, value| {
            let of_helm = key == "app.kubernetes.io/managed-by" && value == "Helm";
            !listed(LABELS, key) && !of_helm
        });
    }
    let spec = clean.get_mut("spec").and_then(Value::as_object_mut);
    if let (Some(replicas), Some(spec)) = (active_replicas(object), spec) {
        spec.insert("replicas".into(), replicas.into());
    }
    match kind {
        Some(Kind::Namespace) => remove(&mut clean, "/spec", &["finalizers"]),
        Some(Kind::ServiceAccount) => remove(&mut clean, "", &["secrets"]),
        Some(Kind::Service) => service(&mut clean),
        Some(Kind::PersistentVolumeClaim) => {
            remove(
                &mut clean,
                "/spec",
                &["volumeName", "dataSource", "dataSourceRef", "volumeAttributesClassName"],
            );
        }
        Some(Kind::StatefulSet) => workload(&mut clean),
        Some(Kind::Deployment) => workload(&mut clean),
        Some(Kind::Secret | Kind::ConfigMap | Kind::HorizontalPodAutoscaler) | None => {}
    }
    clean
}

/// The number of replicas that a scaled-down copy has where it is active.
pub(super) fn active_replicas(object: &Value) -> Option<i64> {
    annotation(object, REPLICAS_ANNOTATION)?.parse().ok()
}

fn listed(list: &[&str], key: &str) -> bool {
    list.iter().any(|entry| {
        if entry.ends_with('/') {
            key.starts_with(entry)
        } else {
            key == *entry
        }
    })
}

/// Keeps of a map what fits, and removes the map when nothing is left.
fn retain(parent: &mut Map<String, Value>, key: &str, keep: impl Fn(&str, &Value) -> bool) {
    let Some(map) = parent.get_mut(key).and_then(Value::as_object_mut) else {
        parent.remove(key);
        return;
    };
    map.retain(|key, value| keep(key, value));
    if map.is_empty() {
        parent.remove(key);
    }
}

/// Removes fields of the object at `pointer`, and that object when nothing is left of it.
fn remove(object: &mut Value, pointer: &str, fields: &[&str]) {
    let Some(map) = object.pointer_mut(pointer).and_then(Value::as_object_mut) else {
        return;
    };
    map.retain(|key, _| !fields.contains(&key.as_str()));
    if map.is_empty() && pointer == "/spec" {
        object.as_object_mut().map(|object| object.remove("spec"));
    }
}

fn service(object: &mut Value) {
    let headless = object["spec"]["clusterIP"] == "None";
    let cluster_given = [
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "healthCheckNodePort",
        "loadBalancerIP",
    ];
    remove(object, "/spec", &cluster_given);
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        if headless {
            spec.insert("clusterIP".into(), "None".into());
        }
        for port in spec
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
}

fn workload(object: &mut Value) {
    remove(object, "/spec/template/metadata", &["creationTimestamp"]);
    remove(object, "/spec/template/spec", &["nodeName"]);
    // A claim's template has the fields that a claim has.
    let templates = object
        .pointer_mut("/spec/volumeClaimTemplates")
        .and_then(Value::as_array_mut);
    for template in templates.into_iter().flatten() {
        remove(template, "", &["status"]);
        remove(template, "/metadata", &["creationTimestamp"]);
        remove(template, "/spec", &["volumeName"]);
    }
}
