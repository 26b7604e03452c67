//! Events of resources, as a person reads them with `kubectl describe`: one for each change of state, told by who writes the status that changes.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource, ResourceExt as _,
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

/// The statuses that were written and that the watch does not show yet. Who compared the next one with what the watch shows would tell the same
/// change again.
#[derive(Debug)]
pub struct Written<S>(HashMap<String, (Option<String>, S)>);

impl<S> Default for Written<S> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<S: Clone> Written<S> {
    /// The newest status of a resource: `shown` is what the watch shows with it.
    pub fn newest<K: Resource>(&mut self, resource: &K, shown: Option<&S>) -> Option<S> {
        let uid = resource.uid().unwrap_or_default();
        match self.0.get(&uid) {
            Some((version, status)) if *version == resource.resource_version() => Some(status.clone()),
            Some(_) => {
                self.0.remove(&uid);
                shown.cloned()
            }
            None => shown.cloned(),
        }
    }

    /// A status was written over what `resource` was.
    pub fn note<K: Resource>(&mut self, resource: &K, status: S) {
        let uid = resource.uid().unwrap_or_default();
        self.0.insert(uid, (resource.resource_version(), status));
    }

    /// Forgets those of resources that are gone.
    pub fn retain<'a, K: Resource + 'a>(&mut self, resources: impl IntoIterator<Item = &'a K>) {
        if !self.0.is_empty() {
            let here: BTreeSet<_> = resources.into_iter().filter_map(|resource| resource.uid()).collect();
            self.0.retain(|uid, _| here.contains(uid));
        }
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn resource(uid: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                uid: Some(uid.into()),
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    #[test]
    fn what_was_written_counts_until_the_watch_shows_something_newer() {
        let mut written = Written::default();
        let (before, after) = (resource("a", "1"), resource("a", "2"));
        assert_eq!(written.newest(&before, Some(&"old")), Some("old"));
        written.note(&before, "new");
        assert_eq!(written.newest(&before, Some(&"old")), Some("new"));
        assert_eq!(written.newest(&resource("b", "1"), None), None);
        assert_eq!(written.newest(&after, Some(&"new or newer")), Some("new or newer"));
        // And not again, though the version might come back.
        assert_eq!(written.newest(&before, Some(&"old")), Some("old"));
        written.note(&before, "new");
        written.retain([&resource("b", "1")]);
        assert_eq!(written.newest(&before, Some(&"old")), Some("old"));
    }
}
