//! What a HorizontalPodAutoscaler may do in a cluster: nothing against the plan where its target stands by, and not scale down at once what was
//! just started with as many replicas as ran elsewhere. Pure.
//!
//! Flow: [`autoscale`] gives the patch that brings an autoscaler's bounds to what they should be. What they were before is noted on it, in the annotation
//! `leeward.dev/autoscaler`, and so is when a raised minimum ends: any agent that reads the object goes on from there. [`original`] is the object
//! without all that, which is what is carried and compared.
//!
//! Invariants: an autoscaler that was changed beside what was noted keeps that change; it is patched before its target is scaled up, so that a
//! target that runs always has the minimum that was meant for it.

use std::time::Duration;

use leeward_api::AUTOSCALER_ANNOTATION;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::clean::active_replicas;
use super::object::{Id, Kind, annotation};
use super::standby::Running;

/// How long a raised minimum holds: until metrics tell of the pods that were started, and for as long as Kubernetes by itself waits before it scales down.
pub const SETTLE: Duration = Duration::from_secs(600);

/// What Leeward has set, and what was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    min: i64,
    max: i64,
    /// The minimum that was set.
    set: i64,
    /// When a raised minimum ends, in Unix milliseconds; none while the target stands by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    min: i64,
    max: i64,
}

/// The workload that an autoscaler scales, if it is of a kind that is carried.
pub fn target(object: &Value) -> Option<Id> {
    let target = &object["spec"]["scaleTargetRef"];
    let kind = match target["kind"].as_str()? {
        "Deployment" => Kind::Deployment,
        "StatefulSet" => Kind::StatefulSet,
        _ => return None,
    };
    let is_it = Id::of(object).is_some_and(|id| id.kind == Kind::HorizontalPodAutoscaler);
    let of_apps = target["apiVersion"]
        .as_str()
        .is_none_or(|version| version.starts_with("apps/"));
    (is_it && of_apps).then(|| Id::new(kind, target["name"].as_str().unwrap_or_default()))
}

fn noted(object: &Value) -> Option<Noted> {
    serde_json::from_str(annotation(object, AUTOSCALER_ANNOTATION)?).ok()
}

fn bounds(object: &Value) -> Bounds {
    let min = object["spec"]["minReplicas"].as_i64().unwrap_or(1);
    let max = object["spec"]["maxReplicas"].as_i64().unwrap_or(min);
    Bounds { min, max }
}

/// The bounds that a person has set.
fn own_bounds(object: &Value) -> Bounds {
    let mut own = bounds(object);
    if let Some(noted) = noted(object) {
        if noted.until.is_none() && own.max == noted.set {
            own.max = noted.max;
        }
        if own.min == noted.set {
            own.min = noted.min;
        }
    }
    own
}

fn set(object: &mut Value, bounds: Bounds) {
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("minReplicas".into(), bounds.min.into());
        spec.insert("maxReplicas".into(), bounds.max.into());
    }
}

/// An object without what was set of it here; itself where nothing was.
pub(super) fn original(object: &Value) -> Value {
    let mut plain = object.clone();
    if noted(object).is_some() {
        set(&mut plain, own_bounds(object));
    }
    if let Some(annotations) = plain
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(AUTOSCALER_ANNOTATION);
    }
    plain
}

/// A carried autoscaler with what is set of the one that is here, so that it can be applied over that.
pub(super) fn as_here(desired: &Value, here: &Value) -> Value {
    let mut object = original(desired);
    let Some(before) = noted(here) else { return object };
    let own = bounds(&object);
    let raised = before.until.is_some();
    let noted = Noted {
        min: own.min,
        max: own.max,
        set: if raised { before.set.min(own.max) } else { before.set },
        ..before
    };
    let max = if raised { own.max } else { bounds(here).max };
    set(&mut object, Bounds { min: noted.set, max });
    json_patch::merge(&mut object, &annotated(&Some(noted)));
    object
}

fn annotated(noted: &Option<Noted>) -> Value {
    let text = noted.as_ref().and_then(|noted| serde_json::to_string(noted).ok());
    json!({ "metadata": { "annotations": { AUTOSCALER_ANNOTATION: text } } })
}

/// The merge patch that brings an autoscaler of `workload` to what it should be; none when it is so. Asked again, in any state and after any number of
/// these patches was made or lost, it goes on from there.
///
/// - Where the workload stands by with no replicas, Kubernetes leaves it alone by itself, unless the minimum is 0; then it is made 1. With more, the
///   autoscaler is held at exactly that many.
/// - Where the workload is to be scaled up again, the minimum is raised to the replicas that it is to have, for [`SETTLE`] from `now_ms`, in
///   Unix milliseconds.
/// - Where it runs, a raised minimum that has ended is put back.
pub fn autoscale(object: &Value, workload: &Value, running: Running, now_ms: u64) -> Option<Value> {
    let own = own_bounds(object);
    let now = noted(object);
    let ends = |until: u64| until > now_ms && until <= now_ms.saturating_add(SETTLE.as_millis() as u64);
    let held = |min: i64, max: i64, until| {
        let noted = Noted {
            min: own.min,
            max: own.max,
            set: min,
            until,
        };
        let changes = (min, max) != (own.min, own.max);
        (Bounds { min, max }, changes.then_some(noted))
    };
    let (bounds_wanted, noted_wanted) = match (running, active_replicas(workload)) {
        (Running::Standby(standby), _) if standby > 0 => held(i64::from(standby), i64::from(standby), None),
        (Running::Standby(_), _) => held(own.min.max(1), own.max, None),
        (Running::Serve, Some(last)) => {
            let began = now.as_ref().and_then(|noted| noted.until).filter(|until| ends(*until));
            let until = began.unwrap_or(now_ms.saturating_add(SETTLE.as_millis() as u64));
            held(last.min(own.max).max(own.min), own.max, Some(until))
        }
        (Running::Serve, None) => match &now {
            // Whoever has changed it since has taken it over.
            Some(noted) if noted.until.is_some_and(ends) && bounds(object).min == noted.set => return None,
            _ => held(own.min, own.max, None),
        },
    };
    if bounds(object) == bounds_wanted && now == noted_wanted {
        return None;
    }
    let mut patch = annotated(&noted_wanted);
    json_patch::merge(
        &mut patch,
        &json!({ "spec": { "minReplicas": bounds_wanted.min, "maxReplicas": bounds_wanted.max } }),
    );
    Some(patch)
}
