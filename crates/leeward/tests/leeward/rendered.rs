//! What `leeward install` and `leeward join` print, as a cluster makes an agent of it: the pod's mounts, environment and ports are played here, and
//! nothing that the agent is told is changed but addresses and paths.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use leeward_api::Cluster as Resource;
use leeward_testing::{AGENT, Cluster};
use serde_json::{Value, json};

use crate::desk::{Desk, PATIENCE, Running, documents};

const IMAGE: &str = "registry.example/leeward:7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_runs_on_what_is_rendered_and_is_reached_as_the_manifests_say() {
    play(&Cluster::local().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_so_on_a_real_api_server() {
    if let Some(cluster) = Cluster::real().await.unwrap() {
        play(&cluster).await;
    }
}

/// What is applied to a cluster, by whom it was printed.
struct Rendered {
    installed: Vec<Value>,
    joined: Vec<Value>,
}

fn field<'a>(value: &'a Value, path: &str) -> &'a Value {
    value.pointer(path).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    field(value, path).as_str().unwrap()
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    field(value, path).as_array().unwrap()
}

impl Rendered {
    fn new(desk: &Desk) -> Self {
        let installed = Command::new(env!("CARGO_BIN_EXE_leeward"))
            .args(["install", "--render", "--image", IMAGE])
            .output()
            .unwrap();
        Self {
            installed: serde_saphyr::from_multiple(&String::from_utf8(installed.stdout).unwrap()).unwrap(),
            joined: documents(&desk.expect(0, &["render", "west"]).0),
        }
    }

    fn one(&self, kind: &str, name: &str) -> &Value {
        let mut all = self.installed.iter().chain(&self.joined);
        let found = all.find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// The name of the pod's port that a Service's port leads to.
    fn behind(&self, service: &str, port: &Value) -> &str {
        let service = self.one("Service", service);
        let mut ports = list(service, "/spec/ports").iter();
        let found = ports.find(|found| found["port"] == *port);
        text(
            found.unwrap_or_else(|| panic!("no {port} in {service:#}")),
            "/targetPort",
        )
    }

    /// Applies what the agent needs to be there.
    async fn apply(&self, client: &Client) {
        let how = PatchParams::apply("a-person").force();
        for object in self.installed.iter().chain(&self.joined) {
            let name = text(object, "/metadata/name");
            let patch = Patch::Apply(object);
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            match object["kind"].as_str().unwrap() {
                "Namespace" => drop(
                    Api::<Namespace>::all(client.clone())
                        .patch(name, &how, &patch)
                        .await
                        .unwrap(),
                ),
                "CustomResourceDefinition" => {
                    let api = Api::<CustomResourceDefinition>::all(client.clone());
                    api.patch(name, &how, &patch).await.unwrap();
                }
                "Secret" => {
                    let api = Api::<Secret>::namespaced(client.clone(), namespace);
                    api.patch(name, &how, &patch).await.unwrap();
                }
                "ConfigMap" => {
                    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
                    api.patch(name, &how, &patch).await.unwrap();
                }
                "Cluster" => {
                    let api = Api::<Resource>::all(client.clone());
                    // A definition is there some time before its resources can be.
                    until("a Cluster can be made", async || {
                        api.patch(name, &how, &patch).await.ok().map(drop)
                    })
                    .await;
                }
                _ => {}
            }
        }
    }
}

async fn until<T>(what: &str, mut made: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(made) = made().await {
                return made;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"))
}

/// The agent's pod on this machine: where its mounts are, and its ports by name.
struct Pod<'a> {
    container: &'a Value,
    mounts: BTreeMap<&'a str, String>,
    ports: BTreeMap<&'a str, SocketAddr>,
}

impl<'a> Pod<'a> {
    /// Writes what is mounted, as it is in the cluster.
    async fn new(rendered: &'a Rendered, desk: &Desk, client: &Client) -> Self {
        let deployment = rendered.one("Deployment", "leeward");
        let namespace = text(deployment, "/metadata/namespace");
        let pod = field(deployment, "/spec/template/spec");
        let container = field(pod, "/containers/0");
        let mut mounts = BTreeMap::new();
        for mount in list(container, "/volumeMounts") {
            let name = text(mount, "/name");
            let volume = list(pod, "/volumes")
                .iter()
                .find(|volume| volume["name"] == name)
                .unwrap();
            let directory = desk.path(&format!("mount-{name}"));
            fs::create_dir(&directory).unwrap();
            let files: BTreeMap<String, ByteString> = if let Some(map) = volume.get("configMap") {
                let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
                let data = api.get(text(map, "/name")).await.unwrap().data.unwrap();
                data.into_iter()
                    .map(|(key, text)| (key, ByteString(text.into_bytes())))
                    .collect()
            } else if let Some(secret) = volume.get("secret") {
                let api = Api::<Secret>::namespaced(client.clone(), namespace);
                api.get(text(secret, "/secretName")).await.unwrap().data.unwrap()
            } else {
                BTreeMap::new()
            };
            for (file, content) in files {
                fs::write(directory.join(file), content.0).unwrap();
            }
            mounts.insert(text(mount, "/mountPath"), directory.to_str().unwrap().to_owned());
        }
        let addresses: [SocketAddr; 6] = leeward_testing::free().unwrap();
        let names = list(container, "/ports").iter().map(|port| text(port, "/name"));
        assert_eq!(names.len(), addresses.len());
        Self {
            container,
            mounts,
            ports: names.zip(addresses).collect(),
        }
    }

    fn number(&self, name: &str) -> u64 {
        let mut ports = list(self.container, "/ports").iter();
        field(ports.find(|port| port["name"] == name).unwrap(), "/containerPort")
            .as_u64()
            .unwrap()
    }

    /// A path of the pod, where it is here.
    fn here(&self, path: &str) -> String {
        let mut mounts = self.mounts.iter();
        let found = mounts.find_map(|(at, directory)| Some(format!("{directory}{}", path.strip_prefix(at)?)));
        found.unwrap_or_else(|| path.to_owned())
    }

    /// Moves what an agent is told to this machine: every path that is mounted, and every address that is one of the pod's ports.
    fn moved(&self, told: &mut Value, listened: &mut BTreeSet<u64>) {
        match told {
            Value::Array(all) => all.iter_mut().for_each(|one| self.moved(one, listened)),
            Value::Object(all) => all.values_mut().for_each(|one| self.moved(one, listened)),
            Value::String(text) => {
                if let Some(port) = text.strip_prefix("0.0.0.0:") {
                    let port = port.parse().unwrap();
                    listened.insert(port);
                    let name = self.ports.keys().find(|name| self.number(name) == port);
                    *text = self.ports[name.unwrap_or_else(|| panic!("the pod has no port {port}"))].to_string();
                } else {
                    *text = self.here(text);
                }
            }
            _ => {}
        }
    }

    /// Runs the container's command in its environment.
    fn run(&self) -> Running {
        let arguments = list(self.container, "/args")
            .iter()
            .map(|one| self.here(one.as_str().unwrap()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_leeward"));
        command.env_clear().args(arguments);
        for one in list(self.container, "/env") {
            let value = match one["value"].as_str() {
                Some(value) => value,
                None => match text(one, "/valueFrom/fieldRef/fieldPath") {
                    "metadata.name" => "leeward-0",
                    "metadata.namespace" => "leeward-system",
                    "status.podIP" => "127.0.0.1",
                    other => panic!("{other}"),
                },
            };
            command.env(text(one, "/name"), value);
        }
        Running::start(&mut command)
    }
}

/// A client that trusts whom `authority` signed, and finds `host` at an address.
fn client(authority: &[u8], host: &str, address: SocketAddr) -> reqwest::Client {
    let certificate = reqwest::Certificate::from_pem(authority).unwrap();
    let builder = reqwest::Client::builder().tls_certs_only([certificate]);
    builder.resolve(host, address).no_proxy().build().unwrap()
}

async fn play(cluster: &Cluster) {
    let desk = Desk::new();
    let [witness] = leeward_testing::free().unwrap();
    desk.init(&witness.to_string());
    let _witness = desk.witness(witness);
    let rendered = Rendered::new(&desk);
    let kube = cluster.client().await.unwrap();
    rendered.apply(&kube).await;
    let pod = Pod::new(&rendered, &desk, &kube).await;

    let file = pod.here("/etc/leeward/config/serve.json");
    let mut told: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let gates_ask = text(&told, "/gate_url").to_owned();
    let mut listened = BTreeSet::new();
    pod.moved(&mut told, &mut listened);
    let opened: BTreeSet<u64> = pod.ports.keys().map(|name| pod.number(name)).collect();
    assert_eq!(listened, opened, "it listens at the pod's ports");
    let policy = rendered.one("NetworkPolicy", "leeward");
    let let_in = list(policy, "/spec/ingress/0/ports").iter();
    assert_eq!(opened, let_in.map(|port| port["port"].as_u64().unwrap()).collect());
    // The account of a pod has its place; here is another one with the same rights. What follows from where it is stays as in a pod.
    told["kubeconfig"] = json!(cluster.kubeconfig(AGENT));
    told["images_from_registry"] = json!(false);
    told["volumes_are_here"] = json!(false);
    fs::write(&file, told.to_string()).unwrap();
    let running = pod.run();
    running.until("the agent runs");

    is_ready(&pod).await;
    let api = Api::<Resource>::all(kube.clone());
    until("the agent says who it is", async || {
        let status = api.get("west").await.unwrap().status?;
        status.agent?.starts_with("west/leeward-0/").then_some(())
    })
    .await;
    others_are_sent_to_services(&rendered);
    the_webhook_answers(&rendered, &pod).await;
    gates_are_answered(&rendered, &pod, &gates_ask).await;
    nobody_pushes(&pod).await;
}

async fn is_ready(pod: &Pod<'_>) {
    for probe in ["readinessProbe", "livenessProbe"] {
        let get = field(pod.container, &format!("/{probe}/httpGet"));
        let url = format!("http://{}{}", pod.ports[text(get, "/port")], text(get, "/path"));
        until(probe, async || reqwest::get(&url).await.ok()?.error_for_status().ok()).await;
    }
}

/// The ports at which a cluster is said to be reached are those of its Services.
fn others_are_sent_to_services(rendered: &Rendered) {
    for name in ["west", "east"] {
        let resource = rendered.one("Cluster", name);
        for (said, service, port) in [
            ("/spec/ingress", "leeward-edge", "edge"),
            ("/spec/peer", "leeward-peer", "peer"),
            ("/spec/registry", "leeward-registry", "registry"),
        ] {
            let (_, number) = text(resource, said).rsplit_once(':').unwrap();
            let number: u16 = number.parse().unwrap();
            assert_eq!(rendered.behind(service, &json!(number)), port);
        }
    }
}

/// As the API server asks: it knows the configuration, and the Service that it names.
async fn the_webhook_answers(rendered: &Rendered, pod: &Pod<'_>) {
    let configuration = rendered.one("MutatingWebhookConfiguration", "leeward-webhook");
    let asked = field(configuration, "/webhooks/0/clientConfig");
    let (name, namespace) = (text(asked, "/service/name"), text(asked, "/service/namespace"));
    let address = pod.ports[rendered.behind(name, field(asked, "/service/port"))];
    let authority: ByteString = serde_json::from_value(asked["caBundle"].clone()).unwrap();
    let host = format!("{name}.{namespace}.svc");
    let annotations = json!({
        "leeward.dev/gate-app": "shop", "leeward.dev/gate-roles": "data", "leeward.dev/gate-ports": "http:8080=8081",
    });
    let writer = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "shop", "namespace": "shop", "annotations": annotations },
        "spec": { "containers": [{ "name": "shop", "image": "shop:1", "command": ["/shop"] }] },
    });
    let request = json!({
        "uid": "u", "operation": "CREATE", "object": writer, "resource": { "group": "", "version": "v1", "resource": "pods" },
    });
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
    let url = format!("https://{host}:{}{}", address.port(), text(asked, "/service/path"));
    let answer = client(&authority.0, &host, address)
        .post(url)
        .json(&review)
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    let patch: ByteString = serde_json::from_value(field(&answer, "/response/patch").clone()).unwrap();
    let patch = String::from_utf8(patch.0).unwrap();
    assert!(patch.contains(IMAGE), "{patch}");
}

/// As a gate asks: it knows what its Secret says, which is what the agent is told.
async fn gates_are_answered(rendered: &Rendered, pod: &Pod<'_>, asked: &str) {
    let (host, port) = asked.split_once(':').unwrap();
    let (service, namespace) = host.split_once('.').unwrap();
    assert_eq!(namespace, "leeward-system.svc");
    let port: u16 = port.parse().unwrap();
    let address = pod.ports[rendered.behind(service, &json!(port))];
    let authority = fs::read(pod.here("/etc/leeward/identity/ca.crt")).unwrap();
    let url = format!("https://{host}:{}/", address.port());
    let answer = client(&authority, host, address).get(url).send().await.unwrap();
    assert_eq!(answer.status(), 404);
}

/// Whoever reaches the registry may read, and nothing else: nobody is asked who he is.
async fn nobody_pushes(pod: &Pod<'_>) {
    let url = format!("http://{}/v2/", pod.ports["registry"]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    let pushed = client.post(format!("{url}a/blobs/uploads/")).send().await.unwrap();
    assert_eq!(pushed.status(), 405);
    let named = client
        .put(format!("{url}a/manifests/1"))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(named.status(), 405);
    let removed = client.delete(format!("{url}a/manifests/1")).send().await.unwrap();
    assert_eq!(removed.status(), 405);
}
