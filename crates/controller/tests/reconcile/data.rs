//! The data of a writer role: through claims, bound volumes and the nodes' kubelet endpoints.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch};
use leeward_api::operation::OperationType;
use leeward_api::{Operation, ProtectedApp, condition};
use leeward_testing::Cluster;
use serde_json::{Value, json};

use crate::application::{active, replicas};
use crate::metrics::roles_are_seen;
use crate::operations::{ask, phase, waits};
use crate::resource::{condition_of, protect, protected};
use crate::stage::{Region, Stage, person, until};

/// What the nodes' endpoint was asked: path and pods.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

async fn freeze(State(asked): State<Asked>, headers: HeaderMap, Json(body): Json<Value>) -> Json<Value> {
    assert_eq!(headers["authorization"], "Bearer a-token");
    asked.lock().unwrap().push(("freeze".into(), body["pods"].clone()));
    Json(json!({ "token": "t" }))
}

async fn thaw(State(asked): State<Asked>, Json(body): Json<Value>) -> Json<Value> {
    asked.lock().unwrap().push(("thaw".into(), body));
    Json(json!({ "held": true }))
}

/// A node whose kubelet endpoint is this process.
async fn node(region: &Region, name: &str) -> Asked {
    let asked = Asked::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/freeze", post(freeze))
        .route("/thaw", post(thaw))
        .with_state(Arc::clone(&asked));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let nodes = region.all::<Node>();
    let own = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
    nodes.patch(name, &person(), &Patch::Apply(&own)).await.unwrap();
    let status = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "status": {
        "addresses": [{ "type": "InternalIP", "address": address.ip() }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": address.port() } },
    } });
    nodes
        .patch_status(name, &person(), &Patch::Apply(&status))
        .await
        .unwrap();
    asked
}

/// Binds the claim `data` to a directory, as the controller of volumes does it.
async fn bind(region: &Region, name: &str, directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let class = json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "manual" },
        "provisioner": "kubernetes.io/no-provisioner" });
    region
        .all::<StorageClass>()
        .patch("manual", &person(), &Patch::Apply(&class))
        .await
        .unwrap();
    let volume = json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name }, "spec": {
        "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": { "path": directory },
    } });
    region
        .all::<PersistentVolume>()
        .patch(name, &person(), &Patch::Apply(&volume))
        .await
        .unwrap();
    let claims = region.api::<PersistentVolumeClaim>();
    let bound = Patch::Merge(json!({ "spec": { "volumeName": name } }));
    claims.patch("data", &Default::default(), &bound).await.unwrap();
    let status = Patch::Merge(json!({ "status": { "phase": "Bound", "accessModes": ["ReadWriteOnce"] } }));
    claims.patch_status("data", &Default::default(), &status).await.unwrap();
}

pub(crate) async fn data_follows_bound_claims_with_pods_frozen(cluster: Arc<Cluster>) {
    let mut stage = Stage::open(&cluster, "west").await;
    let token = stage.directory.path().join("kubelet.token");
    std::fs::write(&token, "a-token\n").unwrap();
    stage.west.stop().await;
    stage.west.set_kubelet_token(&token);
    stage.west.start();

    let roles = json!([{ "name": "data", "claims": ["data"], "interval": "1s" }]);
    protect(&stage.west, &stage.namespace, roles).await;
    let labels = json!({ "app": "web" });
    stage
        .west
        .apply::<PersistentVolumeClaim>(json!({ "metadata": { "name": "data", "labels": labels }, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "manual", "resources": { "requests": { "storage": "1Gi" } },
        } }))
        .await;
    // Where there is a file system in memory, the standby's volume is a mount of its own.
    let memory = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let directory = |region: &str| match region {
        "east" => memory.path().join("volume"),
        _ => stage.directory.path().join("volume"),
    };
    let asked = node(&stage.west, &stage.namespace).await;
    let pod = stage
        .west
        .apply::<Pod>(json!({ "metadata": { "name": "web-0", "labels": labels }, "spec": {
            "nodeName": stage.namespace, "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "web", "image": "leeward/web:1" }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
        } }))
        .await;
    bind(&stage.west, &format!("{}-west", stage.namespace), &directory("west")).await;
    std::fs::write(directory("west").join("ledger"), "one").unwrap();
    until(&stage.east.api::<PersistentVolumeClaim>(), "data", "carried", |claim| {
        claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_none())
    })
    .await;
    bind(&stage.east, &format!("{}-east", stage.namespace), &directory("east")).await;

    // Points arrive, each taken while the node held the pod that uses the claim.
    let app = until(&stage.west.api::<ProtectedApp>(), "web", "protected", protected).await;
    let east = app
        .status
        .unwrap()
        .placements
        .into_iter()
        .find(|p| p.cluster == "east")
        .unwrap();
    assert!(east.last_point.is_some(), "{east:?}");
    let uid = pod.metadata.uid.unwrap();
    let first = asked.lock().unwrap()[..2].to_vec();
    assert_eq!(
        first,
        [
            ("freeze".into(), json!([uid])),
            ("thaw".into(), json!({ "token": "t" }))
        ]
    );
    let own = stage.west.api::<ConfigMap>().get("leeward-web").await.unwrap();
    let epoch: u64 = own.data.unwrap()["epoch"].parse().unwrap();

    roles_are_seen(&stage, epoch).await;

    // The role moves: the old writer stops, and the claim of the new one has what it wrote.
    let operation =
        json!({ "metadata": { "name": "move" }, "spec": { "type": "Switchover", "app": "web", "to": "east" } });
    stage.east.apply::<Operation>(operation).await;
    until(&stage.east.api::<Operation>(), "move", "under way", |operation| {
        phase(operation) == "Running"
    })
    .await;
    until(&stage.west.api::<Deployment>(), "web", "scaled down", |web| {
        replicas(web) == Some(0)
    })
    .await;
    stage
        .west
        .api::<Pod>()
        .delete("web-0", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    until(&stage.east.api::<ProtectedApp>(), "web", "active in east", |app| {
        active(app, "east")
    })
    .await;
    assert_eq!(
        std::fs::read_to_string(directory("east").join("ledger")).unwrap(),
        "one"
    );
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    let is_mount = device(memory.path()) != device(stage.directory.path());
    assert_eq!(directory("east").join(".leeward").is_dir(), is_mount);
    let own = until(&stage.east.api::<ConfigMap>(), "leeward-web", "told", |_| true).await;
    assert!(own.data.unwrap()["epoch"].parse::<u64>().unwrap() > epoch);
    stage.close().await;
}

pub(crate) async fn a_writer_whose_volumes_cannot_be_read_is_not_protected_and_says_so(cluster: Arc<Cluster>) {
    let mut stage = Stage::open(&cluster, "west").await;
    for region in [&mut stage.west, &mut stage.east] {
        region.stop().await;
        region.be_in_a_pod();
        region.start();
    }
    let roles = json!([{ "name": "data", "claims": ["data"], "interval": "1s" }]);
    protect(&stage.west, &stage.namespace, roles).await;
    let apps = stage.west.api::<ProtectedApp>();
    // The one that writes says so, whatever the others say.
    let says = |app: &ProtectedApp| {
        waits(
            app,
            "mirror of role data: claim data cannot be read: the agent runs in a pod",
        )
    };
    let app = until(&apps, "web", "says so", says).await;
    let protected = condition_of(&app, condition::PROTECTED).unwrap();
    assert_eq!(
        (
            protected.status.as_str(),
            app.status.as_ref().unwrap().active.as_deref()
        ),
        ("False", Some("west"))
    );
    // Each placement lacks it, and nobody is in sync.
    let lacks = |app: &ProtectedApp| {
        let placements = &app.status.as_ref().unwrap().placements;
        placements.iter().all(|placement| {
            placement.missing.iter().any(|lack| lack.contains("cannot be read")) && placement.in_sync != Some(true)
        })
    };
    until(&apps, "web", "east lacks it, too", lacks).await;
    // Nothing is half done: a person cannot move it either.
    let id = ask(&stage.west, OperationType::Switchover, "east").await;
    let refused = until(&stage.west.api::<Operation>(), &id, "refused", |operation| {
        phase(operation) == "Refused"
    })
    .await;
    let why = refused.status.unwrap().message.unwrap();
    assert!(why.contains("cannot be read"), "{why}");
    assert!(active(&apps.get("web").await.unwrap(), "west"));
    stage.close().await;
}
