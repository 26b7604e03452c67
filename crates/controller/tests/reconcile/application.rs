//! The objects of an application, where it is active and where it stands by.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch};
use leeward_api::{Cluster as ClusterResource, FIELD_MANAGER, ProtectedApp, condition};
use leeward_testing::Cluster;
use serde_json::json;

use crate::operations::waits;
use crate::resource::{condition_of, person_of, protect, settled};
use crate::stage::{Stage, gone, person, until, until_file};

pub(crate) fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref()?.replicas
}

pub(crate) async fn an_application_is_carried_to_a_standby_and_follows(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "east").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    let web = until(&stage.east.api::<Deployment>(), "web", "carried", |_| true).await;
    assert_eq!(replicas(&web), Some(0));
    assert_eq!(web.annotations()["leeward.dev/replicas"], "2");
    assert_eq!(web.annotations()["leeward.dev/carried-from"], "west");
    assert_eq!(web.labels()["leeward.dev/app"], format!("{}.web", stage.namespace));
    assert!(web.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    }));
    until(&stage.east.api::<Service>(), "web", "carried", |_| true).await;
    // What the workload refers to comes along although no label selects it, and its changes do too.
    let colours = stage.east.api::<ConfigMap>();
    until(&colours, "colours", "carried", |_| true).await;
    let change = Patch::Merge(json!({ "data": { "a": null, "b": "blue" } }));
    stage
        .west
        .api::<ConfigMap>()
        .patch("colours", &person_of("kubectl-edit"), &change)
        .await
        .unwrap();
    until(&colours, "colours", "changed", |map| {
        map.data
            .as_ref()
            .is_some_and(|data| data.len() == 1 && data.get("b").is_some_and(|b| b == "blue"))
    })
    .await;
    // Each cluster tells its own pods who they are; that is never carried.
    let own = until(&stage.west.api::<ConfigMap>(), "leeward-web", "told", |_| true).await;
    assert_eq!(own.data.unwrap()["cluster"], "west");
    assert!(
        stage
            .east
            .api::<ConfigMap>()
            .get_opt("leeward-web")
            .await
            .unwrap()
            .is_none()
    );
    stage.close().await;
}

pub(crate) async fn what_was_carried_is_on_disk_until_the_protection_ends(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "east").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    until(&stage.east.api::<Deployment>(), "web", "carried", |_| true).await;
    // It is there before it is used.
    let file = stage.carried("east");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("colours"), "{kept}");
    // A damaged one is asked for again.
    stage.east.stop().await;
    std::fs::write(&file, &kept[..kept.len() / 2]).unwrap();
    stage.east.start();
    until_file(&file, "whole again", |text| {
        text.is_some_and(|text| text.len() >= kept.len())
    })
    .await;
    // It goes with the protection, although the agent is away when that ends.
    stage.east.stop().await;
    let apps = stage.west.api::<ProtectedApp>();
    apps.delete("web", &DeleteParams::default()).await.unwrap();
    gone(&apps, "web").await;
    stage.east.start();
    until_file(&file, "removed", |text| text.is_none()).await;
    stage.close().await;
}

pub(crate) async fn replicas_that_somebody_else_sets_are_brought_back(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "east").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    let deployments = stage.east.api::<Deployment>();
    until(&deployments, "web", "carried", |web| replicas(web) == Some(0)).await;
    until(&stage.east.api::<ProtectedApp>(), "web", "settled", |app| {
        app.status.is_some()
    })
    .await;
    // As kubectl scale and a HorizontalPodAutoscaler do it: through the subresource.
    let scale = Patch::Merge(json!({ "spec": { "replicas": 4 } }));
    deployments
        .patch_scale("web", &person_of("kube-controller-manager"), &scale)
        .await
        .unwrap();
    let web = until(&deployments, "web", "scaled down again", |web| replicas(web) == Some(0)).await;
    assert_eq!(
        web.annotations()["leeward.dev/replicas"],
        "2",
        "what it has where it is active is not forgotten"
    );
    // An apply that sets the same field by another manager is a conflict, which a person sees at once.
    let apply = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "replicas": 4 } });
    let params = kube::api::PatchParams::apply("kubectl");
    let conflict = deployments
        .patch("web", &params, &Patch::Apply(&apply))
        .await
        .unwrap_err();
    assert!(
        matches!(&conflict, kube::Error::Api(status) if status.code == 409 && status.message.contains(r#"conflict with "leeward""#)),
        "{conflict}"
    );
    // Forced, it is taken back all the same.
    deployments
        .patch("web", &params.force(), &Patch::Apply(&apply))
        .await
        .unwrap();
    until(&deployments, "web", "scaled down once more", |web| {
        replicas(web) == Some(0)
    })
    .await;
    stage.close().await;
}

pub(crate) async fn what_argo_cd_keeps_in_a_standby_is_verified_and_not_written(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "east").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    let (deployments, apps) = (stage.east.api::<Deployment>(), stage.east.api::<ProtectedApp>());
    until(&deployments, "web", "carried", |web| replicas(web) == Some(0)).await;
    let argo_cd = person_of("argocd-controller");
    let synced = |image: &str| {
        Patch::Strategic(json!({
            "metadata": { "annotations": { "argocd.argoproj.io/tracking-id": "shop-east:apps/Deployment:shop/web" } },
            "spec": { "template": { "spec": { "containers": [{ "name": "web", "image": image }] } } },
        }))
    };
    deployments
        .patch("web", &argo_cd, &synced("leeward/web:other"))
        .await
        .unwrap();
    let app = until(&apps, "web", "told", |app| {
        waits(app, "kept by Argo CD (Application shop-east)")
    })
    .await;
    assert!(
        waits(
            &app,
            r#"image is "leeward/web:other", not "leeward/web:1"; change it there"#
        ),
        "{app:?}"
    );
    assert_eq!(condition_of(&app, condition::PROTECTED).unwrap().status, "False");
    // As it should be, it is left alone.
    deployments
        .patch("web", &argo_cd, &synced("leeward/web:1"))
        .await
        .unwrap();
    until(&apps, "web", "in order", |app| {
        app.status.is_some() && !waits(app, "Argo CD")
    })
    .await;
    // A failover and the tool undo each other, until the tool is told.
    let scale = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    deployments.patch("web", &argo_cd, &scale).await.unwrap();
    let app = until(&apps, "web", "told how", |app| {
        waits(app, "RespectIgnoreDifferences=true")
    })
    .await;
    assert!(waits(&app, "its spec.replicas was set from 0 to 2 here"), "{app:?}");
    let web = until(&deployments, "web", "scaled down again", |web| replicas(web) == Some(0)).await;
    let image = |web: &Deployment| web.spec.as_ref()?.template.spec.as_ref()?.containers[0].image.clone();
    assert_eq!(image(&web).as_deref(), Some("leeward/web:1"));
    stage.close().await;
}

pub(crate) async fn a_namespace_that_is_stuck_in_deletion_on_a_standby_is_named_until_it_is_gone(
    cluster: Arc<Cluster>,
) {
    let stage = Stage::open(&cluster, "east").await;
    let namespaces = stage.east.all::<Namespace>();
    let name = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": stage.namespace } });
    let _: Namespace = namespaces
        .patch(&stage.namespace, &person(), &Patch::Apply(&name))
        .await
        .unwrap();
    // Somebody else's object, whose controller is not there any more.
    let kept = json!({ "metadata": { "name": "kept", "finalizers": ["example.com/away"] } });
    stage.east.apply::<ConfigMap>(kept).await;
    namespaces
        .delete(&stage.namespace, &DeleteParams::default())
        .await
        .unwrap();
    protect(&stage.west, &stage.namespace, json!([])).await;
    until(&stage.west.api::<ProtectedApp>(), "web", "not protected", |app| {
        let protected = condition_of(app, condition::PROTECTED);
        protected.is_some_and(|one| one.status == "False" && one.message.contains("because it is being terminated"))
    })
    .await;
    let freed = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    let kept = stage.east.api::<ConfigMap>();
    kept.patch("kept", &person_of("kubectl-edit"), &freed).await.unwrap();
    // A real API server alone has nobody who ends a namespace.
    if !cluster.is_real() {
        until(&stage.east.api::<Deployment>(), "web", "carried", |_| true).await;
    }
    stage.close().await;
}

pub(crate) async fn the_state_of_each_cluster_is_shown(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "west").await;
    let clusters = stage.west.all::<ClusterResource>();
    let is = |cluster: &ClusterResource, lease: &str, ready: &str, reason: &str| {
        let status = cluster.status.clone().unwrap_or_default();
        let found = status.conditions.iter().find(|c| c.type_ == condition::READY);
        status.lease.as_deref() == Some(lease)
            && found.is_some_and(|c| {
                c.status == ready && c.reason == reason && c.observed_generation == cluster.metadata.generation
            })
    };
    for name in ["west", "east"] {
        until(&clusters, name, "ready", |cluster| {
            is(cluster, "Held", "True", "Reporting")
        })
        .await;
    }
    stage.east.stop().await;
    let east = until(&clusters, "east", "lost", |cluster| {
        is(cluster, "Lost", "False", "Silent")
    })
    .await;
    let went = east.status.unwrap().conditions[0].last_transition_time.clone();
    // The specification changes meanwhile: of the same state, with the time at which it began.
    let change = Patch::Merge(json!({ "spec": { "ingress": "127.0.0.1:1" } }));
    clusters
        .patch("east", &person_of("kubectl-edit"), &change)
        .await
        .unwrap();
    let east = until(&clusters, "east", "observed", |cluster| {
        cluster.metadata.generation > east.metadata.generation && is(cluster, "Lost", "False", "Silent")
    })
    .await;
    assert_eq!(east.status.unwrap().conditions[0].last_transition_time, went);
    stage.east.start();
    until(&clusters, "east", "back", |cluster| {
        is(cluster, "Held", "True", "Reporting")
    })
    .await;
    stage.close().await;
}

pub(crate) fn active(app: &ProtectedApp, name: &str) -> bool {
    settled(app) && app.status.as_ref().and_then(|status| status.active.as_deref()) == Some(name)
}
