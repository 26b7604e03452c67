//! What is in this cluster: one watch for each kind that decisions need, shared by all applications. Every change wakes the
//! agent's tasks; nothing is asked for again while it does not change.

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        watcher::{self, Event, watcher},
    },
};
use leeward_api::{Cluster, Operation, ProtectedApp};
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
    /// All pods, without what is not needed of them.
    pub pods: Store<Pod>,
    /// All Services.
    pub services: Store<Service>,
    /// All EndpointSlices.
    pub slices: Store<EndpointSlice>,
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
        let heed_pod = move |event: &_| of_pods.heed_pod(event);
        Self {
            clusters: follow(client, agent, tasks, stop, |_| {}),
            apps: follow(client, agent, tasks, stop, |_| {}),
            operations: follow(client, agent, tasks, stop, |_| {}),
            deployments: follow(client, agent, tasks, stop, |_| {}),
            stateful_sets: follow(client, agent, tasks, stop, |_| {}),
            pods: follow_and_heed(client, agent, tasks, stop, slim_pod, heed_pod),
            services: follow(client, agent, tasks, stop, |_| {}),
            slices: follow(client, agent, tasks, stop, |_| {}),
            room,
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
    follow_and_heed(client, agent, tasks, stop, slim, |_| {})
}

/// Keeps a copy of all objects of a kind, and shows each event to `see`.
fn follow_and_heed<K>(
    client: &Client,
    agent: &Arc<Agent>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    slim: impl Fn(&mut K) + Send + Sync + 'static,
    see: impl Fn(&watcher::Result<Event<K>>) + Send + 'static,
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
    heed(stream, agent, tasks, stop, move |event| {
        see(event);
        event.is_ok()
    });
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
