//! Objects that the controllers' tests are about.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::action::Target;

/// The time at which the tests take place.
pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

/// A typed object.
pub(super) fn object_of<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// A pod labelled `app=web` that the object with this uid controls, bound to node `n0`.
pub(super) fn pod(name: &str, owner: &str) -> Pod {
    object_of(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": "web"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner, "controller": true}],
        },
        "spec": {"nodeName": "n0", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Pending", "podIP": "127.9.17.2"},
    }))
}

/// The same pod, running and ready since [`now`].
pub(super) fn ready(mut pod: Pod) -> Pod {
    let status = pod.status.get_or_insert_default();
    status.phase = Some("Running".to_owned());
    status.conditions = Some(object_of(
        json!([{"type": "Ready", "status": "True", "lastTransitionTime": now().to_string()}]),
    ));
    pod
}

/// Their names.
pub(super) fn names<'a>(targets: impl Iterator<Item = &'a Target>) -> Vec<&'a str> {
    targets.map(|target| target.name.as_str()).collect()
}
