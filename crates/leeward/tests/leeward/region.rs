//! One local region for a test: its API and nodes as processes, its registry inside the test.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use leeward_images::pack::{self, Config, Entry};
use leeward_images::peers::Peers;
use leeward_images::reference::Reference;
use leeward_images::registry::{self, Mode};
use leeward_images::store::Store;
use leeward_local::instance::{Instance, Options};
use serde_json::{Value, json};

/// Nothing on this machine takes longer, however loaded it is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Region {
    pub(crate) client: kube::Client,
    pub(crate) instance: Instance,
    pub(crate) dir: tempfile::TempDir,
}

impl Region {
    /// Starts region `west` with one node and the image `shell:1`.
    pub(crate) async fn start() -> Self {
        Self::with_nodes(1).await
    }

    /// Starts region `west` with these many nodes and the image `shell:1`.
    pub(crate) async fn with_nodes(nodes_per_region: u8) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            nodes_per_region,
            dies_with_owner: true,
            program: Some(env!("CARGO_BIN_EXE_leeward").into()),
            ..Options::default()
        };
        let instance = Instance::create(&dir.path().join("instance"), &["west"], &options).unwrap();
        let store = Store::open(&dir.path().join("registry")).unwrap();
        push(&store, "shell:1", &[]);
        let listener = tokio::net::TcpListener::bind(instance.addresses("west").unwrap().registry())
            .await
            .unwrap();
        let router = registry::router(store.clone(), Mode::ReadWrite, Peers::new(Vec::new()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        instance.start_kubernetes("west").unwrap();
        instance.wait_api_ready("west", PATIENCE).await.unwrap();
        let kubeconfig = kube::config::Kubeconfig::read_from(instance.kubeconfig("west").unwrap()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .unwrap();
        let client = kube::Client::try_from(config).unwrap();
        Self { client, instance, dir }
    }

    pub(crate) fn node(&self) -> String {
        "west-node-0".to_owned()
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Makes a pod on the node that runs `script` in a shell; `changes` is merged into its spec, `container` into its container.
    pub(crate) async fn run(&self, name: &str, script: &str, container: Value, changes: Value) -> Pod {
        let mut inner = json!({"name": "app", "image": "shell:1", "command": ["/bin/sh", "-c", script]});
        merge(&mut inner, container);
        let mut spec = json!({"nodeName": self.node(), "terminationGracePeriodSeconds": 2, "containers": [inner]});
        merge(&mut spec, changes);
        let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        self.pods()
            .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap()
    }

    /// Waits until the pod is as `wanted` says.
    pub(crate) async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let pod = self.pods().get_opt(name).await.unwrap();
            let pod = serde_json::to_value(pod).unwrap();
            if wanted(&pod) {
                return pod;
            }
            assert!(begin.elapsed() < PATIENCE, "{name} never became {what}: {pod:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn until_ready(&self, name: &str) -> Value {
        self.until(name, "ready", ready).await
    }

    /// Waits until the log has `text`.
    pub(crate) async fn until_logged(&self, name: &str, text: &str) -> String {
        let begin = Instant::now();
        loop {
            let log = self.pods().logs(name, &Default::default()).await.unwrap_or_default();
            if log.contains(text) {
                return log;
            }
            assert!(begin.elapsed() < PATIENCE, "{name} never logged {text}: {log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Deletes the pod and waits until it is gone.
    pub(crate) async fn delete(&self, name: &str) {
        let _ = self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        self.until(name, "gone", Value::is_null).await;
    }
}

pub(crate) fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

pub(crate) fn status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// Packs a shell with a few programs as `reference`.
pub(crate) fn push(store: &Store, reference: &str, more: &[Entry]) {
    let mut entries = Vec::new();
    for program in [
        "/bin/sh",
        "/bin/sleep",
        "/bin/cat",
        "/bin/ls",
        "/usr/bin/id",
        "/bin/touch",
        "/bin/hostname",
    ] {
        entries.extend(pack::executable(Path::new(program), program).unwrap());
    }
    entries.push(Entry::directory("/tmp", 0o1777));
    entries.extend(more.iter().cloned());
    let config = Config {
        cmd: vec!["/bin/sh".into()],
        ..Config::default()
    };
    let image = pack::image(vec![entries], &config).unwrap();
    let reference: Reference = Reference::parse(reference).unwrap();
    image.store(store, &reference, std::time::SystemTime::now()).unwrap();
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}
