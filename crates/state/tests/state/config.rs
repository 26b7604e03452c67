//! Configuration is carried from one Kubernetes API to another.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt as _};
use leeward_api::FIELD_MANAGER;
use leeward_core::name::{AppKey, Epoch, Generation};
use leeward_state::config::{
    Bundle, Change, Override, Receiver, Running, Secrets, cluster, desired, missing, plan, select,
};
use leeward_testing::{AGENT, Cluster};
use serde_json::{Value, json};

leeward_testing::scenarios! {
    a_standby_gets_the_application_scaled_down_and_follows_its_changes,
    a_standby_follows_what_is_active_elsewhere,
    what_stood_by_gives_back_the_same_configuration_when_it_is_active,
    what_another_manager_keeps_is_reported_and_never_written,
    what_somebody_changed_by_hand_is_brought_back,
    what_is_different_in_one_placement_is_written_once,
    a_change_in_the_namespace_is_told,
    an_object_that_the_api_refuses_does_not_hold_up_the_others,
}

/// A region: its API as its agent reaches it, and the application's namespace.
struct Region {
    name: &'static str,
    client: Client,
    namespace: String,
    _cluster: Arc<Cluster>,
}

/// Two regions, the first of them with the API that the test is about, the other one with a local API.
async fn regions(first: &'static str, cluster: &Arc<Cluster>, second: &'static str) -> (Region, Region) {
    let namespace = cluster.fresh("shop");
    let other = Cluster::local_with("127.9.40.0/22").await.unwrap();
    let region = |name, cluster: Arc<Cluster>| {
        let namespace = namespace.clone();
        async move {
            Region {
                name,
                client: cluster.client_as(AGENT).await.unwrap(),
                namespace,
                _cluster: cluster,
            }
        }
    };
    (region(first, Arc::clone(cluster)).await, region(second, other).await)
}

impl Region {
    fn client(&self) -> Client {
        self.client.clone()
    }

    fn app(&self) -> AppKey {
        AppKey::new(&self.namespace, "web")
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), &self.namespace)
    }

    async fn apply(&self, objects: &[Value]) {
        let failed = cluster::apply(
            &self.client(),
            &self.app(),
            &objects.iter().cloned().map(Change::Apply).collect::<Vec<_>>(),
        )
        .await;
        assert!(failed.is_empty(), "{failed:?}");
    }

    async fn bundle(&self) -> Bundle {
        let selector: LabelSelector = serde_json::from_value(json!({ "matchLabels": { "app": "web" } })).unwrap();
        let here = cluster::fetch(&self.client(), &self.namespace).await.unwrap();
        let objects = select(&self.app(), &selector, &["data".into()], &Secrets::All, &here).unwrap();
        Bundle::new(self.app(), self.name.into(), Some(Epoch(1)), Generation(1), objects).with(Secrets::All)
    }

    /// Makes the region a standby of the bundle once, and says what was changed.
    async fn follow(&self, bundle: &Bundle) -> Vec<Change> {
        self.follow_with(bundle, &[]).await
    }

    async fn follow_with(&self, bundle: &Bundle, overrides: &[Override]) -> Vec<Change> {
        bundle.check().unwrap();
        let objects = desired(bundle, overrides, Running::Standby(0)).unwrap();
        let here = cluster::fetch(&self.client(), &self.namespace).await.unwrap();
        let receiver = Receiver {
            cluster: self.name.into(),
            authority: "west".into(),
            secrets: Secrets::All,
        };
        let changes = plan(bundle, &objects, &here, &receiver);
        let failed = cluster::apply(&self.client(), &self.app(), &changes).await;
        assert!(failed.is_empty(), "{failed:?}");
        changes
    }
}

fn object(namespace: &str, version: &str, kind: &str, name: &str, more: Value) -> Value {
    let mut object =
        json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": namespace } });
    object["metadata"]["labels"] = json!({ "app": "web" });
    object
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    object
}

fn application(namespace: &str) -> Vec<Value> {
    let object = |version, kind, name, more| object(namespace, version, kind, name, more);
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
        object("v1", "ServiceAccount", "runner", json!({})),
        object(
            "v1",
            "ConfigMap",
            "colours",
            json!({ "data": { "a": "red", "b": "blue" } }),
        ),
        object("v1", "Secret", "keys", json!({ "data": { "k": "aw==" } })),
        object(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "web",
            json!({ "spec": {
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
                "minReplicas": 2, "maxReplicas": 5,
                "metrics": [{ "type": "Resource", "resource": { "name": "memory", "target": { "type": "AverageValue", "averageValue": "1024Mi" } } }],
            } }),
        ),
        object(
            "v1",
            "PersistentVolumeClaim",
            "data",
            json!({ "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": { "requests": { "storage": "1Gi" } },
        } }),
        ),
        object(
            "v1",
            "Service",
            "web",
            json!({ "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] } }),
        ),
        object(
            "v1",
            "Service",
            "peers",
            json!({ "spec": {
            "clusterIP": "None", "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }],
        } }),
        ),
        object(
            "apps/v1",
            "StatefulSet",
            "log",
            json!({ "spec": {
            "replicas": 2, "serviceName": "peers",
            "selector": { "matchLabels": { "app": "web", "part": "log" } },
            "template": { "metadata": { "labels": { "app": "web", "part": "log" } },
                "spec": { "containers": [{ "name": "log", "image": "shop/log:1" }] } },
        } }),
        ),
        object(
            "apps/v1",
            "Deployment",
            "web",
            json!({ "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "serviceAccountName": "runner",
                    "containers": [{ "name": "web", "image": "shop/web:1", "envFrom": [{ "secretRef": { "name": "keys" } }],
                        "env": [{ "name": "A", "value": "a" }, { "name": "B", "value": "b" }],
                        "resources": { "limits": { "cpu": "500m", "memory": "64Mi" } },
                        "livenessProbe": { "httpGet": { "path": "/", "port": 80 } } }],
                    "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
                },
            },
        } }),
        ),
    ]
}

const OBJECTS: usize = 10;

async fn a_standby_gets_the_application_scaled_down_and_follows_its_changes(cluster: Arc<Cluster>) {
    let (east, west) = regions("east", &cluster, "west").await;
    follows(&west, &east).await;
}

async fn a_standby_follows_what_is_active_elsewhere(cluster: Arc<Cluster>) {
    let (west, east) = regions("west", &cluster, "east").await;
    follows(&west, &east).await;
}

async fn follows(west: &Region, east: &Region) {
    west.apply(&application(&west.namespace)).await;
    let bundle = west.bundle().await;
    assert_eq!(missing(&bundle, &[], &BTreeSet::new()).len(), OBJECTS);
    assert_eq!(east.follow(&bundle).await.len(), OBJECTS);
    assert_eq!(east.follow(&bundle).await, [], "the second time there is nothing to do");

    let web = east.api::<Deployment>().get("web").await.unwrap();
    let managers: Vec<_> = web
        .managed_fields()
        .iter()
        .filter_map(|entry| entry.manager.clone())
        .collect();
    assert_eq!(managers, [FIELD_MANAGER]);
    assert_eq!(web.spec.unwrap().replicas, Some(0));
    assert_eq!(web.metadata.annotations.unwrap()["leeward.dev/replicas"], "3");
    let address = |service: Service| service.spec.unwrap().cluster_ip.unwrap();
    let ours = address(east.api().get("web").await.unwrap());
    let theirs = address(west.api().get("web").await.unwrap());
    assert_ne!(ours, theirs, "each cluster gives a Service an address of its own");

    // The active cluster drops a key and a Service.
    let drop_key = Patch::Merge(json!({ "data": { "b": null } }));
    let params = PatchParams::default();
    west.api::<ConfigMap>()
        .patch("colours", &params, &drop_key)
        .await
        .unwrap();
    west.api::<Service>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    let bundle = west.bundle().await;
    assert_eq!(east.follow(&bundle).await.len(), 2);
    assert_eq!(east.follow(&bundle).await, []);
    let colours = east.api::<ConfigMap>().get("colours").await.unwrap();
    assert_eq!(
        colours.data.unwrap().into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), "red".to_owned())]
    );
    assert!(east.api::<Service>().get_opt("web").await.unwrap().is_none());
}

async fn what_stood_by_gives_back_the_same_configuration_when_it_is_active(cluster: Arc<Cluster>) {
    let (east, west) = regions("east", &cluster, "west").await;
    west.apply(&application(&west.namespace)).await;
    let there = west.bundle().await;
    east.follow(&there).await;
    let back = east.bundle().await;
    assert_eq!(back.objects, there.objects);
    // The home of the application stands by now: scaled down, and nothing of it is marked as a copy.
    west.follow(&back).await;
    let web = west.api::<Deployment>().get("web").await.unwrap();
    assert_eq!(web.spec.as_ref().unwrap().replicas, Some(0));
    assert!(!web.metadata.labels.unwrap().contains_key("leeward.dev/app"));
    assert_eq!(west.follow(&back).await, []);
}

async fn what_another_manager_keeps_is_reported_and_never_written(cluster: Arc<Cluster>) {
    let (east, west) = regions("east", &cluster, "west").await;
    west.apply(&application(&west.namespace)).await;
    east.apply(&application(&west.namespace)[..1]).await;
    let argo = PatchParams::apply("argocd-controller");
    let mut own = object(
        &east.namespace,
        "v1",
        "ConfigMap",
        "colours",
        json!({ "data": { "a": "green" } }),
    );
    own["metadata"]["labels"] = json!({ "app": "web", "argocd.argoproj.io/instance": "shop" });
    east.api::<ConfigMap>()
        .patch("colours", &argo, &Patch::Apply(&own))
        .await
        .unwrap();
    let bundle = west.bundle().await;
    let drift = |changes: Vec<Change>| {
        changes
            .into_iter()
            .filter(|c| matches!(c, Change::Drift { .. }))
            .count()
    };
    assert_eq!(drift(east.follow(&bundle).await), 1);
    assert_eq!(drift(east.follow(&bundle).await), 1, "it stays");
    let colours = east.api::<ConfigMap>().get("colours").await.unwrap();
    assert_eq!(colours.data.unwrap()["a"], "green");
    // And what it had left to others is taken once it lets go.
    east.api::<ConfigMap>()
        .delete("colours", &DeleteParams::default())
        .await
        .unwrap();
    east.follow(&bundle).await;
    assert_eq!(east.follow(&bundle).await, []);
}

async fn what_somebody_changed_by_hand_is_brought_back(cluster: Arc<Cluster>) {
    let (east, west) = regions("east", &cluster, "west").await;
    west.apply(&application(&west.namespace)).await;
    let bundle = west.bundle().await;
    east.follow(&bundle).await;
    let hand = PatchParams {
        field_manager: Some("kubectl-edit".into()),
        ..PatchParams::default()
    };
    let edit = Patch::Merge(json!({ "data": { "a": "green", "c": "white" } }));
    east.api::<ConfigMap>().patch("colours", &hand, &edit).await.unwrap();
    let scale = Patch::Merge(json!({ "spec": { "replicas": 5 } }));
    east.api::<Deployment>().patch("web", &hand, &scale).await.unwrap();
    east.follow(&bundle).await;
    let web = east.api::<Deployment>().get("web").await.unwrap();
    assert_eq!(web.spec.as_ref().unwrap().replicas, Some(0));
    let colours = east.api::<ConfigMap>().get("colours").await.unwrap();
    assert_eq!(colours.data.unwrap()["a"], "red");
    // What is carried is still the same, and it is not fought over.
    let before = (web.resource_version(), colours.metadata.resource_version);
    east.follow(&bundle).await;
    let web = east.api::<Deployment>().get("web").await.unwrap();
    let colours = east.api::<ConfigMap>().get("colours").await.unwrap();
    assert_eq!((web.resource_version(), colours.metadata.resource_version), before);
}

async fn what_is_different_in_one_placement_is_written_once(cluster: Arc<Cluster>) {
    let (east, west) = regions("east", &cluster, "west").await;
    west.apply(&application(&west.namespace)).await;
    let bundle = west.bundle().await;
    east.follow(&bundle).await;
    // An API server keeps each of these amounts in another form than it is given here.
    let container = json!({ "name": "web", "image": "shop/web:1", "resources": { "limits": { "cpu": "0.25", "memory": "1024Ki" } } });
    let patch = json!({ "spec": { "template": { "spec": { "containers": [container] } } } });
    let overrides = [Override {
        kind: "Deployment".into(),
        name: "web".into(),
        patch,
    }];
    assert_eq!(east.follow_with(&bundle, &overrides).await.len(), 1);
    assert_eq!(east.follow_with(&bundle, &overrides).await, []);
    let spec = east.api::<Deployment>().get("web").await.unwrap().spec.unwrap();
    let containers = spec.template.spec.unwrap().containers;
    assert!(containers[0].env.is_none(), "what was taken away here is gone");
    assert_eq!(
        east.follow(&bundle).await.len(),
        1,
        "and comes back with the patch's end"
    );
    assert_eq!(east.follow(&bundle).await, []);
}

async fn a_change_in_the_namespace_is_told(cluster: Arc<Cluster>) {
    let (west, _east) = regions("west", &cluster, "east").await;
    west.apply(&application(&west.namespace)).await;
    let mut changes = cluster::changes(&west.client(), &west.namespace);
    changes.next().await.unwrap();
    let relabelled = Patch::Merge(json!({ "metadata": { "labels": { "tier": "gold" } } }));
    west.api::<ConfigMap>()
        .patch("colours", &PatchParams::default(), &relabelled)
        .await
        .unwrap();
    // Each time something is told a reader looks at the namespace; sooner or later it sees the change without asking again.
    loop {
        changes.next().await.unwrap();
        if west
            .bundle()
            .await
            .objects
            .iter()
            .any(|object| object["metadata"]["labels"]["tier"] == "gold")
        {
            break;
        }
    }
}

async fn an_object_that_the_api_refuses_does_not_hold_up_the_others(cluster: Arc<Cluster>) {
    let (east, west) = regions("east", &cluster, "west").await;
    west.apply(&application(&west.namespace)).await;
    east.follow(&west.bundle().await).await;
    // What cannot be changed in place: a claim's class, and a workload's selector.
    let claim = object(
        &east.namespace,
        "v1",
        "PersistentVolumeClaim",
        "data",
        json!({ "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "other", "resources": { "requests": { "storage": "1Gi" } },
    } }),
    );
    let colours = object(
        &east.namespace,
        "v1",
        "ConfigMap",
        "colours",
        json!({ "data": { "a": "pink" } }),
    );
    let changes = [claim, colours].map(Change::Apply);
    let failed = cluster::apply(&east.client(), &east.app(), &changes).await;
    let said: Vec<_> = failed.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("data in namespace") && said[0].contains("spec is immutable after creation"),
        "{said:?}"
    );
    let claim = east.api::<PersistentVolumeClaim>().get("data").await.unwrap();
    assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), Some("local"));
    let colours = east.api::<ConfigMap>().get("colours").await.unwrap();
    assert_eq!(colours.data.unwrap()["a"], "pink");
}
