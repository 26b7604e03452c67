//! What is refused, a line each.

use super::*;

/// What is at a pointer.
type Change = (&'static str, Value);

/// Each change of a template that lacks nothing, and what the error has to name: what is wrong, and what to write.
fn refused() -> Vec<(Vec<Change>, [&'static str; 2])> {
    const ANNOTATIONS: &str = "/metadata/annotations/leeward.dev~1gate-";
    let annotation = |name: &str, value: Value| (&*format!("{ANNOTATIONS}{name}").leak(), value);
    let container = |name: &str, value: Value| (&*format!("/spec/containers/0/{name}").leak(), value);
    let two = ("/spec/containers/-", json!({ "name": "backup", "image": "b:1" }));
    let sharing = |mount: Value| json!({ "name": "backup", "volumeMounts": [mount] });
    let chosen = annotation("container", json!("shop"));
    vec![
        (
            vec![annotation("port", json!("1=2"))],
            ["no annotation leeward.dev/gate-port:", PORTS],
        ),
        (vec![annotation("app", Value::Null)], [APP, "such as shop"]),
        (vec![annotation("roles", Value::Null)], [ROLES, "such as data"]),
        (vec![annotation("ports", Value::Null)], [PORTS, "http:8080=8081"]),
        (vec![annotation("app", json!("store/shop"))], [APP, "small letters"]),
        (vec![annotation("app", json!(""))], [APP, "small letters"]),
        (vec![annotation("roles", json!("data,"))], [ROLES, "small letters"]),
        (vec![annotation("roles", json!("$(X)"))], [ROLES, "small letters"]),
        (vec![annotation("roles", json!("data, data"))], [ROLES, "twice"]),
        (vec![annotation("ports", json!(""))], [PORTS, "http:8080=8081"]),
        (vec![annotation("ports", json!("8080"))], ["\"8080\"", "http:8080=8081"]),
        (
            vec![annotation("ports", json!("http:10.0.0.7:8080=8081"))],
            ["10.0.0.7", "http:8080=8081"],
        ),
        (
            vec![annotation("ports", json!("8080=0.0.0.0:8081"))],
            ["0.0.0.0:8081", "127.0.0.1"],
        ),
        (
            vec![annotation("ports", json!("8080=1, http:8080=2"))],
            ["port 8080", "twice"],
        ),
        (
            vec![annotation("container", json!("web"))],
            ["no container web", CONTAINER],
        ),
        (vec![two.clone()], ["shop, backup", CONTAINER]),
        (vec![container("command", Value::Null)], ["\"shop:1\"", "set command"]),
        (
            vec![
                container("command", json!([])),
                container("args", json!([])),
                container("image", json!("empty:1")),
            ],
            ["\"empty:1\"", "set command"],
        ),
        (vec![("/spec/hostNetwork", json!(true))], ["hostNetwork", "leave"]),
        (
            vec![("/spec/shareProcessNamespace", json!(true))],
            ["shareProcessNamespace", "leave"],
        ),
        (vec![("/spec/hostPID", json!(true))], ["hostPID", "leave"]),
        (vec![("/spec/os", json!({ "name": "windows" }))], ["windows", "linux"]),
        (
            vec![container("ports", json!([{ "containerPort": 9090 }]))],
            ["9090", AROUND],
        ),
        (
            vec![container("ports", json!([{ "containerPort": 8081 }]))],
            ["8081", PORTS],
        ),
        (
            vec![container("ports", json!([{ "containerPort": 53, "protocol": "UDP" }]))],
            ["UDP", AROUND],
        ),
        (
            vec![
                chosen.clone(),
                (
                    "/spec/containers/-",
                    json!({ "name": "proxy", "ports": [{ "containerPort": 8080 }] }),
                ),
            ],
            ["container proxy", AROUND],
        ),
        (
            vec![(
                "/spec/initContainers",
                json!([{ "name": "mesh", "restartPolicy": "Always", "ports": [{ "containerPort": 1 }] }]),
            )],
            ["container mesh", AROUND],
        ),
        (
            vec![
                chosen,
                (
                    "/spec/containers/-",
                    sharing(json!({ "name": "data", "mountPath": "/d" })),
                ),
            ],
            ["volume data", "readOnly"],
        ),
        (
            vec![(
                "/spec/initContainers",
                json!([sharing(json!({ "name": "data", "mountPath": "/d" }))]),
            )],
            ["container backup", AROUND],
        ),
        (
            // The volume of a StatefulSet's claim.
            vec![
                ("/spec/volumes", json!([])),
                (
                    "/spec/initContainers",
                    json!([sharing(json!({ "name": "data", "mountPath": "/d" }))]),
                ),
            ],
            ["volume data", "readOnly"],
        ),
        (
            vec![container(
                "lifecycle",
                json!({ "postStart": { "exec": { "command": ["x"] } } }),
            )],
            ["postStart", "init container"],
        ),
        (
            vec![container("livenessProbe", json!({ "exec": { "command": ["x"] } }))],
            ["livenessProbe", "httpGet"],
        ),
        (
            vec![container("startupProbe", json!({ "grpc": { "port": 8080 } }))],
            ["startupProbe", "tcpSocket"],
        ),
        (
            vec![container(
                "livenessProbe",
                json!({ "httpGet": { "port": 8080, "scheme": "HTTPS" } }),
            )],
            ["HTTPS", "tcpSocket"],
        ),
        (
            vec![container("livenessProbe", json!({ "httpGet": { "port": 9090 } }))],
            ["port 9090", PORTS],
        ),
        (
            vec![container("livenessProbe", json!({ "tcpSocket": { "port": "no" } }))],
            ["port no", PORTS],
        ),
        (
            vec![container("readinessProbe", json!({ "tcpSocket": { "port": "http" } }))],
            ["readinessProbe", "httpGet"],
        ),
        (
            vec![container("env", json!([{ "name": "POD_UID", "value": "x" }]))],
            ["variable POD_UID", "another name"],
        ),
        (
            vec![("/spec/volumes/-", json!({ "name": "leeward-gate", "emptyDir": {} }))],
            ["volume leeward-gate", "another name"],
        ),
        (
            vec![("/spec/initContainers", json!([{ "name": "leeward-gate" }]))],
            ["container leeward-gate", "another name"],
        ),
        (
            vec![container(
                "volumeMounts",
                json!([{ "name": "data", "mountPath": "/var/run/leeward/gate/" }]),
            )],
            ["/var/run/leeward/gate", "another name"],
        ),
        (vec![("/spec", json!({ "containers": 7 }))], ["no pod", "spec"]),
        (vec![("/spec", Value::Null)], ["no pod", "spec"]),
        (
            vec![("/metadata", json!({ "annotations": { APP: 7 } }))],
            ["no pod", "annotations"],
        ),
    ]
}

#[test]
fn what_cannot_be_held_is_refused_with_what_to_write() {
    for (changes, expected) in refused() {
        let error = behind(&changed(&changes), &with()).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{changes:?}: {error}");
        }
    }
}
