//! What is in this cluster: one watch for each kind that decisions need, shared by all applications. Every change wakes the
//! agent's tasks; nothing is asked for again while it does not change.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Node, Pod, ResourceQuota, Service},
    discovery::v1::EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        watcher::{self, Event, watcher},
    },
};
use leeward_api::{Cluster, Operation, ProtectedApp, ProtectedAppSpec};
use serde::de::DeserializeOwned;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{agent::Agent, room::Ledger};

/// Copies of what is in this cluster.
#[derive(Clone)]
pub struct Cache {
    /// All `Cluster`s.
    pub clusters: Store<Cluster>,
    /// All `ProtectedApp`s.
    pub apps: Store<ProtectedApp>,
    /// All `Operation`s.
    pub operations: Store<Operation>,
    /// All Deployments.
    pub deployments: Store<Deployment>,
    /// All StatefulSets.
    pub stateful_sets: Store<StatefulSet>,
    /// All autoscalers, without their status.
    pub autoscalers: Store<HorizontalPodAutoscaler>,
    /// All pods, without what is not needed of them.
    pub pods: Store<Pod>,
    /// All Services.
    pub services: Store<Service>,
    /// All EndpointSlices.
    pub slices: Store<EndpointSlice>,
    /// All quotas.
    pub quotas: Store<ResourceQuota>,
    /// What the nodes have left.
    pub room: Ledger,
}

impl Cache {
    /// Starts the watches; they end with `stop`.
    pub fn start(client: &Client, agent: &Arc<Agent>, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let room = Ledger::default();
        let (of_nodes, of_pods) = (room.clone(), room.clone());
        let nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default()).default_backoff();
        // Nodes say that they are well all the time: only what changes the room wakes anybody.
        heed(nodes, agent, tasks, stop, move |event| of_nodes.heed_node(event));
        let heed_pod = move |event: &watcher::Result<_>| {
            of_pods.heed_pod(event);
            event.is_ok()
        };
        let seen = Mutex::new(Wishes::default());
        let heed_app = move |event: &watcher::Result<_>| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            event.as_ref().is_ok_and(|event| seen.differs(event))
        };
        Self {
            clusters: follow(client, agent, tasks, stop, |_| {}),
            apps: follow_and_heed(client, agent, tasks, stop, |_| {}, heed_app),
            operations: follow(client, agent, tasks, stop, |_| {}),
            deployments: follow(client, agent, tasks, stop, |_| {}),
            stateful_sets: follow(client, agent, tasks, stop, |_| {}),
            // They say all the time what they see: the next round is soon enough.
            autoscalers: follow_and_heed(client, agent, tasks, stop, slim_autoscaler, |_| false),
            pods: follow_and_heed(client, agent, tasks, stop, slim_pod, heed_pod),
            services: follow(client, agent, tasks, stop, |_| {}),
            slices: follow(client, agent, tasks, stop, |_| {}),
            // Every pod changes one, and the next round is soon enough.
            quotas: follow_and_heed(client, agent, tasks, stop, |_| {}, |_| false),
            room,
        }
    }
}

/// What each `ProtectedApp` wished when it was seen last. Its status is what agents say of it, every few seconds: who shows it looks every second.
#[derive(Default)]
struct Wishes(BTreeMap<Option<String>, (ObjectMeta, ProtectedAppSpec)>);

impl Wishes {
    /// Whether an event says more than another status.
    fn differs(&mut self, event: &Event<ProtectedApp>) -> bool {
        match event {
            Event::Apply(app) | Event::InitApply(app) => {
                let meta = ObjectMeta {
                    resource_version: None,
                    managed_fields: None,
                    ..app.metadata.clone()
                };
                let now = (meta, app.spec.clone());
                let before = self.0.insert(now.0.uid.clone(), now.clone());
                before != Some(now)
            }
            Event::Delete(app) => {
                self.0.remove(&app.metadata.uid);
                true
            }
            Event::Init => {
                self.0.clear();
                true
            }
            Event::InitDone => true,
        }
    }
}

/// Of a pod only its labels, its state and its images matter here; a large cluster has many.
fn slim_pod(pod: &mut Pod) {
    if let Some(spec) = &mut pod.spec {
        for container in spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten())
        {
            container.env = None;
            container.args = None;
            container.command = None;
        }
    }
}

fn slim_autoscaler(autoscaler: &mut HorizontalPodAutoscaler) {
    autoscaler.status = None;
}

fn follow<K>(
    client: &Client,
    agent: &Arc<Agent>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    slim: impl Fn(&mut K) + Send + Sync + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    follow_and_heed(client, agent, tasks, stop, slim, |event| event.is_ok())
}

/// Keeps a copy of all objects of a kind, shows each event to `see`, and wakes the agent's tasks where it says so.
fn follow_and_heed<K>(
    client: &Client,
    agent: &Arc<Agent>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    slim: impl Fn(&mut K) + Send + Sync + 'static,
    see: impl Fn(&watcher::Result<Event<K>>) -> bool + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(move |object| {
            object.meta_mut().managed_fields = None;
            slim(object);
        })
        .reflect(writer);
    heed(stream, agent, tasks, stop, see);
    reader
}

/// Shows each event to `see`, and wakes the agent's tasks where it says so.
fn heed<K>(
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    agent: &Arc<Agent>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    see: impl Fn(&watcher::Result<Event<K>>) -> bool + Send + 'static,
) where
    K: Resource<DynamicType = ()> + Send + 'static,
{
    let (agent, stop) = (Arc::clone(agent), stop.clone());
    tasks.spawn(async move {
        let mut stream = std::pin::pin!(stream);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = stream.next() => event,
            };
            let Some(event) = event else { return };
            if see(&event) {
                agent.wake();
            }
            if let Err(error) = event {
                tracing::debug!(kind = %K::kind(&()), %error, "a watch was interrupted");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn another_status_of_an_application_wakes_nobody_and_everything_else_does() {
        let app = |more: Value| {
            let mut app = json!({
                "apiVersion": "leeward.dev/v1alpha1", "kind": "ProtectedApp",
                "metadata": { "name": "shop", "namespace": "shop", "uid": "1", "resourceVersion": "7", "generation": 1 },
                "spec": { "selector": {}, "model": "ActivePassive", "placements": [{ "cluster": "west" }, { "cluster": "east" }],
                    "objectives": { "rpo": "60s", "rto": "60s" } },
            });
            json_patch::merge(&mut app, &more);
            serde_json::from_value::<ProtectedApp>(app).unwrap()
        };
        let mut wishes = Wishes::default();
        let status = json!({ "metadata": { "resourceVersion": "8" }, "status": { "active": "west" } });
        for (name, event, wakes) in [
            ("the first list", Event::Init, true),
            ("one in it", Event::InitApply(app(json!({}))), true),
            ("its end", Event::InitDone, true),
            ("another status", Event::Apply(app(status.clone())), false),
            (
                "a label",
                Event::Apply(app(json!({ "metadata": { "labels": { "a": "b" } } }))),
                true,
            ),
            (
                "another wish",
                Event::Apply(app(json!({ "spec": { "objectives": { "rpo": "30s" } } }))),
                true,
            ),
            (
                "its deletion",
                Event::Apply(app(
                    json!({ "metadata": { "deletionTimestamp": "2026-11-22T15:00:00Z" } }),
                )),
                true,
            ),
            ("its end", Event::Delete(app(json!({}))), true),
            (
                "one of the same name",
                Event::Apply(app(json!({ "metadata": { "uid": "2" } }))),
                true,
            ),
            (
                "its status",
                Event::Apply(app(
                    json!({ "metadata": { "uid": "2" }, "status": { "active": "west" } }),
                )),
                false,
            ),
        ] {
            assert_eq!(wishes.differs(&event), wakes, "{name}");
        }
        // What was missed while the watch was away.
        assert!(wishes.differs(&Event::Init) && wishes.differs(&Event::InitApply(app(status))));
    }
}
