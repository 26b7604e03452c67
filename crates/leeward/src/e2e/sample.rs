//! The sample applications as Kubernetes objects, one for each model. Pure.

use std::time::Duration;

use serde_json::{Value, json};

/// An application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct App {
    /// Its namespace, and its own name.
    pub(crate) name: &'static str,
    /// The host name that means it.
    pub(crate) host: &'static str,
    /// Whether it is active in one cluster at a time.
    pub(crate) passive: bool,
}

/// Both.
pub(crate) const APPS: [App; 2] = [PASSIVE, EVERYWHERE];
/// The ActivePassive one.
pub(crate) const PASSIVE: App = App {
    name: "leeward-e2e-passive",
    host: "passive.e2e.example",
    passive: true,
};
/// The ActiveActive one.
pub(crate) const EVERYWHERE: App = App {
    name: "leeward-e2e-active",
    host: "active.e2e.example",
    passive: false,
};

const PORT: u16 = 8080;

/// What runs, as a person would apply it in one cluster.
pub(crate) fn objects(app: App, image: &str) -> Vec<Value> {
    let (name, labels) = (app.name, json!({ "app": app.name }));
    let map = leeward_api::writer_config_map(name);
    let container = json!({
        "name": "app",
        "image": image,
        "args": ["sample"],
        "env": [
            { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            { "name": "STATELESS", "value": "1" },
            { "name": "LEEWARD_CLUSTER", "valueFrom": { "configMapKeyRef": { "name": map, "key": "cluster" } } },
        ],
        "readinessProbe": { "httpGet": { "path": "/healthz", "port": PORT }, "periodSeconds": 1 },
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 65532,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": name, "labels": labels },
            "spec": { "selector": labels, "ports": [{ "port": PORT }] },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": name, "labels": labels },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] },
                },
            },
        }),
    ]
}

/// What a person says about it. The first cluster is the one that an ActivePassive application begins in.
pub(crate) fn protected(app: App, clusters: [&str; 2], ttl: Duration) -> Value {
    let rto = (ttl * 4).max(Duration::from_secs(60));
    let mut placements = clusters.map(|cluster| json!({ "cluster": cluster }));
    if app.passive {
        placements[1]["priority"] = 2.into();
    }
    json!({
        "apiVersion": "leeward.dev/v1alpha1", "kind": "ProtectedApp",
        "metadata": { "name": app.name, "namespace": app.name },
        "spec": {
            "selector": { "matchLabels": { "app": app.name } },
            "model": if app.passive { "ActivePassive" } else { "ActiveActive" },
            "placements": placements,
            "objectives": { "rpo": "5s", "rto": format!("{}s", rto.as_secs()) },
            "traffic": { "hosts": [app.host], "service": app.name, "port": PORT },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_application_is_a_resource_that_names_its_objects() {
        for app in APPS {
            let said = protected(app, ["west", "east"], Duration::from_secs(20));
            let read: leeward_api::ProtectedApp = serde_json::from_value(said).unwrap();
            assert_eq!(read.spec.placements.len(), 2);
            let objects = objects(app, "image:1");
            assert_eq!(objects.len(), 3);
            assert!(
                objects[1..]
                    .iter()
                    .all(|object| object["metadata"]["labels"]["app"] == app.name)
            );
            assert_eq!(
                objects[2]["spec"]["template"]["spec"]["containers"][0]["image"],
                "image:1"
            );
        }
    }
}
