//! Two regions with their agents, whole and in this process: one has the API that the test is about, the other one a local API.
//! No controller of Kubernetes runs in either; what an application needs of them is played here.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use leeward_api::{Cluster as ClusterResource, Operation, ProtectedApp};
use leeward_controller::{serve, witness};
use leeward_testing::{AGENT, Authority, Cluster};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The longest that anything takes, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time to live of the regions' leases.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// Who a person is to the API.
pub(crate) fn person() -> PatchParams {
    PatchParams::apply("a-person")
}

/// A running agent.
type Running = (CancellationToken, JoinHandle<()>);

/// A region.
pub(crate) struct Region {
    pub(crate) client: Client,
    namespace: String,
    config: Value,
    running: Mutex<Option<Running>>,
    beside: Mutex<Option<Running>>,
    players: Vec<JoinHandle<()>>,
    _cluster: Arc<Cluster>,
}

/// Both regions and the witness.
pub(crate) struct Stage {
    pub(crate) west: Region,
    pub(crate) east: Region,
    pub(crate) namespace: String,
    pub(crate) directory: tempfile::TempDir,
    /// Where the witness is looked at.
    pub(crate) witness_metrics: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
        for region in [&self.west, &self.east] {
            region.players.iter().for_each(JoinHandle::abort);
            for running in [&region.running, &region.beside] {
                if let Some((stop, _)) = running.lock().unwrap().take() {
                    stop.cancel();
                }
            }
        }
    }
}

impl Stage {
    /// Starts both regions; `cluster` is the API of the one that is called `name`.
    pub(crate) async fn open(cluster: &Arc<Cluster>, name: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let other = Cluster::local_with("127.9.40.0/22").await.unwrap();
        let (west, east) = match name {
            "west" => (Arc::clone(cluster), other),
            _ => (other, Arc::clone(cluster)),
        };
        let namespace = cluster.fresh("shop");
        let stop = CancellationToken::new();
        let authority = Authority::new("leeward-testing").unwrap();
        std::fs::write(directory.path().join("ca.crt"), authority.certificate()).unwrap();
        let [witness, witness_metrics] = leeward_testing::free().unwrap();
        let mut config = credentials(&authority, "witness", witness, directory.path());
        config["data_dir"] = json!(directory.path().join("witness"));
        config["metrics_address"] = json!(witness_metrics);
        let config = serde_json::from_value(config).unwrap();
        let stopped = stop.clone();
        tokio::spawn(async move { witness::run(config, stopped).await.unwrap() });
        let addresses = [leeward_testing::free().unwrap(), leeward_testing::free().unwrap()];
        let region = async |name, cluster, own| {
            let config = agent(&authority, name, own, witness, directory.path());
            Region::open(cluster, config, addresses, namespace.clone()).await
        };
        let west = region("west", west, addresses[0]).await;
        let east = region("east", east, addresses[1]).await;
        let stage = Self {
            west,
            east,
            namespace,
            directory,
            witness_metrics,
            stop,
        };
        stage.west.start();
        stage.east.start();
        stage
    }

    /// What the agent of a region keeps on disk of the application's configuration.
    pub(crate) fn carried(&self, region: &str) -> PathBuf {
        let file = format!("{}.web.json", self.namespace);
        self.directory.path().join(region).join("carried").join(file)
    }

    /// Ends the witness, and the quorum with it.
    pub(crate) fn end_the_witness(&self) {
        self.stop.cancel();
    }

    /// Ends the agents, so that none of them meets the next scenario.
    pub(crate) async fn close(self) {
        let beside = self.west.beside.lock().unwrap().take();
        if let Some((stop, task)) = beside {
            stop.cancel();
            task.await.unwrap();
        }
        self.west.stop().await;
        self.east.stop().await;
    }
}

/// Certificates in the form in which a configuration names them.
fn credentials(authority: &Authority, name: &str, address: SocketAddr, directory: &Path) -> Value {
    let identity = authority.issue(name, &[], &[address.ip()]).unwrap();
    let file = |end: &str| directory.join(format!("{name}.{end}"));
    std::fs::write(file("crt"), identity.certificate).unwrap();
    std::fs::write(file("key"), identity.key).unwrap();
    json!({ "address": address, "ca": directory.join("ca.crt"), "cert": file("crt"), "key": file("key") })
}

/// The configuration of an agent: registry, ingress, peer link and metrics at its own addresses.
fn agent(authority: &Authority, name: &str, own: [SocketAddr; 4], witness: SocketAddr, directory: &Path) -> Value {
    let peer = credentials(authority, name, own[2], directory);
    let url = format!("https://{witness}");
    json!({
        "region": name, "cluster": name, "lease_ttl_ms": LEASE.as_millis() as u64,
        "data_dir": directory.join(name), "registry_dir": directory.join(name).join("registry"),
        "registry_address": own[0], "ingress_address": own[1], "peer_address": own[2], "metrics_address": own[3],
        "peer_ca": peer["ca"], "peer_cert": peer["cert"], "peer_key": peer["key"],
        "quorum": { "embedded": { "url": url } }, "witness_url": url,
    })
}

impl Region {
    async fn open(
        cluster: Arc<Cluster>,
        mut config: Value,
        addresses: [[SocketAddr; 4]; 2],
        namespace: String,
    ) -> Self {
        config["kubeconfig"] = json!(cluster.kubeconfig(AGENT));
        let client = cluster.client().await.unwrap();
        define(&client).await;
        clear(&client).await;
        for (name, [registry, ingress, peer, _]) in ["west", "east"].into_iter().zip(addresses) {
            let resource = json!({
                "apiVersion": "leeward.dev/v1alpha1", "kind": "Cluster", "metadata": { "name": name },
                "spec": { "region": name, "ingress": ingress, "registry": registry, "peer": peer },
            });
            let api: Api<ClusterResource> = Api::all(client.clone());
            api.patch(name, &person().force(), &Patch::Apply(&resource))
                .await
                .unwrap();
        }
        offer(&client, json!({ "cpu": "8", "memory": "16Gi", "pods": "110" })).await;
        let players = vec![tokio::spawn(play(client.clone(), namespace.clone()))];
        Self {
            client,
            namespace,
            config,
            running: Mutex::default(),
            beside: Mutex::default(),
            players,
            _cluster: cluster,
        }
    }

    /// Starts the agent.
    pub(crate) fn start(&self) {
        *self.running.lock().unwrap() = Some(started(&self.config));
    }

    /// The agent is that of a pod from its next start on, and may have replicas.
    pub(crate) fn be_replica(&mut self, pod: &str) {
        self.config["pod_name"] = json!(pod);
        self.config["pod_ip"] = json!(self.peer().ip());
    }

    fn peer(&self) -> SocketAddr {
        serde_json::from_value(self.config["peer_address"].clone()).unwrap()
    }

    /// Starts another replica of the agent, at the same address, which is in both ones' certificate; where its peer link is.
    pub(crate) async fn start_replica(&self, pod: &str) -> SocketAddr {
        let listeners = [(); 4].map(|()| std::net::TcpListener::bind((self.peer().ip(), 0)).unwrap());
        let [registry, ingress, peer, metrics] = listeners.map(|listener| listener.local_addr().unwrap());
        let mut config = self.config.clone();
        config["pod_name"] = json!(pod);
        for (field, address) in [
            ("registry_address", registry),
            ("ingress_address", ingress),
            ("peer_address", peer),
            ("metrics_address", metrics),
        ] {
            config[field] = json!(address);
        }
        for field in ["data_dir", "registry_dir"] {
            config[field] = json!(format!("{}-{pod}", config[field].as_str().unwrap()));
        }
        *self.beside.lock().unwrap() = Some(started(&config));
        // It is there once it listens.
        let listens = timeout(PATIENCE, async {
            while tokio::net::TcpStream::connect(peer).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        listens.await.unwrap();
        peer
    }

    /// Where its API server is.
    pub(crate) fn api_server(&self) -> SocketAddr {
        let server = kubeconfig(&self.config)["clusters"][0]["cluster"]["server"].clone();
        server
            .as_str()
            .unwrap()
            .strip_prefix("https://")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// From its next start on, the agent reaches the API at that address.
    pub(crate) fn reach_api_at(&mut self, address: SocketAddr) {
        let mut changed = kubeconfig(&self.config);
        changed["clusters"][0]["cluster"]["server"] = json!(format!("https://{address}"));
        let file = Path::new(self.config["data_dir"].as_str().unwrap()).with_extension("kubeconfig");
        std::fs::write(&file, changed.to_string()).unwrap();
        self.config["kubeconfig"] = json!(file);
    }

    /// Ends the agent.
    pub(crate) async fn stop(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some((stop, task)) = running {
            stop.cancel();
            task.await.unwrap();
        }
    }

    /// Has the agent, once it is started again, find nobody behind any address that it knows.
    pub(crate) fn cut_off(&mut self) {
        let [nobody] = leeward_testing::free().unwrap();
        let path = self.config["kubeconfig"].as_str().unwrap();
        let mut kubeconfig = kube::config::Kubeconfig::read_from(path).unwrap();
        for cluster in &mut kubeconfig.clusters {
            cluster.cluster.as_mut().unwrap().server = Some(format!("https://{nobody}"));
        }
        let data = PathBuf::from(self.config["data_dir"].as_str().unwrap());
        let own = data.join("cut-off.kubeconfig");
        std::fs::write(&own, serde_json::to_string(&kubeconfig).unwrap()).unwrap();
        self.config["kubeconfig"] = json!(own);
        // The table that was kept would be served by.
        let _ = std::fs::remove_file(data.join("table.json"));
    }

    /// Ends the controllers that are played: what is asked for from now on never runs.
    pub(crate) fn play_no_more(&self) {
        self.players.iter().for_each(JoinHandle::abort);
    }

    /// Gives the region's one node this much for pods.
    pub(crate) async fn offer(&self, allocatable: Value) {
        offer(&self.client, allocatable).await;
    }

    /// Where images are pushed to.
    pub(crate) fn registry(&self) -> SocketAddr {
        serde_json::from_value(self.config["registry_address"].clone()).unwrap()
    }

    /// From its next start on, the agent is one that runs in a pod: it sees no node's directories, and nodes pull images from elsewhere.
    pub(crate) fn be_in_a_pod(&mut self) {
        self.config["volumes_are_here"] = json!(false);
        self.config["images_from_registry"] = json!(false);
    }

    /// Whether images are pushed to the region's registry; an agent in a pod asks for none and takes none.
    pub(crate) fn takes_images(&self) -> bool {
        self.config["images_from_registry"] != json!(false)
    }

    /// Where users' requests enter.
    pub(crate) fn ingress(&self) -> SocketAddr {
        serde_json::from_value(self.config["ingress_address"].clone()).unwrap()
    }

    /// Where the agent is looked at.
    pub(crate) fn metrics(&self) -> SocketAddr {
        serde_json::from_value(self.config["metrics_address"].clone()).unwrap()
    }

    /// The token that opens the kubelet endpoint of the region's nodes.
    pub(crate) fn set_kubelet_token(&mut self, file: &Path) {
        self.config["kubelet_token"] = json!(file);
    }

    /// The application's objects of a kind.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The cluster's objects of a kind.
    pub(crate) fn all<K>(&self) -> Api<K>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    /// Applies objects of the application's namespace as a person.
    pub(crate) async fn apply<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut whole = json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()) });
        whole
            .as_object_mut()
            .unwrap()
            .extend(object.as_object().unwrap().clone());
        self.api::<K>()
            .patch(&name, &person(), &Patch::Apply(&whole))
            .await
            .unwrap()
    }
}

fn started(config: &Value) -> Running {
    let (stop, config) = (
        CancellationToken::new(),
        serde_json::from_value(config.clone()).unwrap(),
    );
    let stopped = stop.clone();
    let task = tokio::spawn(async move { serve::run(config, stopped).await.unwrap() });
    (stop, task)
}

/// The kubeconfig of an agent.
fn kubeconfig(config: &Value) -> Value {
    let file = Path::new(config["kubeconfig"].as_str().unwrap());
    serde_json::to_value(kube::config::Kubeconfig::read_from(file).unwrap()).unwrap()
}

/// Waits until an object is as it should be, and gives it.
pub(crate) async fn until<K>(api: &Api<K>, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let holds = |found: Option<&K>| found.is_some_and(&holds);
    match timeout(PATIENCE, await_condition(api.clone(), name, holds)).await {
        Ok(found) => found.unwrap().unwrap(),
        Err(_) => {
            let found = serde_json::to_value(api.get_opt(name).await.unwrap()).unwrap();
            panic!("{what}: {name} is still {found:#}");
        }
    }
}

/// Waits until an object is gone.
pub(crate) async fn gone<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let gone = await_condition(api.clone(), name, |found: Option<&K>| found.is_none());
    let Ok(gone) = timeout(PATIENCE, gone).await else {
        panic!("{name} is still there: {:?}", api.get_opt(name).await.unwrap());
    };
    gone.unwrap();
}

/// Waits until a file is as it should be; it is given what is in it, and nothing where there is none.
pub(crate) async fn until_file(file: &Path, what: &str, holds: impl Fn(Option<&str>) -> bool) {
    let looked = timeout(PATIENCE, async {
        while !holds(std::fs::read_to_string(file).ok().as_deref()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(looked.await.is_ok(), "{what}: {}", file.display());
}

/// Leeward's kinds, served.
async fn define(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in leeward_api::crds() {
        let name = definition.name_any();
        definitions
            .patch(&name, &person().force(), &Patch::Apply(&definition))
            .await
            .unwrap();
        until(&definitions, &name, "established", |found| {
            let conditions = found
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|c| c.type_ == "Established" && c.status == "True")
        })
        .await;
    }
}

/// The one node of a cluster, with this much for pods.
async fn offer(client: &Client, allocatable: Value) {
    let nodes: Api<Node> = Api::all(client.clone());
    let params = PatchParams::apply("played-controllers").force();
    let mut node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "played" } });
    nodes.patch("played", &params, &Patch::Apply(&node)).await.unwrap();
    node["status"] = json!({
        "capacity": allocatable, "allocatable": allocatable,
        "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played" }],
    });
    nodes
        .patch_status("played", &params, &Patch::Apply(&node))
        .await
        .unwrap();
}

/// Takes away what a scenario before left, finished or not.
async fn clear(client: &Client) {
    async fn each<K>(client: &Client)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let all = Api::<K>::all(client.clone())
            .list(&ListParams::default())
            .await
            .unwrap();
        for object in all {
            let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap());
            let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
            // Either may find it gone already.
            let _ = api.patch(&object.name_any(), &PatchParams::default(), &free).await;
            let _ = api.delete(&object.name_any(), &DeleteParams::default()).await;
        }
    }
    each::<ProtectedApp>(client).await;
    each::<Operation>(client).await;
}

/// Plays the controllers of Deployments and of endpoints: what is asked for runs at once.
async fn play(client: Client, namespace: String) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(client, &namespace);
    let changes = watcher(deployments.clone(), watcher::Config::default()).default_backoff();
    let mut changes = pin!(changes.applied_objects());
    // An API that is away is asked again by the watch itself.
    while let Some(change) = changes.next().await {
        let Ok(deployment) = change else { continue };
        let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
        if seen == deployment.metadata.generation {
            continue;
        }
        while let Err(error) = run(&deployments, &slices, &deployment).await {
            eprintln!("playing a controller: {error}");
            // Whoever deleted it meanwhile needs nothing of it.
            match deployments.get_opt(&deployment.name_any()).await {
                Ok(None) => break,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// What a Deployment asks for, as if it ran.
async fn run(
    deployments: &Api<Deployment>,
    slices: &Api<EndpointSlice>,
    deployment: &Deployment,
) -> kube::Result<Deployment> {
    let params = PatchParams::apply("played-controllers").force();
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let name = deployment.name_any();
    let status = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "status": { "observedGeneration": deployment.metadata.generation, "replicas": replicas,
            "updatedReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas },
    });
    // Real API servers take no endpoint on loopback.
    let endpoint = json!({ "addresses": ["10.9.8.7"], "conditions": { "ready": replicas > 0 } });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("{name}-1"), "labels": { "kubernetes.io/service-name": name } },
        "endpoints": [endpoint], "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
    });
    slices
        .patch(&format!("{name}-1"), &params, &Patch::Apply(&slice))
        .await?;
    deployments.patch_status(&name, &params, &Patch::Apply(&status)).await
}
