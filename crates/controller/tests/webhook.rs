//! The webhook: as it answers whoever asks, and as a real API server asks it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot set its stage may panic"
)]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{Namespace, Pod, Service},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use leeward_api::install::{WEBHOOK, WEBHOOK_PATH, webhook_host};
use leeward_controller::{
    inject::webhook::{MAX_BYTES, configuration},
    peer::{self, Credentials},
    webhook,
};
use leeward_images::{inventory::Inventory, pack, reference::Reference, store::Store};
use leeward_testing::{Authority, Cluster};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const NAMESPACE: &str = "leeward-system";

/// The webhook in a region that has one image.
fn router(directory: &Path) -> Router {
    let store = Store::open(directory).unwrap();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let config = pack::Config {
        entrypoint: words(&["/db"]),
        cmd: words(&["serve"]),
        ..Default::default()
    };
    let image = pack::image(vec![vec![pack::Entry::directory("/tmp", 0o1777)]], &config).unwrap();
    let reference = Reference::parse("leeward/db:1").unwrap();
    image.store(&store, &reference, std::time::SystemTime::now()).unwrap();
    webhook::router("leeward/leeward:1".into(), Inventory::new(store))
}

async fn ask(router: &Router, method: &str, body: Vec<u8>) -> (StatusCode, String) {
    let request = Request::builder()
        .method(method)
        .uri(WEBHOOK_PATH)
        .body(Body::from(body));
    let answer = router.clone().oneshot(request.unwrap()).await.unwrap();
    let (status, body) = (answer.status(), answer.into_body());
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn whatever_is_sent_is_answered_and_nothing_but_a_question_with_a_patch() {
    let directory = tempfile::tempdir().unwrap();
    let router = router(directory.path());
    let huge = format!("\"{}\"", "x".repeat(MAX_BYTES));
    for (method, body, status) in [
        ("POST", huge.into_bytes(), StatusCode::PAYLOAD_TOO_LARGE),
        ("POST", b"not json".to_vec(), StatusCode::BAD_REQUEST),
        ("POST", vec![0xff; 64], StatusCode::BAD_REQUEST),
        ("POST", b"{}".to_vec(), StatusCode::BAD_REQUEST),
        ("POST", vec![], StatusCode::BAD_REQUEST),
        ("GET", vec![], StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = ask(&router, method, body).await;
        assert_eq!(answer.0, status, "{answer:?}");
    }
    let mut pod = pod("a", "", "leeward/db:1");
    pod["spec"]["containers"][0].as_object_mut().unwrap().remove("command");
    let request = json!({ "uid": "u", "operation": "CREATE", "object": pod,
        "resource": { "group": "", "version": "v1", "resource": "pods" } });
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
    let (status, answer) = ask(&router, "POST", review.to_string().into_bytes()).await;
    assert_eq!(status, StatusCode::OK);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    // What is not in the region is not known to it.
    let other = review.to_string().replace("leeward/db:1", "leeward/db:2");
    let (_, answer) = ask(&router, "POST", other.into_bytes()).await;
    assert!(
        answer.contains("set command") && answer.contains("\"allowed\":false"),
        "{answer}"
    );
}

/// A pod that asks for a gate, under the restricted pod security standard.
fn pod(name: &str, namespace: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "labels": { "app": "shop" },
            "annotations": {
                "leeward.dev/gate-app": "shop", "leeward.dev/gate-roles": "data", "leeward.dev/gate-ports": "http:8080=8081",
            },
        },
        "spec": {
            "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "shop", "image": image, "command": ["/shop"],
                "resources": { "requests": { "cpu": "50m" }, "limits": { "memory": "64Mi" } },
                "livenessProbe": { "httpGet": { "path": "/", "port": 8080 } },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    })
}

struct Stage {
    client: Client,
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    stop: CancellationToken,
    directory: tempfile::TempDir,
}

impl Stage {
    /// A webhook that a real API server knows by its Service, and two namespaces: `in` has the label, `out` has not.
    async fn open(cluster: &Cluster) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("leeward").unwrap();
        let identity = authority.issue("west", &[&webhook_host(NAMESPACE)], &[]).unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let ca = write("ca.crt", &authority.certificate());
        let (cert, key) = (write("tls.crt", &identity.certificate), write("tls.key", &identity.key));
        let credentials = Credentials::read(&ca, &cert, &key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, asked) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        let count = Arc::clone(&asked);
        let counted = router(&directory.path().join("images")).layer(axum::middleware::from_fn(
            move |request, next: axum::middleware::Next| {
                count.fetch_add(1, Ordering::Relaxed);
                next.run(request)
            },
        ));
        let stopped = stop.clone();
        tokio::spawn(async move {
            peer::serve_all(listener, &credentials, counted, None, stopped).await;
        });

        let client = cluster.client().await.unwrap();
        let namespaces = [
            (NAMESPACE, json!({})),
            ("out", json!({})),
            (
                "in",
                json!({ "leeward.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": "restricted" }),
            ),
        ];
        for (name, labels) in namespaces {
            let namespace = json!({ "metadata": { "name": name, "labels": labels } });
            let api: Api<Namespace> = Api::all(client.clone());
            api.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap())
                .await
                .unwrap();
        }
        // Where the Service leads to is looked up by name: no node is here that would lead to an address.
        let service =
            json!({ "metadata": { "name": WEBHOOK }, "spec": { "type": "ExternalName", "externalName": "localhost" } });
        let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
        services
            .create(&PostParams::default(), &serde_json::from_value(service).unwrap())
            .await
            .unwrap();
        let mut wanted = configuration(NAMESPACE, &authority.certificate());
        let hook = &mut wanted.webhooks.as_mut().unwrap()[0];
        hook.client_config.service.as_mut().unwrap().port = Some(address.port().into());
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
        configurations
            .patch(WEBHOOK, &PatchParams::apply("a-person"), &Patch::Apply(&wanted))
            .await
            .unwrap();
        let stage = Self {
            client,
            address,
            asked,
            stop,
            directory,
        };
        stage.until_asked().await;
        stage
    }

    /// The API server hears of a webhook a moment later.
    async fn until_asked(&self) {
        let begun = Instant::now();
        let dry = PostParams {
            dry_run: true,
            ..Default::default()
        };
        while self.asked.load(Ordering::Relaxed) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the webhook was never asked");
            self.make(pod("first", "in", "shop:1"), &dry).await.unwrap();
        }
    }

    async fn make(&self, pod: Value, params: &PostParams) -> kube::Result<Pod> {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        pods.create(params, &serde_json::from_value(pod.clone()).unwrap()).await
    }

    async fn made(&self, pod: Value) -> Pod {
        self.make(pod, &PostParams::default()).await.unwrap()
    }
}

/// Whether the first container of a pod is started by a gate.
fn is_behind(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref().unwrap();
    let command = spec.containers[0].command.clone().unwrap_or_default();
    let init = spec
        .init_containers
        .iter()
        .flatten()
        .any(|init| init.name == "leeward-gate");
    assert_eq!(
        init,
        command == ["/var/run/leeward/bin/leeward-gate"],
        "half of a gate: {spec:?}"
    );
    init
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_brings_the_gate_where_it_is_asked_for_and_waits_for_nobody() {
    let Some(cluster) = Cluster::real().await.unwrap() else {
        return;
    };
    let stage = Stage::open(&cluster).await;

    // What comes out is a pod to the API server, and restricted as it was.
    let behind = stage.made(pod("behind", "in", "shop:1")).await;
    assert!(is_behind(&behind));
    let arguments = behind.spec.unwrap().containers[0].args.clone().unwrap();
    assert_eq!(
        arguments[..4],
        ["--role", "$(POD_NAMESPACE)/shop/data", "--port", "http:8080=8081"]
    );
    assert_eq!(arguments[4..], ["--port", "live:17445=127.0.0.1:8081", "--", "/shop"]);
    let mut without_command = pod("db", "in", "leeward/db:1");
    without_command["spec"]["containers"][0]
        .as_object_mut()
        .unwrap()
        .remove("command");
    let db = stage.made(without_command).await;
    assert!(
        db.spec.unwrap().containers[0]
            .args
            .as_ref()
            .unwrap()
            .ends_with(&["/db".into(), "serve".into()])
    );

    // The others are not even asked about.
    let asked = stage.asked.load(Ordering::Relaxed);
    let mut plain = pod("plain", "in", "shop:1");
    plain["metadata"]["annotations"] = json!({ "a": "b" });
    let mut bare = pod("no-annotations", "in", "shop:1");
    bare["metadata"].as_object_mut().unwrap().remove("annotations");
    let mut disabled = pod("disabled", "in", "shop:1");
    disabled["metadata"]["labels"]["leeward.dev/inject"] = json!("disabled");
    for pod in [plain, bare, disabled, pod("elsewhere", "out", "shop:1")] {
        assert!(!is_behind(&stage.made(pod).await));
    }
    assert_eq!(stage.asked.load(Ordering::Relaxed), asked);

    // One that cannot be held is refused in words that its maker reads.
    let mut wrong = pod("wrong", "in", "shop:1");
    wrong["metadata"]["annotations"]["leeward.dev/gate-ports"] = json!("8080");
    let error = stage.make(wrong, &PostParams::default()).await.unwrap_err().to_string();
    assert!(
        error.contains("inject.leeward.dev") && error.contains("http:8080=8081"),
        "{error}"
    );

    // Away, it holds up nobody; nor one that takes connections and never answers.
    stage.stop.cancel();
    let listener = loop {
        match TcpListener::bind(stage.address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let begun = Instant::now();
    assert!(!is_behind(&stage.made(pod("while-silent", "in", "shop:1")).await));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    drop(listener);
    assert!(!is_behind(&stage.made(pod("while-away", "in", "shop:1")).await));
    drop(stage.directory);
}
