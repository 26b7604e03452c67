//! The sample application as Kubernetes objects, and as an image.

use serde_json::{Value, json};

/// Where the sample application is in the cluster.
pub(crate) const NAMESPACE: &str = "shop";
/// Its name.
pub(crate) const APP: &str = "shop";
/// The host name that means it.
pub(crate) const HOST: &str = "shop.example";
/// Its image.
pub(crate) const IMAGE: &str = "leeward/sample:1";
/// The most that may be lost of it.
pub(crate) const RPO: std::time::Duration = std::time::Duration::from_secs(5);
/// The port that its pods serve at.
pub(crate) const PORT: u16 = 8080;
/// Its writer role.
pub(crate) const ROLE: &str = "data";
/// Its claim.
pub(crate) const CLAIM: &str = "shop-data";

/// The application's objects.
pub(crate) fn objects(stateless: bool) -> Vec<Value> {
    let labels = json!({ "app": APP });
    let mut env = vec![json!({ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } })];
    let mut container = json!({
        "name": "shop",
        "image": IMAGE,
        "ports": [{ "containerPort": PORT, "name": "http" }],
        "readinessProbe": { "httpGet": { "path": "/healthz", "port": PORT }, "periodSeconds": 1, "failureThreshold": 2 },
    });
    let mut pod = json!({ "terminationGracePeriodSeconds": 2 });
    if stateless {
        env.push(from_config("LEEWARD_CLUSTER", "cluster"));
        env.push(json!({ "name": "STATELESS", "value": "1" }));
    } else {
        // The gate is the parent of the writer, tells it cluster and epoch, and stands between it and its users.
        env.push(json!({ "name": "POD_UID", "valueFrom": { "fieldRef": { "fieldPath": "metadata.uid" } } }));
        env.push(json!({ "name": "PORT", "value": "8081" }));
        let role = format!("{NAMESPACE}/{APP}/{ROLE}");
        container["command"] = json!(["/leeward", "gate"]);
        container["args"] = json!([
            "--role",
            role,
            "--port",
            format!("http:$(POD_IP):{PORT}=$(POD_IP):8081"),
            "--",
            "/leeward",
            "sample",
        ]);
        container["volumeMounts"] = json!([
            { "name": "data", "mountPath": "/data" },
            { "name": "gate", "mountPath": "/var/run/leeward/gate", "readOnly": true },
        ]);
        pod["volumes"] = json!([
            { "name": "data", "persistentVolumeClaim": { "claimName": CLAIM } },
            { "name": "gate", "secret": { "secretName": leeward_api::gate_secret(APP) } },
        ]);
    }
    container["env"] = env.into();
    pod["containers"] = json!([container]);
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE },
    })];
    if !stateless {
        objects.push(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": CLAIM, "namespace": NAMESPACE, "labels": labels },
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
        }));
    }
    objects.extend([
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": APP, "namespace": NAMESPACE, "labels": labels },
            "spec": { "selector": labels, "ports": [{ "name": "http", "port": 80, "targetPort": PORT }] },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": APP, "namespace": NAMESPACE, "labels": labels },
            "spec": {
                "replicas": if stateless { 2 } else { 1 },
                // A volume has one writer: the old pod ends before the new one starts.
                "strategy": { "type": if stateless { "RollingUpdate" } else { "Recreate" } },
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        }),
    ]);
    objects
}

fn from_config(variable: &str, key: &str) -> Value {
    let map = leeward_api::writer_config_map(APP);
    json!({ "name": variable, "valueFrom": { "configMapKeyRef": { "name": map, "key": key } } })
}

/// What a person says about the application.
pub(crate) fn protected_app(active_active: bool, clusters: &[String]) -> Value {
    let placements: Vec<_> = clusters.iter().map(|cluster| json!({ "cluster": cluster })).collect();
    let mut spec = json!({
        "selector": { "matchLabels": { "app": APP } },
        "model": if active_active { "ActiveActive" } else { "ActivePassive" },
        "placements": placements,
        "objectives": { "rpo": "5s", "rto": "30s" },
        "traffic": { "hosts": [HOST], "service": APP, "port": 80, "probe": { "path": "/healthz" } },
    });
    if !active_active {
        spec["roles"] = json!([{ "name": ROLE, "claims": [CLAIM], "interval": "1s" }]);
    }
    json!({
        "apiVersion": "leeward.dev/v1alpha1", "kind": "ProtectedApp",
        "metadata": { "name": APP, "namespace": NAMESPACE },
        "spec": spec,
    })
}
