//! The applications of the measurement: each with a namespace, a writer behind its gate and a volume of its own.

use serde_json::{Value, json};

/// The image of all of them: the program itself.
pub(super) const IMAGE: &str = "leeward/sample:1";
const PORT: u16 = 8080;

/// The name of one, also its namespace's.
pub(super) fn name(index: usize) -> String {
    format!("idle-{index}")
}

/// An object, and the path that it is created at.
pub(super) type Made = (String, Value);

/// The objects of an application and the wish to have it protected, in their order. `clusters` begins with the one that it runs in.
pub(super) fn objects(name: &str, clusters: &[&str]) -> Vec<Made> {
    let labels = json!({ "app": name });
    let meta = json!({ "name": name, "namespace": name, "labels": labels });
    let of = |group: &str, kind: &str| format!("/{group}/namespaces/{name}/{kind}");
    let placements: Vec<_> = clusters.iter().map(|cluster| json!({ "cluster": cluster })).collect();
    vec![
        (
            "/api/v1/namespaces".to_owned(),
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
        ),
        (
            of("api/v1", "persistentvolumeclaims"),
            json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta,
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
        ),
        (
            of("api/v1", "services"),
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta,
                "spec": { "selector": labels, "ports": [{ "name": "http", "port": 80, "targetPort": PORT }] } }),
        ),
        (
            of("apis/apps/v1", "deployments"),
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
                "replicas": 1, "strategy": { "type": "Recreate" }, "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod(name) } } }),
        ),
        (
            of("apis/leeward.dev/v1alpha1", "protectedapps"),
            json!({ "apiVersion": "leeward.dev/v1alpha1", "kind": "ProtectedApp", "metadata": { "name": name, "namespace": name }, "spec": {
                "selector": { "matchLabels": labels }, "model": "ActivePassive", "placements": placements,
                "objectives": { "rpo": "60s", "rto": "60s" },
                "roles": [{ "name": "data", "claims": [name] }],
                "traffic": { "hosts": [format!("{name}.example")], "service": name, "port": 80, "probe": { "path": "/healthz" } } } }),
        ),
    ]
}

fn pod(name: &str) -> Value {
    let field =
        |variable: &str, path: &str| json!({ "name": variable, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    json!({
        "terminationGracePeriodSeconds": 2,
        "volumes": [
            { "name": "data", "persistentVolumeClaim": { "claimName": name } },
            { "name": "gate", "secret": { "secretName": leeward_api::gate_secret(name) } },
        ],
        "containers": [{
            "name": "web",
            "image": IMAGE,
            "command": ["/leeward", "gate"],
            "args": ["--role", format!("{name}/{name}/data"), "--port", format!("http:$(POD_IP):{PORT}=$(POD_IP):8081"), "--", "/leeward", "sample"],
            "env": [field("POD_IP", "status.podIP"), field("POD_UID", "metadata.uid"), { "name": "PORT", "value": "8081" }],
            "ports": [{ "containerPort": PORT, "name": "http" }],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": PORT }, "periodSeconds": 10 },
            "volumeMounts": [
                { "name": "data", "mountPath": "/data" },
                { "name": "gate", "mountPath": "/var/run/leeward/gate", "readOnly": true },
            ],
        }],
    })
}
