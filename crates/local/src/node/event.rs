//! Events about pods: what `kubectl describe` shows. Best effort; a repeated event is counted up instead of written again.

use std::collections::VecDeque;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;

/// How many events are remembered to be counted up.
const REMEMBERED: usize = 128;
/// How many may wait to be written; more are dropped.
const QUEUE: usize = 256;

/// Writes events in the background.
#[derive(Clone)]
pub(super) struct Recorder {
    queue: mpsc::Sender<Entry>,
}

struct Entry {
    about: ObjectReference,
    kind: &'static str,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

struct Written {
    about: ObjectReference,
    reason: &'static str,
    message: String,
    name: String,
    count: i32,
}

impl Recorder {
    /// Starts the task that writes, as component `kubelet` of `node`.
    pub(super) fn start(client: kube::Client, node: String) -> Self {
        let (queue, inbox) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(client, node, inbox));
        Self { queue }
    }

    /// Something went as it should.
    pub(super) fn normal(&self, pod: &Pod, container: Option<&str>, reason: &'static str, message: String) {
        self.push("Normal", pod, container, reason, message);
    }

    /// Something did not.
    pub(super) fn warning(&self, pod: &Pod, container: Option<&str>, reason: &'static str, message: String) {
        self.push("Warning", pod, container, reason, message);
    }

    fn push(&self, kind: &'static str, pod: &Pod, container: Option<&str>, reason: &'static str, message: String) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
            ..ObjectReference::default()
        };
        let message = message.chars().take(1024).collect();
        let _ = self.queue.try_send(Entry {
            about,
            kind,
            reason,
            message,
            at: Timestamp::now(),
        });
    }
}

async fn write_all(client: kube::Client, node: String, mut inbox: mpsc::Receiver<Entry>) {
    let mut written: VecDeque<Written> = VecDeque::new();
    while let Some(entry) = inbox.recv().await {
        let namespace = entry.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let same =
            |old: &&mut Written| old.about == entry.about && old.reason == entry.reason && old.message == entry.message;
        if let Some(old) = written.iter_mut().find(same) {
            old.count += 1;
            let change = serde_json::json!({"count": old.count, "lastTimestamp": Time(entry.at)});
            if api
                .patch(&old.name, &PatchParams::default(), &Patch::Merge(&change))
                .await
                .is_ok()
            {
                continue;
            }
        }
        let name = format!(
            "{}.{:x}",
            entry.about.name.as_deref().unwrap_or("pod"),
            entry.at.as_nanosecond()
        );
        if api
            .create(&PostParams::default(), &event(&entry, &name, &namespace, &node))
            .await
            .is_ok()
        {
            if written.len() == REMEMBERED {
                written.pop_front();
            }
            written.retain(|old| {
                !(old.about == entry.about && old.reason == entry.reason && old.message == entry.message)
            });
            let Entry {
                about, reason, message, ..
            } = entry;
            written.push_back(Written {
                about,
                reason,
                message,
                name,
                count: 1,
            });
        }
    }
}

fn event(entry: &Entry, name: &str, namespace: &str, node: &str) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: entry.about.clone(),
        reason: Some(entry.reason.to_owned()),
        message: Some(entry.message.clone()),
        type_: Some(entry.kind.to_owned()),
        first_timestamp: Some(Time(entry.at)),
        last_timestamp: Some(Time(entry.at)),
        count: Some(1),
        source: Some(EventSource {
            component: Some("kubelet".to_owned()),
            host: Some(node.to_owned()),
        }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}
