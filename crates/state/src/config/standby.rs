//! What a cleaned object should be in the cluster that receives it.

use leeward_api::REPLICAS_ANNOTATION;
use serde_json::{Value, json};

use super::autoscaler::autoscale;
use super::clean::active_replicas;
use super::object::{Id, Kind};
use super::{Bundle, Error};

/// What the workloads of the application do in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// They run with as many replicas as where the application is active.
    Serve,
    /// They run with this many.
    Standby(i32),
}

/// What is different in one placement: a merge patch (RFC 7386) on one carried object.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// The object's kind.
    pub kind: String,
    /// The object's name.
    pub name: String,
    /// The patch.
    pub patch: Value,
}

/// The objects of a bundle as they should be here: overridden, then scaled.
///
/// # Errors
/// [`Error::Identity`] for an override that changes what the object is.
pub fn desired(bundle: &Bundle, overrides: &[Override], running: Running) -> Result<Vec<Value>, Error> {
    let mut objects = bundle.objects.clone();
    for object in &mut objects {
        let Some(id) = Id::of(object) else { continue };
        let of_it = |change: &&Override| change.kind == id.kind.as_str() && change.name == id.name;
        for change in overrides.iter().filter(of_it) {
            let before = object.clone();
            json_patch::merge(object, &change.patch);
            for (field, pointer) in [
                ("apiVersion", "/apiVersion"),
                ("kind", "/kind"),
                ("metadata.name", "/metadata/name"),
                ("metadata.namespace", "/metadata/namespace"),
            ] {
                if object.pointer(pointer) != before.pointer(pointer) {
                    return Err(Error::Identity {
                        kind: change.kind.clone(),
                        name: change.name.clone(),
                        field,
                    });
                }
            }
        }
        if let (Kind::HorizontalPodAutoscaler, Running::Standby(_)) = (id.kind, running)
            && let Some(patch) = autoscale(object, &Value::Null, running, 0)
        {
            json_patch::merge(object, &patch);
        }
        if let (true, Some(patch)) = (id.kind.is_workload(), scale(object, running)) {
            json_patch::merge(object, &patch);
        }
    }
    Ok(objects)
}

/// The merge patch that brings a workload to what it should do; none when it does that.
///
/// A workload that stands by keeps the number of replicas that it has where it is active in the annotation
/// `leeward.dev/replicas`; one that serves has no such annotation. So this may be asked of a workload in any state, again and again.
pub fn scale(object: &Value, running: Running) -> Option<Value> {
    let now = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let kept = active_replicas(object);
    match (running, kept) {
        (Running::Serve, None) => None,
        (Running::Serve, Some(replicas)) => Some(json!({
            "metadata": { "annotations": { REPLICAS_ANNOTATION: null } },
            "spec": { "replicas": replicas },
        })),
        (Running::Standby(standby), Some(_)) if now == i64::from(standby) => None,
        (Running::Standby(standby), kept) => Some(json!({
            "metadata": { "annotations": { REPLICAS_ANNOTATION: kept.unwrap_or(now).to_string() } },
            "spec": { "replicas": standby },
        })),
    }
}
