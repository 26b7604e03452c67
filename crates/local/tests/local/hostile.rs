//! Requests made of arbitrary bytes, and what must hold after each: no panic, an object or a `Status` as the answer, and
//! what others stored is as it was. The fuzz target in `fuzz/` includes this file.

use std::path::Path;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use leeward_local::apiserver::{Config, Server};
use serde_json::{Value, json};
use tower::ServiceExt as _;

const METHODS: &[&str] = &[
    "POST", "PUT", "PATCH", "PATCH", "GET", "DELETE", "HEAD", "OPTIONS", "STRANGE",
];

/// `~` stands for a name, `^` for a namespace.
const PATHS: &[&str] = &[
    "/api/v1/namespaces/^/configmaps",
    "/api/v1/namespaces/^/configmaps/~",
    "/api/v1/namespaces/^/configmaps/~",
    "/api/v1/namespaces/^/secrets/~",
    "/api/v1/namespaces/^/services",
    "/api/v1/namespaces/^/services/~",
    "/api/v1/namespaces/^/services/~/status",
    "/api/v1/namespaces/^/pods",
    "/api/v1/namespaces/^/pods/~",
    "/api/v1/namespaces/^/pods/~/eviction",
    "/api/v1/namespaces/^/pods/~/binding",
    "/api/v1/namespaces/^/events/~",
    "/apis/events.k8s.io/v1/namespaces/^/events",
    "/apis/apps/v1/namespaces/^/deployments",
    "/apis/apps/v1/namespaces/^/deployments/~",
    "/apis/apps/v1/namespaces/^/deployments/~/scale",
    "/apis/apps/v1/namespaces/^/deployments/~/status",
    "/apis/coordination.k8s.io/v1/namespaces/^/leases/~",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/~",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/apis/strange.dev/v1/namespaces/^/things",
    "/apis/strange.dev/v1/namespaces/^/things/~",
    "/api/v1/namespaces/~",
    "/api/v1/namespaces/~/finalize",
    "/api/v1/nodes/~/status",
    "/api/v1/^/~",
    "/openapi/v3/^",
    "/^/~",
];

const NAMES: &[&str] = &[
    "a",
    "b",
    "things.strange.dev",
    "default",
    "A_b",
    "x.y",
    "%00",
    "..",
    "%2e%2e%2f",
];
const NAMESPACES: &[&str] = &["default", "default", "default", "kube-public", "missing", "B@d"];

const QUERIES: &[&str] = &[
    "dryRun=All",
    "dryRun=x",
    "fieldManager=m",
    "fieldManager=m",
    "fieldManager=%07",
    "force=true",
    "fieldValidation=Strict",
    "fieldValidation=Ignore",
    "labelSelector=a%3D%2C",
    "fieldSelector=metadata.name%3Da",
    "limit=1",
    "limit=-1",
    "continue=xx",
    "resourceVersion=7",
    "propagationPolicy=Orphan",
    "gracePeriodSeconds=0",
    "=&&&=%zz",
];

const TYPES: &[&str] = &[
    "application/json",
    "application/json",
    "application/yaml",
    "application/apply-patch+yaml",
    "application/apply-patch+yaml",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
    "application/vnd.kubernetes.protobuf",
    "text/plain",
];

/// Bodies that something is then done to.
const BODIES: &[&str] = &[
    r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","labels":{"x":"y"},"finalizers":["x/y"]},"data":{"k":"v"}}"#,
    r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"selector":{"a":"b"},"ports":[{"name":"p","port":80},{"name":"q","port":81,"protocol":"UDP"}]}}"#,
    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1"}},"ports":[{"containerPort":80}]}]}}"#,
    r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"replicas":0,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
    r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"a"},"spec":{"holderIdentity":"h","renewTime":"2026-01-01T00:00:00.000000Z"}}"#,
    r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.strange.dev"},"spec":{"group":"strange.dev","scope":"Namespaced","names":{"plural":"things","kind":"Thing"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"l":{"type":"array","items":{"type":"string"},"x-kubernetes-list-type":"set"},"n":{"type":"integer","default":3}}}}}}}]}}"#,
    r#"{"apiVersion":"strange.dev/v1","kind":"Thing","metadata":{"name":"a"},"spec":{"l":["a","b"],"n":7}}"#,
    r#"{"metadata":{"labels":{"x":null,"z":"1"},"managedFields":[{}]},"data":{"k":null}}"#,
    r#"{"spec":{"ports":[{"port":80,"$patch":"delete"},{"port":9}],"$setElementOrder/ports":[{"port":9}],"$retainKeys":["ports"]}}"#,
    r#"[{"op":"add","path":"/data","value":{}},{"op":"test","path":"/metadata/name","value":"a"},{"op":"copy","from":"/data","path":"/metadata/labels/-1"},{"op":"remove","path":"/metadata/finalizers/0"}]"#,
    r#"{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"u"},"propagationPolicy":"Foreground"}"#,
    "apiVersion: v1\nkind: ConfigMap\nmetadata: &m {name: a}\ndata:\n  k: |\n    v\n  l: *m\n",
];

/// Resources, and which of the bodies is one.
const FITTING: &[(&str, usize)] = &[
    ("configmaps", 0),
    ("services", 1),
    ("pods", 2),
    ("deployments", 3),
    ("leases", 4),
    ("customresourcedefinitions", 5),
    ("things", 6),
];

/// Decisions taken from bytes; zeros when they have run out.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.byte() % of.len()]
    }
}

fn request(data: &[u8]) -> Option<Request<Body>> {
    let mut choices = Choices(data);
    let method = choices.one(METHODS);
    let path = choices.one(PATHS);
    let path = path
        .replace('~', choices.one(NAMES))
        .replace('^', choices.one(NAMESPACES));
    let queries: Vec<&str> = (0..choices.byte() % 4).map(|_| choices.one(QUERIES)).collect();
    let (content_type, body) = match choices.byte() % 4 {
        0 => (choices.one(TYPES), choices.0.to_vec()),
        1 => {
            let body = choices.one(BODIES);
            (choices.one(TYPES), edited(body.into(), &mut choices))
        }
        // What fits, or nearly.
        _ => {
            let plural = path
                .split('/')
                .find_map(|part| FITTING.iter().find(|(plural, _)| *plural == part));
            let body = plural.map_or(BODIES[0], |(_, body)| BODIES[*body]);
            let content_type = if method == "PATCH" {
                "application/apply-patch+yaml"
            } else {
                "application/json"
            };
            let whole = choices.byte() % 2 == 0;
            let body = if whole {
                body.into()
            } else {
                edited(body.into(), &mut choices)
            };
            (content_type, body)
        }
    };
    Request::builder()
        .method(method)
        .uri(format!("{path}?{}", queries.join("&")))
        .header("authorization", "Bearer t")
        .header("content-type", content_type)
        .body(Body::from(body))
        .ok()
}

/// Cuts, changes and doubles parts of a body.
fn edited(mut body: Vec<u8>, choices: &mut Choices<'_>) -> Vec<u8> {
    for _ in 0..choices.byte() % 6 {
        if body.is_empty() {
            break;
        }
        let at = (choices.byte() << 8 | choices.byte()) % body.len();
        let length = choices.byte() % 32;
        let end = (at + length).min(body.len());
        match choices.byte() % 6 {
            0 => body.truncate(at),
            1 => body[at] = u8::try_from(choices.byte()).unwrap_or_default(),
            2 => drop(body.drain(at..end)),
            3 => {
                let part = body[at..end].to_vec();
                body.splice(at..at, part);
            }
            4 => drop(body.splice(at..end, choices.one(WORDS).bytes())),
            _ => drop(body.splice(at..at, choices.one(WORDS).bytes())),
        }
    }
    body
}

const WORDS: &[&str] = &[
    "null",
    "{}",
    "[]",
    "\"\"",
    "-1",
    "1e999",
    "99999999999999999999",
    "true",
    "\"a\":",
    ",",
    "\"\\u0000\"",
    "[[[[[[[[",
    "{\"a\":",
    "\u{feff}",
    "\"$patch\":\"replace\",",
    "\"metadata\":{\"resourceVersion\":\"1\"},",
    "\"deletionTimestamp\":\"2026-01-01T00:00:00Z\",",
];

/// A server over `directory`, which is filled when it is empty.
pub(crate) async fn open(directory: &Path) -> Server {
    let tokens = json!([{"token": "t", "user": "somebody", "groups": []}]);
    std::fs::write(directory.join("tokens.json"), tokens.to_string()).expect("the directory can be written");
    std::fs::write(directory.join("kubelet.token"), "k\n").expect("the directory can be written");
    let config = Config {
        region: "west".into(),
        address: ([127, 0, 0, 1], 1).into(),
        data_dir: directory.join("data"),
        tls_cert: directory.join("none.crt"),
        tls_key: directory.join("none.key"),
        ca_cert: None,
        tokens: directory.join("tokens.json"),
        kubelet_token: directory.join("kubelet.token"),
        service_cidr: "127.7.24.0/22".into(),
    };
    Server::open(config).await.expect("the store opens")
}

/// Sends the request that the bytes stand for, and checks the answer. The status; 0 where the bytes are no request.
pub(crate) async fn send(server: &Server, data: &[u8]) -> u16 {
    let Some(request) = request(data) else { return 0 };
    let shown = format!("{} {}", request.method(), request.uri());
    let head = request.method() == http::Method::HEAD;
    let response = server.router().oneshot(request).await.expect("the router answers");
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("the body ends").to_bytes();
    if head || bytes.starts_with(b"404 page not found") {
        return status;
    }
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        panic!(
            "{shown}: {status}, and no JSON: {error}: {}",
            String::from_utf8_lossy(&bytes)
        );
    });
    if status >= 400 {
        let told = body["message"].as_str().is_some_and(|message| !message.is_empty());
        assert!(
            body["kind"] == "Status" && body["code"] == status && told,
            "{shown}: {status}: {body}"
        );
    } else {
        assert!(
            body["kind"].is_string() || body["openapi"].is_string(),
            "{shown}: {status}: {body}"
        );
    }
    status
}

async fn read(server: &Server, method: &str, path: &str, body: &str) -> Value {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", "Bearer t")
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .expect("a request");
    let response = server.router().oneshot(request).await.expect("the router answers");
    let bytes = response.into_body().collect().await.expect("the body ends").to_bytes();
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Where the object is that no request of [`send`] names.
const KEPT: &str = "/api/v1/namespaces/kube-system/configmaps/kept";

/// Stores the object that nothing may touch; as it is stored.
pub(crate) async fn keep(server: &Server) -> Value {
    let body = r#"{"metadata": {"name": "kept"}, "data": {"k": "v"}}"#;
    read(server, "POST", KEPT.trim_end_matches("/kept"), body).await;
    let kept = read(server, "GET", KEPT, "").await;
    assert_eq!(kept["data"]["k"], "v");
    kept
}

/// Everything stored is whole, and the kept object is as it was.
pub(crate) async fn check(server: &Server, kept: &Value) {
    assert_eq!(read(server, "GET", KEPT, "").await, *kept);
    for path in [
        "/api/v1/configmaps",
        "/api/v1/services",
        "/api/v1/pods",
        "/api/v1/namespaces",
        "/apis/apps/v1/deployments",
    ] {
        let list = read(server, "GET", path, "").await;
        for item in list["items"].as_array().expect("a list") {
            for field in ["name", "uid", "resourceVersion", "creationTimestamp"] {
                let said = item["metadata"][field].as_str().is_some_and(|text| !text.is_empty());
                assert!(said, "{path}: {field}: {item}");
            }
        }
    }
}
