//! The controllers against the API, both in this process; nodes are played by the test.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    batch::v1::Job,
    coordination::v1::Lease,
    core::v1::{Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{NamespaceResourceScope, Resource},
    runtime::{WatchStreamExt, watcher},
};
use leeward_local::{apiserver::Server, controllers};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::region::Region;

struct Cluster {
    client: Client,
    region: Region,
    tasks: Vec<JoinHandle<()>>,
    _server: Server,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

// A node that runs pods by saying so. Its lease is renewed while it lives, and its endpoint listens while its process is there.
struct FakeNode {
    name: &'static str,
    alive: Arc<AtomicBool>,
    process: JoinHandle<()>,
}

impl FakeNode {
    // Stops renewing, but its process stays.
    fn hang(&self) {
        self.alive.store(false, Ordering::SeqCst);
    }

    fn die(&self) {
        self.hang();
        self.process.abort();
    }
}

impl Cluster {
    async fn new() -> Self {
        let region = Region::new();
        let server = region.open().await;
        let client = server.client();
        let config = controllers::Config {
            volumes_dir: region.path("volumes"),
        };
        let run = controllers::run(client.clone(), config, std::future::pending());
        let cluster = Self {
            tasks: vec![tokio::spawn(async move { run.await.unwrap() })],
            client,
            region,
            _server: server,
        };
        let leases: Api<Namespace> = Api::all(cluster.client.clone());
        until(&leases, |all| {
            all.iter()
                .any(|one| one.metadata.name.as_deref() == Some("kube-node-lease"))
        })
        .await;
        cluster
    }

    fn volumes(&self) -> PathBuf {
        self.region.path("volumes")
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let object = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    async fn node(&mut self, name: &'static str) -> FakeNode {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
        nodes
            .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
            .await
            .unwrap();
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "renewTime": "2026-01-01T00:00:00.000000Z"}});
        leases
            .create(&PostParams::default(), &serde_json::from_value(lease).unwrap())
            .await
            .unwrap();
        let status = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
        let alive = Arc::new(AtomicBool::new(true));
        self.tasks.push(tokio::spawn(renew(leases, name, alive.clone())));
        self.tasks.push(tokio::spawn(run_pods(
            Api::all(self.client.clone()),
            self.client.clone(),
            name,
            alive.clone(),
        )));
        FakeNode {
            name,
            alive,
            process: tokio::spawn(async move { while listener.accept().await.is_ok() {} }),
        }
    }
}

async fn renew(leases: Api<Lease>, name: &'static str, alive: Arc<AtomicBool>) {
    for beat in 1.. {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if !alive.load(Ordering::SeqCst) {
            return;
        }
        let at = format!("2026-01-01T00:00:{:02}.{:03}000Z", beat / 1000 % 60, beat % 1000);
        let patch = json!({"spec": {"renewTime": at}});
        let _ = leases.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    }
}

async fn run_pods(pods: Api<Pod>, client: Client, name: &'static str, alive: Arc<AtomicBool>) {
    static ADDRESS: AtomicU8 = AtomicU8::new(2);
    let mut events = watcher(pods, watcher::Config::default()).applied_objects().boxed();
    while let Some(Ok(pod)) = events.next().await {
        let mine = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(name);
        if !mine || !alive.load(Ordering::SeqCst) {
            continue;
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
        let pod_name = pod.metadata.name.as_deref().unwrap();
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api.delete(pod_name, &DeleteParams::default().grace_period(0)).await;
        } else if pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).is_none() {
            let address = ADDRESS.fetch_add(1, Ordering::SeqCst);
            let status = json!({"status": {
                "phase": "Running", "podIP": format!("127.7.17.{address}"),
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            }});
            let _ = api
                .patch_status(pod_name, &PatchParams::default(), &Patch::Merge(status))
                .await;
        }
    }
}

// Waits until what the API lists of a kind is as wanted, looking again at each change.
async fn until<K>(api: &Api<K>, wanted: impl Fn(&[K]) -> bool)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut events = watcher(api.clone(), watcher::Config::default()).boxed();
    let waiting = async {
        loop {
            let listed = api.list(&ListParams::default()).await.unwrap().items;
            if wanted(&listed) {
                return;
            }
            events.try_next().await.unwrap();
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), waiting).await.is_err() {
        let listed = api.list(&ListParams::default()).await.unwrap().items;
        panic!(
            "never as wanted: {}",
            serde_json::to_string_pretty(&listed.iter().map(|one| one.meta()).collect::<Vec<_>>()).unwrap()
        );
    }
}

fn web(replicas: i32) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        },
    })
}

fn available(wanted: i32) -> impl Fn(&[Deployment]) -> bool {
    move |all| {
        all.iter().all(|one| {
            let status = one.status.clone().unwrap_or_default();
            status.available_replicas.unwrap_or(0) == wanted
                && status.updated_replicas.unwrap_or(0) == wanted
                && status.replicas.unwrap_or(0) == wanted
                && status.observed_generation == one.metadata.generation
        })
    }
}

fn ready_endpoints(slices: &[EndpointSlice]) -> usize {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true))
        .count()
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

#[tokio::test]
async fn a_deployment_runs_on_all_nodes_and_its_service_finds_it() {
    let mut cluster = Cluster::new().await;
    let (_a, _b) = (cluster.node("n0").await, cluster.node("n1").await);
    cluster.create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}})).await;
    cluster.create::<Deployment>(web(4)).await;
    until(&cluster.api(), available(4)).await;
    until(&cluster.api(), |slices| ready_endpoints(slices) == 4).await;
    let pods = cluster.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(pods.iter().filter(|pod| node_of(pod) == Some("n0")).count(), 2);

    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    cluster
        .api::<Deployment>()
        .patch("web", &PatchParams::default(), &Patch::Merge(image))
        .await
        .unwrap();
    until(&cluster.api(), available(4)).await;
    until(&cluster.api(), |pods: &[Pod]| {
        pods.len() == 4
            && pods
                .iter()
                .all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("i:2"))
    })
    .await;
    cluster
        .api::<Deployment>()
        .delete("web", &DeleteParams::background())
        .await
        .unwrap();
    until(&cluster.api(), |pods: &[Pod]| pods.is_empty()).await;
    until(&cluster.api(), |slices| ready_endpoints(slices) == 0).await;
}

#[tokio::test]
async fn a_pod_is_bound_soon_after_its_deployment_is_scaled_up() {
    let mut cluster = Cluster::new().await;
    let _node = cluster.node("n0").await;
    cluster.create::<Deployment>(web(0)).await;
    until(&cluster.api(), available(0)).await;
    let scale = |replicas: i32| json!({"spec": {"replicas": replicas}});
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let begin = Instant::now();
        cluster
            .api::<Deployment>()
            .patch("web", &PatchParams::default(), &Patch::Merge(scale(1)))
            .await
            .unwrap();
        until(&cluster.api(), |pods: &[Pod]| {
            pods.iter().any(|pod| node_of(pod).is_some())
        })
        .await;
        fastest = fastest.min(begin.elapsed());
        cluster
            .api::<Deployment>()
            .patch("web", &PatchParams::default(), &Patch::Merge(scale(0)))
            .await
            .unwrap();
        until(&cluster.api(), |pods: &[Pod]| pods.is_empty()).await;
    }
    // The best of five, so that what else the machine does is not what is measured.
    assert!(fastest < Duration::from_millis(200), "{fastest:?}");
}

#[tokio::test]
async fn pods_of_a_node_whose_process_is_gone_start_elsewhere() {
    let mut cluster = Cluster::new().await;
    let (first, second) = (cluster.node("n0").await, cluster.node("n1").await);
    cluster.create::<Deployment>(web(2)).await;
    until(&cluster.api(), available(2)).await;
    first.die();
    until(&cluster.api(), |pods: &[Pod]| {
        pods.len() == 2 && pods.iter().all(|pod| node_of(pod) == Some(second.name))
    })
    .await;
    until(&cluster.api(), available(2)).await;
    until(&cluster.api(), |events: &[Event]| {
        events
            .iter()
            .any(|event| event.reason.as_deref() == Some("NodeNotReady"))
    })
    .await;
}

#[tokio::test]
async fn pods_of_a_node_that_only_hangs_lose_their_endpoints_but_are_not_replaced() {
    let mut cluster = Cluster::new().await;
    let node = cluster.node("n0").await;
    cluster
        .create::<Service>(
            json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        )
        .await;
    cluster.create::<Deployment>(web(1)).await;
    until(&cluster.api(), |slices| ready_endpoints(slices) == 1).await;
    node.hang();
    until(&cluster.api(), |slices| ready_endpoints(slices) == 0).await;
    // Well past grace and eviction the pod is still the same one.
    let before = cluster.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let pods = cluster.api();
    let gone = until(&pods, |pods: &[Pod]| {
        pods.len() != 1 || pods[0].metadata.uid != before[0].metadata.uid
    });
    assert!(tokio::time::timeout(Duration::from_secs(5), gone).await.is_err());
}

#[tokio::test]
async fn a_claim_is_a_directory_that_goes_with_it() {
    let mut cluster = Cluster::new().await;
    let _node = cluster.node("n0").await;
    cluster
        .create::<StatefulSet>(json!({
            "metadata": {"name": "db"},
            "spec": {
                "replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
            },
        }))
        .await;
    until(&cluster.api(), |all: &[StatefulSet]| {
        all[0].status.as_ref().and_then(|status| status.ready_replicas) == Some(2)
    })
    .await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    until(&claims, |claims| {
        claims.len() == 2
            && claims
                .iter()
                .all(|claim| claim.status.as_ref().unwrap().phase.as_deref() == Some("Bound"))
    })
    .await;
    let directories = || std::fs::read_dir(cluster.volumes()).unwrap().count();
    assert_eq!(directories(), 2);

    // Used by a pod, it stays until that is gone.
    claims.delete("data-db-1", &DeleteParams::default()).await.unwrap();
    assert!(
        claims
            .get("data-db-1")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    cluster
        .api::<StatefulSet>()
        .delete("db", &DeleteParams::background())
        .await
        .unwrap();
    until(&claims, |claims| claims.len() == 1).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    until(&volumes, |volumes| volumes.len() == 1).await;
    assert_eq!(directories(), 1);
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_starts_when_it_does() {
    let mut cluster = Cluster::new().await;
    cluster
        .create::<Pod>(json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}))
        .await;
    until(&cluster.api(), |events: &[Event]| {
        events
            .iter()
            .any(|event| event.reason.as_deref() == Some("FailedScheduling"))
    })
    .await;
    let _node = cluster.node("n0").await;
    until(&cluster.api(), |pods: &[Pod]| node_of(&pods[0]) == Some("n0")).await;
}

#[tokio::test]
async fn a_job_ends_when_its_pods_have_succeeded() {
    let mut cluster = Cluster::new().await;
    let _node = cluster.node("n0").await;
    cluster
        .create::<Job>(json!({
            "metadata": {"name": "j"},
            "spec": {"completions": 2, "parallelism": 2, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
        }))
        .await;
    until(&cluster.api(), |pods: &[Pod]| {
        pods.len() == 2 && pods.iter().all(|pod| pod.status.as_ref().unwrap().pod_ip.is_some())
    })
    .await;
    let pods = cluster.api::<Pod>();
    for pod in pods.list(&ListParams::default()).await.unwrap().items {
        let succeeded = json!({"status": {"phase": "Succeeded"}});
        let name = pod.metadata.name.unwrap();
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(succeeded))
            .await
            .unwrap();
    }
    until(&cluster.api(), |jobs: &[Job]| {
        let status = jobs[0].status.clone().unwrap_or_default();
        status.succeeded == Some(2) && status.completion_time.is_some()
    })
    .await;
    until(&pods, |pods: &[Pod]| {
        pods.iter().all(|pod| pod.metadata.finalizers.is_none())
    })
    .await;
}

#[tokio::test]
async fn a_cordoned_node_gets_no_pods_but_those_of_a_daemon_set() {
    let mut cluster = Cluster::new().await;
    let (_a, _b) = (cluster.node("n0").await, cluster.node("n1").await);
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.cordon("n0").await.unwrap();
    until(&nodes, |nodes| {
        let taints = nodes[0].spec.as_ref().and_then(|spec| spec.taints.clone());
        taints.is_some_and(|taints| taints[0].key == "node.kubernetes.io/unschedulable")
    })
    .await;
    cluster.create::<Deployment>(web(2)).await;
    until(&cluster.api(), available(2)).await;
    let pods = cluster.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    assert!(pods.iter().all(|pod| node_of(pod) == Some("n1")));
    cluster
        .create::<DaemonSet>(json!({
            "metadata": {"name": "agent"},
            "spec": {
                "selector": {"matchLabels": {"app": "agent"}},
                "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            },
        }))
        .await;
    until(&cluster.api(), |sets: &[DaemonSet]| {
        sets[0].status.as_ref().is_some_and(|status| status.number_ready == 2)
    })
    .await;
    nodes.uncordon("n0").await.unwrap();
    until(&nodes, |nodes| {
        let taints = nodes[0].spec.as_ref().and_then(|spec| spec.taints.clone());
        taints.unwrap_or_default().is_empty()
    })
    .await;
}

#[tokio::test]
async fn an_eviction_that_a_budget_does_not_allow_is_refused_until_it_does() {
    let mut cluster = Cluster::new().await;
    let _node = cluster.node("n0").await;
    cluster.create::<Deployment>(web(2)).await;
    let budget =
        json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}});
    cluster.create::<PodDisruptionBudget>(budget).await;
    let budgets = cluster.api::<PodDisruptionBudget>();
    let healthy = |wanted: i32, allowed: i32| {
        move |all: &[PodDisruptionBudget]| {
            let status = all[0].status.clone().unwrap_or_default();
            status.current_healthy == Some(wanted) && status.disruptions_allowed == Some(allowed)
        }
    };
    until(&budgets, healthy(2, 0)).await;
    let pods = cluster.api::<Pod>();
    let name = pods.list(&ListParams::default()).await.unwrap().items[0]
        .metadata
        .name
        .clone()
        .unwrap();
    let refused = pods.evict(&name, &Default::default()).await.unwrap_err();
    let kube::Error::Api(status) = refused else {
        panic!("{refused}")
    };
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    let scale = json!({"spec": {"replicas": 3}});
    cluster
        .api::<Deployment>()
        .patch("web", &PatchParams::default(), &Patch::Merge(scale))
        .await
        .unwrap();
    until(&budgets, healthy(3, 1)).await;
    pods.evict(&name, &Default::default()).await.unwrap();
    until(&pods, |pods: &[Pod]| {
        pods.len() == 3 && pods.iter().all(|pod| pod.metadata.name.as_ref() != Some(&name))
    })
    .await;
}

#[tokio::test]
async fn what_nothing_acts_on_says_so() {
    let cluster = Cluster::new().await;
    cluster
        .create::<NetworkPolicy>(json!({"metadata": {"name": "closed"}, "spec": {"podSelector": {}}}))
        .await;
    until(&cluster.api(), |events: &[Event]| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some("NotActedOn") && event.involved_object.name.as_deref() == Some("closed")
        })
    })
    .await;
}
