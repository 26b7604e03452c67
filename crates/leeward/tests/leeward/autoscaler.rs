//! An application whose autoscaler has scaled it up moves, and starts with as many as it ran with.

use std::time::Instant;

use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::commands::{Home, PATIENCE, push_shell};

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop, labels: {app: shop}}
spec:
  replicas: 1
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: shop
        image: leeward/shell:1
        command: [/bin/sh, -c, "trap 'exit 0' TERM; while true; do sleep 0.2; done"]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop, namespace: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 1
  maxReplicas: 5
---
apiVersion: leeward.dev/v1alpha1
kind: ProtectedApp
metadata: {name: shop, namespace: shop}
spec:
  selector: {matchLabels: {app: shop}}
  model: ActivePassive
  placements: [{cluster: west}, {cluster: east}]
  objectives: {rpo: 10s, rto: 60s}
"#;

struct Cluster {
    deployments: Api<Deployment>,
    scalers: Api<HorizontalPodAutoscaler>,
}

impl Cluster {
    async fn new(home: &Home, name: &str) -> Self {
        let client = crate::maintain::client(home, name).await;
        Self {
            deployments: Api::namespaced(client.clone(), "shop"),
            scalers: Api::namespaced(client, "shop"),
        }
    }

    /// Waits until minimum, replicas, and whether Leeward's note is there are so.
    async fn until(&self, wanted: (i32, i32, bool)) -> Value {
        let begin = Instant::now();
        loop {
            let (web, scaler) = (
                self.deployments.get_opt("shop").await,
                self.scalers.get_opt("shop").await,
            );
            let (web, scaler) = (web.unwrap().unwrap_or_default(), scaler.unwrap().unwrap_or_default());
            let replicas = web.spec.and_then(|spec| spec.replicas).unwrap_or_default();
            let min = scaler.spec.min_replicas.unwrap_or_default();
            let note = scaler
                .metadata
                .annotations
                .and_then(|mut all| all.remove("leeward.dev/autoscaler"));
            let now = (min, replicas, note.is_some());
            if now == wanted {
                return serde_json::from_str(&note.unwrap_or("null".into())).unwrap();
            }
            assert!(begin.elapsed() < PATIENCE, "{now:?} never became {wanted:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    async fn scale(&self, replicas: i32) {
        let patch = json!({ "spec": { "replicas": replicas } });
        let params = PatchParams::default();
        let scaled = self
            .deployments
            .patch_scale("shop", &params, &Patch::Merge(patch))
            .await;
        scaled.unwrap();
    }

    async fn note(&self, note: &Value) {
        let patch = json!({ "metadata": { "annotations": { "leeward.dev/autoscaler": note.to_string() } } });
        let params = PatchParams::default();
        let noted = self.scalers.patch("shop", &params, &Patch::Merge(patch)).await;
        noted.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_moves_to_its_minimum_is_raised_and_put_back_by_whichever_agent_is_there_then() {
    let home = Home::new();
    tokio::task::block_in_place(|| {
        home.expect(0, &["up", "--ttl", "5", "--nodes", "1"]);
        let registry = home.instance().addresses("west").unwrap().registry();
        std::thread::scope(|scope| scope.spawn(|| push_shell(registry)).join().unwrap());
        let manifest = home.0.path().join("shop.yaml");
        std::fs::write(&manifest, SHOP).unwrap();
        home.expect(0, &["apply", "-f", manifest.to_str().unwrap()]);
        home.until(&["explain", "shop"], |out| out.contains("It is protected"));
    });
    let (west, east) = (Cluster::new(&home, "west").await, Cluster::new(&home, "east").await);
    west.until((1, 1, false)).await;
    east.until((1, 0, false)).await;

    // As its autoscaler would; it is followed, and nobody sets it back.
    west.scale(3).await;
    let begin = Instant::now();
    loop {
        let there = east.deployments.get("shop").await.unwrap();
        let kept = there
            .metadata
            .annotations
            .and_then(|mut all| all.remove("leeward.dev/replicas"));
        if kept.as_deref() == Some("3") {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{kept:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    west.until((1, 3, false)).await;

    tokio::task::block_in_place(|| home.expect(0, &["switchover", "shop", "--to", "east"]));
    let note = east.until((3, 3, true)).await;
    assert_eq!(
        (&note["min"], &note["max"], &note["set"]),
        (&json!(1), &json!(5), &json!(3))
    );
    west.until((1, 0, false)).await;
    // It is its own autoscaler's to say from here on.
    east.scale(4).await;
    east.until((3, 4, true)).await;

    // Its time is over while the agent is away.
    let instance = home.instance().with_program(env!("CARGO_BIN_EXE_leeward"));
    instance.kill_process("east-serve").unwrap();
    let mut over = note;
    over["until"] = json!(1);
    east.note(&over).await;
    east.until((3, 4, true)).await;
    instance.start_agent("east").unwrap();
    east.until((1, 4, false)).await;
    tokio::task::block_in_place(|| drop(home));
}
