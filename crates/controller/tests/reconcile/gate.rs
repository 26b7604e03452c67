//! Writers that run without a gate.

use std::pin::pin;
use std::sync::Arc;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::DeleteParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use leeward_api::{ProtectedApp, condition};
use leeward_testing::Cluster;
use serde_json::{Value, json};

use crate::resource::{condition_of, protect};
use crate::stage::{Stage, gone, until};

pub(crate) async fn a_writer_that_came_up_without_its_gate_is_named(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "west").await;
    let roles = json!([{ "name": "data", "claims": ["data"], "interval": "1s" }]);
    protect(&stage.west, &stage.namespace, roles).await;
    let apps = stage.west.api::<ProtectedApp>();
    let says = |reason: &'static str, named: &'static str| {
        move |app: &ProtectedApp| {
            let fenced = condition_of(app, condition::FENCED);
            fenced.is_some_and(|c| c.status == "False" && c.reason == reason && c.message.contains(named))
        }
    };
    until(
        &apps,
        "web",
        "no gate asks",
        says("BestEffort", "no gate is granted role data"),
    )
    .await;

    let pod = |name: &str, annotations: Value, volumes: Value| {
        let labels = json!({ "app": "web" });
        json!({ "metadata": { "name": name, "labels": labels, "annotations": annotations }, "spec": {
            "nodeName": "nowhere", "terminationGracePeriodSeconds": 0, "volumes": volumes,
            "containers": [{ "name": "web", "image": "leeward/web:1" }],
        } })
    };
    let annotations = json!({ "leeward.dev/gate-app": "web" });
    let secret = json!([{ "name": "gate", "secret": { "secretName": "leeward-web-gate" } }]);
    stage
        .west
        .apply::<Pod>(pod("behind", annotations.clone(), secret))
        .await;
    stage.west.apply::<Pod>(pod("bare", annotations, json!([]))).await;
    let app = until(
        &apps,
        "web",
        "named",
        says("WithoutGate", "pod bare runs without the gate"),
    )
    .await;
    let condition = condition_of(&app, condition::FENCED).unwrap();
    assert!(!condition.message.contains("behind,"), "{}", condition.message);
    let mut events = pin!(watcher(stage.west.api::<Event>(), watcher::Config::default()).applied_objects());
    let found = loop {
        let event = events.try_next().await.unwrap().unwrap();
        if event.reason.as_deref() == Some("WriterWithoutGate") {
            break event;
        }
    };
    assert_eq!(found.type_.as_deref(), Some("Warning"));
    assert!(found.note.unwrap().contains("pod bare"));

    let pods = stage.west.api::<Pod>();
    pods.delete("bare", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    gone(&pods, "bare").await;
    until(&apps, "web", "as before", says("BestEffort", "no gate is granted")).await;
    stage.close().await;
}
