//! Events of resources, as a person reads them with `kubectl describe`.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use leeward_core::name::ClusterName;

/// One event.
pub fn event(type_: EventType, reason: &str, action: &str, note: String) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary: None,
    }
}

/// Writes the events of a resource, each as one of its own: a recorder that is kept puts those of one reason into a series, under the text of
/// the first one. What cannot be written is left out.
pub async fn publish(client: &Client, me: &ClusterName, events: Vec<Event>, about: &ObjectReference) {
    let reporter = Reporter {
        controller: "leeward".into(),
        instance: Some(me.to_string()),
    };
    for event in events {
        let recorder = Recorder::new(client.clone(), reporter.clone());
        if let Err(error) = recorder.publish(&event, about).await {
            tracing::debug!(%error, reason = event.reason, "an event was not written");
        }
    }
}
