//! `Operation`s: asked for by a person, or made by Leeward as a record.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, ObjectMeta, Patch, PostParams};
use leeward_api::operation::OperationType;
use leeward_api::{Operation, OperationSpec, ProtectedApp, condition};
use leeward_testing::Cluster;
use serde_json::json;

use crate::application::{active, replicas};
use crate::resource::{person_of, protect, protected};
use crate::stage::{Region, Stage, until, until_file};

pub(crate) async fn ask(region: &Region, type_: OperationType, to: &str) -> String {
    let operation = Operation {
        metadata: ObjectMeta {
            generate_name: Some("web-".into()),
            ..ObjectMeta::default()
        },
        spec: OperationSpec {
            type_,
            app: "web".into(),
            to: to.into(),
            accept_data_loss: None,
            cancel: false,
        },
        status: None,
    };
    let made = region
        .api::<Operation>()
        .create(&PostParams::default(), &operation)
        .await
        .unwrap();
    made.metadata.name.unwrap()
}

pub(crate) fn phase(operation: &Operation) -> &str {
    operation
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub(crate) fn waits(app: &ProtectedApp, part: &str) -> bool {
    let waits = app.status.iter().flat_map(|status| &status.waiting_for);
    waits.into_iter().any(|wait| wait.contains(part))
}

fn is(operation: &Operation, type_: &str, status: &str) -> bool {
    let conditions = operation.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| {
        condition.type_ == type_ && condition.status == status && condition.observed_generation == Some(1)
    })
}

pub(crate) async fn an_operation_of_nothing_is_refused(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "east").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    until(&stage.east.api::<ProtectedApp>(), "web", "copied", |copy| {
        copy.status.is_some()
    })
    .await;
    let operations = stage.east.api::<Operation>();
    // The API knows what an Operation is.
    let nothing = json!({ "apiVersion": "leeward.dev/v1alpha1", "kind": "Operation", "metadata": { "name": "x" },
        "spec": { "type": "Failover", "app": "", "to": "east" } });
    let refused = operations
        .create(&PostParams::default(), &serde_json::from_value(nothing).unwrap())
        .await;
    assert!(
        matches!(&refused, Err(kube::Error::Api(status)) if status.code == 422 && status.message.contains("spec.app")),
        "{refused:?}"
    );
    // The agent knows what there is, and the leader what can be done.
    let other =
        json!({ "metadata": { "name": "other" }, "spec": { "type": "Failover", "app": "other", "to": "east" } });
    stage.east.apply::<Operation>(other).await;
    let same = ask(&stage.east, OperationType::Switchover, "west").await;
    for (name, why) in [("other", "there is no ProtectedApp other"), (same.as_str(), "west")] {
        let operation = until(&operations, name, "refused", |operation| phase(operation) == "Refused").await;
        assert!(
            is(&operation, condition::COMPLETE, "True") && is(&operation, condition::READY, "False"),
            "{operation:?}"
        );
        let message = operation.status.unwrap().message.unwrap();
        assert!(message.contains(why), "{message}");
    }
    stage.close().await;
}

pub(crate) async fn a_switchover_is_followed_to_its_end(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "east").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    until(&stage.west.api::<ProtectedApp>(), "web", "protected", protected).await;
    let deployments = stage.east.api::<Deployment>();
    until(&deployments, "web", "carried", |web| replicas(web) == Some(0)).await;
    let name = ask(&stage.east, OperationType::Switchover, "east").await;
    let operations = stage.east.api::<Operation>();
    let operation = until(&operations, &name, "ended", |operation| phase(operation) == "Succeeded").await;
    assert!(
        is(&operation, condition::COMPLETE, "True") && is(&operation, condition::READY, "True"),
        "{operation:?}"
    );
    let status = operation.status.unwrap();
    assert_eq!(status.from.as_deref(), Some("west"));
    assert!(status.started.is_some() && status.ended.is_some() && status.rto.is_some());
    assert!(
        status.steps.iter().all(|step| step.outcome.as_deref() == Some("Done")),
        "{:?}",
        status.steps
    );
    for region in [&stage.west, &stage.east] {
        until(&region.api::<ProtectedApp>(), "web", "active in east", |app| {
            active(app, "east")
        })
        .await;
    }
    until(&deployments, "web", "scaled up", |web| replicas(web) == Some(2)).await;
    until(&stage.west.api::<Deployment>(), "web", "scaled down", |web| {
        replicas(web) == Some(0)
    })
    .await;
    // What is on disk follows the new direction.
    until_file(&stage.carried("east"), "of no use any more", |text| text.is_none()).await;
    until_file(&stage.carried("west"), "carried back", |text| text.is_some()).await;
    // What was asked for cannot be changed afterwards.
    let change = Patch::Merge(json!({ "spec": { "to": "west" } }));
    let refused = operations
        .patch(&name, &person_of("kubectl-edit"), &change)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 422 && status.message.contains("an Operation cannot be changed")),
        "{refused}"
    );
    stage.close().await;
}

pub(crate) async fn a_switchover_that_waits_is_called_off_and_what_contradicts_it_is_refused(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "west").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    until(&stage.west.api::<ProtectedApp>(), "web", "protected", protected).await;
    // Its target never serves.
    stage.east.play_no_more();
    let operations = stage.west.api::<Operation>();
    let name = ask(&stage.west, OperationType::Switchover, "east").await;
    let can_return = |operation: &Operation| {
        let status = operation.status.as_ref();
        status.is_some_and(|status| status.phase.as_deref() == Some("Running") && status.cancellable == Some(true))
    };
    until(&operations, &name, "waiting", can_return).await;
    until(&stage.west.api::<ProtectedApp>(), "web", "shown", |app| {
        let running = app.status.as_ref().and_then(|status| status.operation.as_ref());
        running.is_some_and(|running| running.name == name && running.cancellable)
    })
    .await;
    // Something else meanwhile.
    let other = ask(&stage.west, OperationType::Switchover, "west").await;
    let refused = until(&operations, &other, "refused", |operation| {
        phase(operation) == "Refused"
    })
    .await;
    let message = refused.status.unwrap().message.unwrap();
    assert!(message.contains(&name) && message.contains("--cancel"), "{message}");
    let change = |cancel: bool| Patch::Merge(json!({ "spec": { "cancel": cancel } }));
    let person = person_of("kubectl-edit");
    operations.patch(&name, &person, &change(true)).await.unwrap();
    let ended = until(&operations, &name, "ended", |operation| phase(operation) == "Cancelled").await;
    let status = ended.status.unwrap();
    assert_eq!((status.epoch, status.cancellable), (None, None), "{status:?}");
    let message = status.message.unwrap();
    assert_eq!(message, "west is active again; nothing was moved");
    until(&stage.west.api::<ProtectedApp>(), "web", "active in west", |app| {
        active(app, "west") && app.status.as_ref().is_some_and(|status| status.operation.is_none())
    })
    .await;
    assert_eq!(
        replicas(&stage.west.api::<Deployment>().get("web").await.unwrap()),
        Some(2)
    );
    // It stays so, and one that is called off before it is seen never begins.
    let back = operations.patch(&name, &person, &change(false)).await.unwrap_err();
    assert!(is_refused(&back, "that was called off stays so"), "{back}");
    let born = |name: &str, type_: &str| json!({ "metadata": { "name": name }, "spec": { "type": type_, "app": "web", "to": "east", "cancel": true } });
    stage.west.apply::<Operation>(born("never", "Switchover")).await;
    until(&operations, "never", "ended", |operation| {
        phase(operation) == "Cancelled"
    })
    .await;
    let mut failover = born("failover", "Failover");
    failover["apiVersion"] = "leeward.dev/v1alpha1".into();
    failover["kind"] = "Operation".into();
    let failover = serde_json::from_value(failover).unwrap();
    let refused = operations.create(&PostParams::default(), &failover).await.unwrap_err();
    assert!(is_refused(&refused, "a failover cannot be called off"), "{refused}");
    stage.close().await;
}

pub(crate) async fn a_switchover_whose_target_is_lost_fails_and_its_source_goes_on(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "west").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    until(&stage.west.api::<ProtectedApp>(), "web", "protected", protected).await;
    stage.east.play_no_more();
    let operations = stage.west.api::<Operation>();
    let name = ask(&stage.west, OperationType::Switchover, "east").await;
    until(&operations, &name, "under way", |operation| {
        phase(operation) == "Running"
    })
    .await;
    stage.east.stop().await;
    let ended = until(&operations, &name, "ended", |operation| phase(operation) == "Failed").await;
    // What is asked for now is refused with what its target lacks.
    let again = ask(&stage.west, OperationType::Switchover, "east").await;
    let again = until(&operations, &again, "refused", |operation| {
        phase(operation) == "Refused"
    })
    .await;
    let why = again.status.unwrap().message.unwrap();
    assert!(why.contains("east is not ready: it has no lease in force"), "{why}");
    let status = ended.status.unwrap();
    assert_eq!((status.epoch, status.cancellable), (None, None), "{status:?}");
    let message = status.message.unwrap();
    assert_eq!(
        message,
        "east was lost before it took over; west is active again, nothing was lost"
    );
    until(&stage.west.api::<ProtectedApp>(), "web", "active in west", |app| {
        active(app, "west") && app.status.as_ref().is_some_and(|status| status.operation.is_none())
    })
    .await;
    assert_eq!(
        replicas(&stage.west.api::<Deployment>().get("web").await.unwrap()),
        Some(2)
    );
    stage.close().await;
}

fn is_refused(error: &kube::Error, message: &str) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422 && status.message.contains(message))
}

pub(crate) async fn an_automatic_failover_leaves_a_record(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "east").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    until(&stage.west.api::<ProtectedApp>(), "web", "protected", protected).await;
    until(&stage.east.api::<Deployment>(), "web", "carried", |web| {
        replicas(web) == Some(0)
    })
    .await;
    stage.west.stop().await;
    until(&stage.east.api::<ProtectedApp>(), "web", "active in east", |app| {
        active(app, "east")
    })
    .await;
    let operations = stage
        .east
        .api::<Operation>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let [record] = &operations.items[..] else {
        panic!("{operations:?}")
    };
    let name = record.metadata.name.clone().unwrap();
    assert!(name.starts_with("failover-"), "{name}");
    until(&stage.east.api::<Operation>(), &name, "ended", |operation| {
        phase(operation) == "Succeeded"
    })
    .await;
    // Who comes back stands by.
    stage.west.start();
    until(&stage.west.api::<Deployment>(), "web", "scaled down", |web| {
        replicas(web) == Some(0)
    })
    .await;
    stage.close().await;
}

pub(crate) async fn a_paused_application_waits_for_a_person(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "east").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    let apps = stage.west.api::<ProtectedApp>();
    until(&apps, "web", "protected", protected).await;
    until(&stage.east.api::<Deployment>(), "web", "carried", |web| {
        replicas(web) == Some(0)
    })
    .await;
    let pause = Patch::Merge(json!({ "spec": { "paused": true } }));
    apps.patch("web", &person_of("kubectl-edit"), &pause).await.unwrap();
    let paused = until(&stage.east.api::<ProtectedApp>(), "web", "paused", |app| {
        waits(app, "it is paused")
    })
    .await;
    let conditions = paused.status.unwrap().conditions;
    let protected = conditions
        .iter()
        .find(|condition| condition.type_ == condition::PROTECTED);
    let protected = protected.map(|condition| (condition.status.as_str(), condition.reason.as_str()));
    assert_eq!(protected, Some(("False", "Paused")));
    stage.west.stop().await;
    until(&stage.east.api::<ProtectedApp>(), "web", "missing west", |app| {
        waits(app, "west is active and not heard of (2 observers")
    })
    .await;
    // Refused until the lease is over, then it is done; and nothing else was.
    let operations = stage.east.api::<Operation>();
    loop {
        let name = ask(&stage.east, OperationType::Failover, "east").await;
        let ended = |operation: &Operation| ["Succeeded", "Refused"].contains(&phase(operation));
        let operation = until(&operations, &name, "ended", ended).await;
        if phase(&operation) == "Succeeded" {
            break;
        }
        let message = operation.status.unwrap().message.unwrap();
        assert!(message.contains("holds its lease"), "{message}");
    }
    let all = operations.list(&ListParams::default()).await.unwrap();
    let own = |operation: &&Operation| operation.metadata.name.iter().any(|name| name.starts_with("failover-"));
    assert_eq!(all.iter().filter(own).count(), 0, "{all:?}");
    stage.close().await;
}
