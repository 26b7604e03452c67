//! An event for each new object that a real cluster would act on and a local region does not: nobody has to find out by waiting.

use std::sync::Arc;

use serde_json::{Value, json};

use super::App;
use super::collect::{call, report};
use super::object;
use super::store::Id;
use super::time;
use crate::machinery::kinds::acting;

/// The reason of the event.
const REASON: &str = "NotActedOn";
/// Who tells.
const FROM: &str = "leeward-local";

/// Tells about a new object, where there is something to tell.
pub(super) async fn follow(app: &Arc<App>, id: &Id, object: &Value) {
    let kind = object::str_at(object, "/kind");
    let Some(text) = acting::not_acted_on(kind) else { return };
    if call(app, &id.resource, &id.namespace, &id.name).is_none_or(|call| call.resource.custom.is_some()) {
        return;
    }
    let namespace = if id.namespace.is_empty() {
        "default"
    } else {
        &id.namespace
    };
    let uid = object::uid(object);
    // One an object, also when this is told again.
    let name = format!("{}.{}", id.name, uid.get(..8).unwrap_or(uid));
    let Some(events) = call(app, "events", namespace, &name) else {
        return;
    };
    let (kind_of_it, at) = (&object["kind"], time::now());
    let event = json!({
        "metadata": {"name": name},
        "involvedObject": {
            "kind": kind_of_it, "apiVersion": object["apiVersion"], "name": id.name, "namespace": object["metadata"]["namespace"],
            "uid": uid, "resourceVersion": object["metadata"]["resourceVersion"],
        },
        "type": "Normal",
        "reason": REASON,
        "message": format!("Stored, but nothing in a local region acts on it. {text}"),
        "source": {"component": FROM},
        "reportingComponent": FROM,
        "reportingInstance": "",
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    });
    report(events.create(event).await.map(|_| ()));
}
