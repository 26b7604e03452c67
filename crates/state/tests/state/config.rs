//! Configuration is carried from one Kubernetes API to another.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use leeward_core::name::{AppKey, Epoch, Generation};
use leeward_local::apiserver::{Config, Server};
use leeward_state::config::{Bundle, Change, Receiver, Running, cluster, desired, missing, plan, select};
use serde_json::{Value, json};

/// The API of a region, without a socket.
struct Region {
    name: &'static str,
    server: Server,
    _directory: tempfile::TempDir,
}

impl Region {
    async fn start(name: &'static str, services: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let config = Config {
            region: name.into(),
            address: "127.0.0.1:0".parse().unwrap(),
            data_dir: directory.path().join("api"),
            tls_cert: file("tls.crt", ""),
            tls_key: file("tls.key", ""),
            ca_cert: None,
            tokens: file("tokens.json", "[]"),
            kubelet_token: file("kubelet.token", "x"),
            service_cidr: services.into(),
        };
        Self {
            name,
            server: Server::open(config).await.unwrap(),
            _directory: directory,
        }
    }

    fn client(&self) -> Client {
        self.server.client()
    }

    async fn apply(&self, objects: &[Value]) {
        let failed = cluster::apply(
            &self.client(),
            &app(),
            &objects.iter().cloned().map(Change::Apply).collect::<Vec<_>>(),
        )
        .await;
        assert!(failed.is_empty(), "{failed:?}");
    }

    async fn bundle(&self) -> Bundle {
        let selector: LabelSelector = serde_json::from_value(json!({ "matchLabels": { "app": "web" } })).unwrap();
        let here = cluster::fetch(&self.client(), "shop").await.unwrap();
        let objects = select(&app(), &selector, &["data".into()], &here).unwrap();
        Bundle::new(app(), self.name.into(), Some(Epoch(1)), Generation(1), objects)
    }

    /// Makes the region a standby of the bundle once, and says what was changed.
    async fn follow(&self, bundle: &Bundle) -> Vec<Change> {
        bundle.check().unwrap();
        let objects = desired(bundle, &[], Running::Standby(0)).unwrap();
        let here = cluster::fetch(&self.client(), "shop").await.unwrap();
        let receiver = Receiver {
            cluster: self.name.into(),
            authority: "west".into(),
        };
        let changes = plan(bundle, &objects, &here, &receiver);
        let failed = cluster::apply(&self.client(), &app(), &changes).await;
        assert!(failed.is_empty(), "{failed:?}");
        changes
    }
}

fn app() -> AppKey {
    AppKey::new("shop", "web")
}

fn object(version: &str, kind: &str, name: &str, more: Value) -> Value {
    let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": "shop" } });
    object["metadata"]["labels"] = json!({ "app": "web" });
    object
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    object
}

fn application() -> Vec<Value> {
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }),
        object(
            "v1",
            "ConfigMap",
            "colours",
            json!({ "data": { "a": "red", "b": "blue" } }),
        ),
        object("v1", "Secret", "keys", json!({ "data": { "k": "aw==" } })),
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
            "apps/v1",
            "Deployment",
            "web",
            json!({ "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": {
                    "containers": [{ "name": "web", "image": "shop/web:1", "envFrom": [{ "secretRef": { "name": "keys" } }] }],
                    "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
                },
            },
        } }),
        ),
    ]
}

#[tokio::test]
async fn a_standby_gets_the_application_scaled_down_and_follows_its_changes() {
    let west = Region::start("west", "127.9.24.0/22").await;
    let east = Region::start("east", "127.9.40.0/22").await;
    west.apply(&application()).await;
    let bundle = west.bundle().await;
    assert_eq!(missing(&bundle, &[], &BTreeSet::new()).len(), 6);
    assert_eq!(east.follow(&bundle).await.len(), 6);
    assert_eq!(east.follow(&bundle).await, []);

    let web = Api::<Deployment>::namespaced(east.client(), "shop")
        .get("web")
        .await
        .unwrap();
    assert_eq!(web.spec.unwrap().replicas, Some(0));
    assert_eq!(web.metadata.annotations.unwrap()["leeward.dev/replicas"], "3");
    let address = |service: Service| service.spec.unwrap().cluster_ip.unwrap();
    let ours = address(Api::namespaced(east.client(), "shop").get("web").await.unwrap());
    let theirs = address(Api::namespaced(west.client(), "shop").get("web").await.unwrap());
    assert!(
        ours.starts_with("127.9.4") && theirs.starts_with("127.9.2"),
        "{ours} {theirs}"
    );

    // The active cluster drops a key and a Service.
    let colours: Api<ConfigMap> = Api::namespaced(west.client(), "shop");
    let drop_key = Patch::Merge(json!({ "data": { "b": null } }));
    colours
        .patch("colours", &PatchParams::default(), &drop_key)
        .await
        .unwrap();
    Api::<Service>::namespaced(west.client(), "shop")
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    let bundle = west.bundle().await;
    assert_eq!(east.follow(&bundle).await.len(), 2);
    assert_eq!(east.follow(&bundle).await, []);
    let colours: ConfigMap = Api::namespaced(east.client(), "shop").get("colours").await.unwrap();
    assert_eq!(
        colours.data.unwrap().into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), "red".to_owned())]
    );
    assert!(
        Api::<Service>::namespaced(east.client(), "shop")
            .get_opt("web")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn what_stood_by_gives_back_the_same_configuration_when_it_is_active() {
    let west = Region::start("west", "127.9.24.0/22").await;
    let east = Region::start("east", "127.9.40.0/22").await;
    west.apply(&application()).await;
    let there = west.bundle().await;
    east.follow(&there).await;
    let back = east.bundle().await;
    assert_eq!(back.objects, there.objects);
    // The home of the application stands by now: scaled down, and nothing of it is marked as a copy.
    west.follow(&back).await;
    let web = Api::<Deployment>::namespaced(west.client(), "shop")
        .get("web")
        .await
        .unwrap();
    assert_eq!(web.spec.as_ref().unwrap().replicas, Some(0));
    assert!(!web.metadata.labels.unwrap().contains_key("leeward.dev/app"));
    assert_eq!(west.follow(&back).await, []);
}

#[tokio::test]
async fn a_change_in_the_namespace_is_told() {
    let west = Region::start("west", "127.9.24.0/22").await;
    west.apply(&application()).await;
    let mut changes = cluster::changes(&west.client(), "shop");
    changes.next().await.unwrap();
    let colours: Api<ConfigMap> = Api::namespaced(west.client(), "shop");
    let relabelled = Patch::Merge(json!({ "metadata": { "labels": { "tier": "gold" } } }));
    colours
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
