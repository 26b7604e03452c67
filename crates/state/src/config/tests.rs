use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::json;
use std::collections::BTreeSet;

use super::*;

fn app() -> AppKey {
    AppKey::new("shop", "web")
}

fn west_is_home(cluster: &str) -> Receiver {
    Receiver {
        cluster: cluster.into(),
        authority: "west".into(),
        secrets: Secrets::All,
    }
}

fn bundle(source: &str, objects: Vec<Value>) -> Bundle {
    Bundle::new(app(), source.into(), Some(Epoch(1)), Generation(3), objects).with(Secrets::All)
}

fn object(kind: &str, name: &str, more: Value) -> Value {
    let version = if kind == "HorizontalPodAutoscaler" {
        "autoscaling/v2"
    } else if matches!(kind, "Deployment" | "StatefulSet" | "ReplicaSet") {
        "apps/v1"
    } else {
        "v1"
    };
    let mut object = json!({
        "apiVersion": version, "kind": kind,
        "metadata": { "name": name, "namespace": "shop", "labels": { "app": "web" } },
    });
    json_patch::merge(&mut object, &more);
    object
}

fn deployment(replicas: i64) -> Value {
    object(
        "Deployment",
        "web",
        json!({ "spec": { "replicas": replicas, "template": { "spec": {
        "serviceAccountName": "web",
        "initContainers": [{ "name": "wait", "image": "busybox:1", "envFrom": [{ "secretRef": { "name": "init" } }] }],
        "containers": [{ "name": "web", "image": "shop/web:1", "env": [
            { "name": "LEEWARD_EPOCH", "valueFrom": { "configMapKeyRef": { "name": "leeward-web", "key": "epoch" } } },
            { "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": "colours", "key": "c", "optional": true } } },
        ] }],
        "volumes": [
            { "name": "data", "persistentVolumeClaim": { "claimName": "data" } },
            { "name": "keys", "secret": { "secretName": "keys" } },
        ],
    } } } }),
    )
}

/// What the API server says of an object beyond what a person wrote.
fn as_in_a_cluster(mut object: Value) -> Value {
    json_patch::merge(
        &mut object,
        &json!({
            "metadata": {
                "uid": "5b1c", "resourceVersion": "77", "generation": 4, "creationTimestamp": "2026-11-22T15:00:00Z",
                "managedFields": [{ "manager": "kubectl" }], "finalizers": ["example.com/x"],
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}", "deployment.kubernetes.io/revision": "3" },
            },
            "status": { "observedGeneration": 4 },
        }),
    );
    object
}

/// What is here after a plan was carried out.
fn after(changes: &[Change], existing: &[Value]) -> Vec<Value> {
    let mut here: Vec<Value> = existing.to_vec();
    for change in changes {
        match change {
            Change::Apply(object) => {
                let id = Id::of(object);
                match here.iter_mut().find(|other| Id::of(other) == id) {
                    Some(other) => json_patch::merge(other, object),
                    None => here.push(as_in_a_cluster(object.clone())),
                }
            }
            Change::Delete(id) => here.retain(|other| Id::of(other).as_ref() != Some(id)),
            Change::Drift { .. } | Change::Kept { .. } => {}
        }
    }
    here
}

fn everything() -> Vec<Value> {
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } }),
        deployment(3),
        object(
            "ServiceAccount",
            "web",
            json!({ "imagePullSecrets": [{ "name": "pull" }] }),
        ),
        object("Secret", "pull", json!({ "data": { "a": "YQ==" } })),
        object("Secret", "keys", json!({ "data": { "k": "aw==" } })),
        object("Secret", "init", json!({ "data": { "k": "aw==" } })),
        object(
            "PersistentVolumeClaim",
            "data",
            json!({ "spec": { "storageClassName": "local", "accessModes": ["ReadWriteOnce"] } }),
        ),
        object("Service", "web", json!({ "spec": { "ports": [{ "port": 80 }] } })),
    ]
}

#[test]
fn what_belongs_to_one_cluster_is_taken_off() {
    for (name, given, expected) in [
        (
            "what every API server writes",
            as_in_a_cluster(object("ConfigMap", "c", json!({ "data": { "a": "b" } }))),
            object("ConfigMap", "c", json!({ "data": { "a": "b" } })),
        ),
        (
            "a Service's addresses and ports",
            object(
                "Service",
                "s",
                json!({ "spec": {
                "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv4"], "type": "NodePort",
                "ports": [{ "port": 80, "nodePort": 31000 }],
            } }),
            ),
            object(
                "Service",
                "s",
                json!({ "spec": { "type": "NodePort", "ports": [{ "port": 80 }] } }),
            ),
        ),
        (
            "but not that a Service is headless",
            object(
                "Service",
                "s",
                json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"], "ports": [] } }),
            ),
            object("Service", "s", json!({ "spec": { "clusterIP": "None", "ports": [] } })),
        ),
        (
            "which volume a claim is bound to",
            object(
                "PersistentVolumeClaim",
                "p",
                json!({
                    "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes", "mine": "kept" } },
                    "spec": { "volumeName": "pv-1", "storageClassName": "local" }, "status": { "phase": "Bound" },
                }),
            ),
            object(
                "PersistentVolumeClaim",
                "p",
                json!({
                    "metadata": { "annotations": { "mine": "kept" } }, "spec": { "storageClassName": "local" },
                }),
            ),
        ),
        (
            "owners, and what tools know their own objects by",
            object(
                "ConfigMap",
                "c",
                json!({ "metadata": {
                "ownerReferences": [{ "kind": "Widget", "uid": "1" }],
                "labels": { "argocd.argoproj.io/instance": "x", "app.kubernetes.io/managed-by": "Helm", "leeward.dev/app": "a.b" },
                "annotations": { "meta.helm.sh/release-name": "x", "leeward.dev/carried-from": "west" },
            } }),
            ),
            object("ConfigMap", "c", json!({})),
        ),
        (
            "that a copy is scaled down",
            object(
                "Deployment",
                "d",
                json!({ "metadata": { "annotations": { "leeward.dev/replicas": "3" } }, "spec": { "replicas": 0 } }),
            ),
            object("Deployment", "d", json!({ "spec": { "replicas": 3 } })),
        ),
        (
            "a service account's tokens",
            object(
                "ServiceAccount",
                "a",
                json!({ "secrets": [{ "name": "a-token" }], "imagePullSecrets": [{ "name": "pull" }] }),
            ),
            object(
                "ServiceAccount",
                "a",
                json!({ "imagePullSecrets": [{ "name": "pull" }] }),
            ),
        ),
    ] {
        assert_eq!(clean(&given), expected, "{name}");
    }
}

#[test]
fn an_application_is_what_its_selector_matches_and_what_that_refers_to() {
    let mut namespace = everything();
    for unlabelled in &mut namespace[2..7] {
        unlabelled["metadata"]["labels"] = json!({ "app": "other" });
    }
    namespace.extend([
        object("ConfigMap", "leeward-web", json!({})),
        object("ConfigMap", "kube-root-ca.crt", json!({})),
        object(
            "ConfigMap",
            "of-another",
            json!({ "metadata": { "labels": { "app": "other" } } }),
        ),
        object(
            "Secret",
            "token",
            json!({ "type": "kubernetes.io/service-account-token" }),
        ),
        object("ReplicaSet", "web-1", json!({})),
        object(
            "ConfigMap",
            "made",
            json!({ "metadata": { "ownerReferences": [{ "kind": "W", "controller": true }] } }),
        ),
        object(
            "ConfigMap",
            "going",
            json!({ "metadata": { "deletionTimestamp": "2026-11-22T15:00:00Z" } }),
        ),
        object(
            "PersistentVolumeClaim",
            "role",
            json!({ "metadata": { "labels": null } }),
        ),
    ]);
    let selector: LabelSelector = serde_json::from_value(json!({ "matchLabels": { "app": "web" } })).unwrap();
    let chosen = select(&app(), &selector, &["role".into()], &Secrets::All, &namespace).unwrap();
    let names: Vec<String> = chosen.iter().filter_map(Id::of).map(|id| id.to_string()).collect();
    assert_eq!(
        names,
        [
            "Namespace shop",
            "ServiceAccount web",
            "Secret init",
            "Secret keys",
            "Secret pull",
            "PersistentVolumeClaim data",
            "PersistentVolumeClaim role",
            "Service web",
            "Deployment web",
        ]
    );
    let nothing = select(&app(), &LabelSelector::default(), &[], &Secrets::All, &namespace).unwrap();
    assert_eq!(nothing.len(), 1, "an empty selector takes the namespace alone");
}

#[test]
fn a_statefulset_refers_to_the_claims_of_its_templates() {
    let set = object(
        "StatefulSet",
        "db",
        json!({ "spec": {
        "replicas": 2, "volumeClaimTemplates": [{ "metadata": { "name": "data" } }], "template": { "spec": {} },
    } }),
    );
    let names: Vec<String> = references(&set)
        .into_iter()
        .map(|reference| reference.id.name)
        .collect();
    assert_eq!(names, ["data-db-0", "data-db-1"]);
}

#[test]
fn every_image_counts_those_of_init_containers_too() {
    assert_eq!(
        images(&everything()),
        BTreeSet::from(["busybox:1".to_owned(), "shop/web:1".to_owned()])
    );
}

mod autoscaler;
mod plan;
mod properties;
mod secrets;
