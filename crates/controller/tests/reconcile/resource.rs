//! A `ProtectedApp` itself: accepted, shown, withdrawn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use leeward_api::{FIELD_MANAGER, ProtectedApp, condition};
use leeward_images::pack::{self, Entry};
use leeward_images::reference::Reference;
use leeward_testing::Cluster;
use serde_json::{Value, json};

use crate::metrics::Page;
use crate::stage::{Region, Stage, gone, person, until};

/// The application `web`: what a person applies.
pub(crate) async fn protect(region: &Region, namespace: &str, roles: Value) -> ProtectedApp {
    if region.takes_images() {
        push(region.registry()).await;
    }
    let name = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
    region
        .all::<Namespace>()
        .patch(namespace, &person(), &Patch::Apply(&name))
        .await
        .unwrap();
    let labels = json!({ "app": "web" });
    let mount = json!({ "name": "data", "persistentVolumeClaim": { "claimName": "data" } });
    let volumes: Vec<&Value> = roles.as_array().unwrap().iter().map(|_| &mount).collect();
    region
        .apply::<Deployment>(json!({ "metadata": { "name": "web", "labels": labels }, "spec": {
            "replicas": 2, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": {
                "volumes": volumes,
                "containers": [{ "name": "web", "image": "leeward/web:1",
                    "envFrom": [{ "configMapRef": { "name": "colours" } }, { "configMapRef": { "name": "leeward-web", "optional": true } }] }],
            } },
        } }))
        .await;
    region
        .apply::<k8s_openapi::api::core::v1::ConfigMap>(
            json!({ "metadata": { "name": "colours" }, "data": { "a": "red" } }),
        )
        .await;
    region
        .apply::<k8s_openapi::api::core::v1::Service>(json!({ "metadata": { "name": "web", "labels": labels },
            "spec": { "selector": labels, "ports": [{ "port": 80, "targetPort": 8080 }] } }))
        .await;
    region
        .apply(json!({ "metadata": { "name": "web" }, "spec": {
            "selector": { "matchLabels": labels }, "model": "ActivePassive",
            "placements": [{ "cluster": "west" }, { "cluster": "east", "priority": 2 }],
            "objectives": { "rpo": "10s" }, "roles": roles,
            "traffic": { "hosts": [format!("{namespace}.example")], "service": "web", "port": 80 },
        } }))
        .await
}

/// Puts the application's image into a region's registry, from where the other region copies it.
async fn push(registry: SocketAddr) {
    let image = pack::image(vec![vec![Entry::directory("/tmp", 0o1777)]], &pack::Config::default()).unwrap();
    let reference = Reference::parse("leeward/web:1").unwrap();
    let (http, url) = (reqwest::Client::new(), format!("http://{registry}"));
    // The agent was started just now.
    while let Err(error) = pack::push(&http, &url, &reference, &image).await {
        assert!(error.to_string().contains("sending request"), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn condition_of<'a>(app: &'a ProtectedApp, type_: &str) -> Option<&'a Condition> {
    app.status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Whether the status is about the newest specification, and a cluster is active.
pub(crate) fn settled(app: &ProtectedApp) -> bool {
    let status = app.status.as_ref();
    let serving = condition_of(app, condition::SERVING).is_some_and(|c| c.status == "True");
    serving && status.is_some_and(|status| status.observed_generation == app.metadata.generation)
}

/// Whether everything is in order.
pub(crate) fn protected(app: &ProtectedApp) -> bool {
    settled(app) && condition_of(app, condition::PROTECTED).is_some_and(|c| c.status == "True")
}

pub(crate) async fn a_resource_is_accepted_and_its_status_says_of_which_generation_it_is(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "west").await;
    let made = protect(&stage.west, &stage.namespace, json!([])).await;
    let apps = stage.west.api::<ProtectedApp>();
    let app = until(&apps, "web", "served from west", settled).await;
    assert_eq!(app.finalizers(), ["leeward.dev/protection"]);
    assert_eq!(
        app.metadata.generation, made.metadata.generation,
        "nothing of the specification was touched"
    );
    let status = app.status.clone().unwrap();
    assert_eq!(status.active.as_deref(), Some("west"));
    for condition in &status.conditions {
        assert_eq!(condition.observed_generation, Some(1), "{}", condition.type_);
        assert!(
            !condition.reason.is_empty() && !condition.message.is_empty(),
            "{condition:?}"
        );
    }
    // Each part has the owner that wrote it, and no other one.
    let owners: Vec<_> = app
        .managed_fields()
        .iter()
        .map(|entry| {
            [&entry.manager, &entry.operation, &entry.subresource].map(|part| part.clone().unwrap_or_default())
        })
        .collect();
    for owner in [
        ["a-person", "Apply", ""],
        [FIELD_MANAGER, "Update", ""],
        [FIELD_MANAGER, "Apply", "status"],
    ] {
        assert!(
            owners.contains(&owner.map(str::to_owned)),
            "{owner:?} is not in {owners:?}"
        );
    }
    let shown = columns(&stage.west, &stage.namespace).await;
    for (column, value) in [
        ("Model", json!("ActivePassive")),
        ("Active", json!("west")),
        ("Serving", json!("True")),
        ("Paused", json!(null)),
        ("Operation", json!(null)),
        ("Last RPO", json!(null)),
    ] {
        assert_eq!(shown.get(column), Some(&value), "{column} of {shown:?}");
    }
    // It changes with the status, and the one is read after the other.
    let protection = ["Protected", "Waiting for"].map(|column| shown[column].clone());
    assert!(
        protection == [json!("True"), json!(null)] || protection[0] == json!("False") && protection[1].is_string(),
        "{protection:?}"
    );
    // What changed is told once, about this very object.
    let is_told = |event: &Event| event.reason.as_deref() == Some("ActiveClusterChanged");
    let mut events = pin!(watcher(stage.west.api::<Event>(), watcher::Config::default()).applied_objects());
    let event = loop {
        let event = events.try_next().await.unwrap().unwrap();
        if is_told(&event) {
            break event;
        }
    };
    let all = stage.west.api::<Event>().list(&ListParams::default()).await.unwrap();
    assert_eq!(all.iter().filter(|event| is_told(event)).count(), 1);
    let regarding = event.regarding.unwrap();
    assert_eq!(
        (regarding.kind.as_deref(), regarding.uid),
        (Some("ProtectedApp"), app.metadata.uid.clone())
    );
    assert_eq!(event.note.as_deref(), Some("west is the active cluster"));
    assert_eq!(
        (
            event.reporting_controller.as_deref(),
            event.reporting_instance.as_deref()
        ),
        (Some("leeward"), Some("west"))
    );
    // A new specification: the person's apply does not meet the finalizer, and the status follows.
    let change = Patch::Merge(json!({ "spec": { "objectives": { "rpo": "20s" } } }));
    apps.patch("web", &person_of("kubectl-edit"), &change).await.unwrap();
    let app = until(&apps, "web", "shown anew", settled).await;
    assert_eq!((app.metadata.generation, app.finalizers().len()), (Some(2), 1));
    assert!(
        app.status
            .unwrap()
            .conditions
            .iter()
            .all(|c| c.observed_generation == Some(2))
    );
    stage.close().await;
}

/// What `kubectl get` prints of the application, by column.
async fn columns(region: &Region, namespace: &str) -> BTreeMap<String, Value> {
    let request = axum::http::Request::get(format!(
        "/apis/leeward.dev/v1alpha1/namespaces/{namespace}/protectedapps/web"
    ));
    let request = request.header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table: Value = region.client.request(request.body(vec![]).unwrap()).await.unwrap();
    let names = table["columnDefinitions"].as_array().unwrap().iter();
    let cells = table["rows"][0]["cells"].as_array().unwrap().iter().cloned();
    names
        .map(|column| column["name"].as_str().unwrap().to_owned())
        .zip(cells)
        .collect()
}

pub(crate) fn person_of(manager: &str) -> PatchParams {
    PatchParams {
        field_manager: Some(manager.into()),
        ..PatchParams::default()
    }
}

/// In the time in which something that is looked at now and then would be.
async fn nothing_is_read_again(stage: &Stage) {
    let read = async |region: &Region| {
        let page = Page::of(region.metrics()).await;
        ["list", "get"].map(|verb| page.sum("leeward_kubernetes_requests_total", ("verb", verb)))
    };
    let before = [read(&stage.west).await, read(&stage.east).await];
    assert!(before[1][0] > 0.0, "what was carried was compared once");
    tokio::time::sleep(Duration::from_millis(5500)).await;
    assert_eq!([read(&stage.west).await, read(&stage.east).await], before);
}

pub(crate) async fn nothing_is_written_again_while_nothing_changes(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "west").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    let apps = stage.west.api::<ProtectedApp>();
    until(&apps, "web", "followed by east", |app| {
        app.status
            .iter()
            .flat_map(|status| &status.placements)
            .all(|p| p.missing.len() <= 1)
            && settled(app)
    })
    .await;
    until(&stage.east.api::<ProtectedApp>(), "web", "known in east", |_| true).await;
    until(&stage.east.api::<Deployment>(), "web", "carried to east", |_| true).await;
    let versions = async || {
        let mut versions = vec![];
        for region in [&stage.west, &stage.east] {
            let app = region.api::<ProtectedApp>().get("web").await.unwrap();
            let web = region.api::<Deployment>().get("web").await.unwrap();
            let clusters = region
                .all::<leeward_api::Cluster>()
                .list(&ListParams::default())
                .await
                .unwrap();
            versions.push((app.resource_version(), web.resource_version()));
            versions.extend(clusters.into_iter().map(|cluster| (cluster.resource_version(), None)));
        }
        versions
    };
    // Every task looks at least once a second. It may take a few looks until all is settled; then one look more changes nothing.
    let mut before = versions().await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let after = versions().await;
        if after == before {
            nothing_is_read_again(&stage).await;
            return stage.close().await;
        }
        before = after;
    }
    panic!("it is written again and again: {before:?}");
}

pub(crate) async fn what_is_wrong_with_a_resource_is_said_on_it(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "west").await;
    let name = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": stage.namespace } });
    let namespaces = stage.west.all::<Namespace>();
    namespaces
        .patch(&stage.namespace, &person(), &Patch::Apply(&name))
        .await
        .unwrap();
    let apps = stage.west.api::<ProtectedApp>();
    let spec = |second: &str| {
        json!({ "metadata": { "name": "web" }, "spec": {
        "selector": { "matchLabels": { "app": "web" } }, "model": "ActivePassive",
        "placements": [{ "cluster": "west" }, { "cluster": second }],
    } })
    };
    // What the definition says of itself is refused by the API.
    let twice = json!({ "apiVersion": "leeward.dev/v1alpha1", "kind": "ProtectedApp", "metadata": { "name": "web" }, "spec": spec("west")["spec"] });
    let twice: ProtectedApp = serde_json::from_value(twice).unwrap();
    let refused = apps.create(&PostParams::default(), &twice).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 422 && status.message.contains("a cluster has one placement")),
        "{refused}"
    );
    // What only the agent can know is said in the status.
    stage.west.apply::<ProtectedApp>(spec("mars")).await;
    let app = until(&apps, "web", "refused", |app| {
        condition_of(app, condition::PROTECTED).is_some()
    })
    .await;
    let protected = condition_of(&app, condition::PROTECTED).unwrap();
    assert_eq!(
        (protected.status.as_str(), protected.reason.as_str()),
        ("False", "Invalid")
    );
    assert_eq!(protected.observed_generation, Some(1));
    assert!(
        protected.message.contains("spec.placements[1].cluster"),
        "{}",
        protected.message
    );
    assert!(
        app.finalizers().is_empty(),
        "what was never accepted can be deleted at once"
    );
    stage.west.apply::<ProtectedApp>(spec("east")).await;
    let app = until(&apps, "web", "accepted", |app| {
        condition_of(app, condition::PROTECTED)
            .is_some_and(|c| c.observed_generation == Some(2) && c.reason != "Invalid")
    })
    .await;
    assert_eq!(app.finalizers().len(), 1);
    stage.close().await;
}

pub(crate) async fn a_resource_is_kept_until_its_protection_has_ended(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "west").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    let (here, there) = (stage.west.api::<ProtectedApp>(), stage.east.api::<ProtectedApp>());
    until(&here, "web", "served", settled).await;
    until(&there, "web", "copied", |_| true).await;
    // Somebody else's finalizer stays when ours goes.
    let others = Patch::Merge(json!({ "metadata": { "finalizers": ["leeward.dev/protection", "example.com/audit"] } }));
    here.patch("web", &person_of("auditor"), &others).await.unwrap();
    here.delete("web", &DeleteParams::default()).await.unwrap();
    let app = until(&here, "web", "let go", |app| app.finalizers() == ["example.com/audit"]).await;
    assert!(app.metadata.deletion_timestamp.is_some());
    gone(&there, "web").await;
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    here.patch("web", &person_of("auditor"), &free).await.unwrap();
    gone(&here, "web").await;
    // The application itself goes on.
    assert!(stage.west.api::<Deployment>().get_opt("web").await.unwrap().is_some());
    stage.close().await;
}

pub(crate) async fn an_agent_that_was_away_goes_on(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "west").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    let apps = stage.west.api::<ProtectedApp>();
    until(&apps, "web", "served", settled).await;
    stage.west.stop().await;
    let change = Patch::Merge(json!({ "spec": { "objectives": { "rto": "90s" } } }));
    apps.patch("web", &person_of("kubectl-edit"), &change).await.unwrap();
    stage.west.start();
    until(&apps, "web", "shown after the restart", |app| {
        app.status.as_ref().and_then(|status| status.observed_generation) == Some(2)
    })
    .await;
    stage.west.stop().await;
    apps.delete("web", &DeleteParams::default()).await.unwrap();
    let app = apps.get("web").await.unwrap();
    assert!(
        app.metadata.deletion_timestamp.is_some(),
        "nobody lets it go while the agent is away"
    );
    stage.west.start();
    gone(&apps, "web").await;
    gone(&stage.east.api::<ProtectedApp>(), "web").await;
    stage.close().await;
}

pub(crate) async fn a_copy_that_is_changed_or_deleted_comes_back(cluster: Arc<Cluster>) {
    let stage = Stage::open(&cluster, "east").await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    let copies = stage.east.api::<ProtectedApp>();
    let copy = until(&copies, "web", "copied", |copy| copy.status.is_some()).await;
    assert_eq!(copy.annotations()["leeward.dev/authority"], "west");
    let wanted = stage.west.api::<ProtectedApp>().get("web").await.unwrap().spec;
    assert_eq!(copy.spec, wanted);
    assert!(copy.finalizers().is_empty());
    let change = Patch::Merge(json!({ "spec": { "objectives": { "rpo": "1h" } } }));
    let changed = copies.patch("web", &person_of("kubectl-edit"), &change).await.unwrap();
    until(&copies, "web", "as it was", |copy| {
        copy.spec == wanted && copy.metadata.generation > changed.metadata.generation
    })
    .await;
    copies.delete("web", &DeleteParams::default()).await.unwrap();
    until(&copies, "web", "there again", |again| {
        again.metadata.uid != copy.metadata.uid && again.status.is_some()
    })
    .await;
    stage.close().await;
}
