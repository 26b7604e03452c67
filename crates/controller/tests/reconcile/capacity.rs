//! Room on the nodes: what a failover needs before it begins.

use std::sync::Arc;

use kube::api::ListParams;
use leeward_api::operation::OperationType;
use leeward_api::{Operation, ProtectedApp, condition};
use leeward_testing::Cluster;
use serde_json::json;

use crate::operations::{ask, phase, waits};
use crate::resource::{condition_of, protect, protected};
use crate::stage::{Region, Stage, until};

const LACK: &str =
    "capacity: 2 pods of Deployment web need a place each; the nodes have room for 0: short of places for pods";

/// What an operation was refused for.
async fn refused(region: &Region, type_: OperationType) -> String {
    let name = ask(region, type_, "east").await;
    let operation = until(&region.api::<Operation>(), &name, "refused", |operation| {
        phase(operation) == "Refused"
    })
    .await;
    operation.status.unwrap().message.unwrap()
}

pub(crate) async fn nothing_fails_over_to_a_cluster_without_room_until_there_is_some(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "east").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    until(&stage.west.api::<ProtectedApp>(), "web", "protected", protected).await;
    stage
        .east
        .offer(json!({ "cpu": "8", "memory": "16Gi", "pods": "0" }))
        .await;
    let apps = stage.east.api::<ProtectedApp>();
    let lack = format!("east: {LACK}");
    let app = until(&apps, "web", "without room", |app| waits(app, &lack)).await;
    let condition = condition_of(&app, condition::PROTECTED).unwrap();
    assert_eq!((condition.status.as_str(), &condition.message), ("False", &lack));
    let placements = &app.status.as_ref().unwrap().placements;
    let east = placements.iter().find(|placement| placement.cluster == "east").unwrap();
    assert!(
        !east.ready && east.missing == [LACK] && east.unknown.is_empty(),
        "{east:?}"
    );
    let message = refused(&stage.east, OperationType::Switchover).await;
    assert!(message.contains(LACK), "{message}");

    stage.west.stop().await;
    until(&apps, "web", "missing west", |app| {
        waits(app, "west is active and not heard of (2 observers")
    })
    .await;
    // What a person asks for is refused with it as soon as the lease is over: by then Leeward would have moved it by itself.
    loop {
        let message = refused(&stage.east, OperationType::Failover).await;
        if message.contains(LACK) {
            break;
        }
        assert!(message.contains("holds its lease"), "{message}");
    }
    let status = apps.get("web").await.unwrap().status.unwrap();
    assert_eq!(status.active.as_deref(), Some("west"));
    let own = |operation: &Operation| operation.metadata.name.iter().any(|name| name.starts_with("failover-"));
    let operations = stage
        .east
        .api::<Operation>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert!(!operations.iter().any(own), "{operations:?}");

    stage
        .east
        .offer(json!({ "cpu": "8", "memory": "16Gi", "pods": "1" }))
        .await;
    // Fewer pods than it should have are better than none.
    until(&apps, "web", "active in east", |app| {
        app.status
            .as_ref()
            .is_some_and(|status| status.active.as_deref() == Some("east"))
    })
    .await;
    stage.close().await;
}
