//! An API server in a directory of its own, and ways to speak to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use leeward_local::apiserver::{Config, Error, Server};
use leeward_local::instance::pki::Authority;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

pub(crate) const TOKEN: &str = "secret";

/// The files of a region; the server comes and goes.
pub(crate) struct Region {
    dir: TempDir,
}

impl Region {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tokens = json!([{"token": TOKEN, "user": "admin", "groups": ["system:masters"]}]);
        std::fs::write(dir.path().join("tokens.json"), tokens.to_string()).unwrap();
        std::fs::write(dir.path().join("kubelet.token"), "kubelet\n").unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            region: "west".into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: self.path("data"),
            tls_cert: self.path("api.crt"),
            tls_key: self.path("api.key"),
            ca_cert: Some(self.path("ca.crt")).filter(|path| path.exists()),
            tokens: self.path("tokens.json"),
            kubelet_token: self.path("kubelet.token"),
            service_cidr: "127.7.24.0/22".into(),
        }
    }

    pub(crate) async fn open(&self) -> Server {
        Server::open(self.config()).await.unwrap()
    }

    pub(crate) async fn try_open(&self) -> Result<Server, Error> {
        Server::open(self.config()).await
    }

    /// Certificate, key and a kubeconfig for `address`.
    pub(crate) fn write_kubeconfig(&self, address: SocketAddr) -> PathBuf {
        if !self.path("ca.crt").exists() {
            let authority = Authority::new("test").unwrap();
            let api = authority
                .issue("kube-apiserver", &["localhost"], &[address.ip()])
                .unwrap();
            std::fs::write(self.path("ca.crt"), authority.certificate()).unwrap();
            std::fs::write(self.path("api.crt"), &api.certificate).unwrap();
            std::fs::write(self.path("api.key"), &api.key).unwrap();
        }
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "west",
            "clusters": [{"name": "west", "cluster": {"server": format!("https://{address}"),
                "certificate-authority": self.path("ca.crt")}}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "west", "context": {"cluster": "west", "user": "admin"}}],
        });
        let file = self.path("kubeconfig");
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        file
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }
}

/// Sends one request and returns status and body.
pub(crate) async fn send(server: &Server, request: Request<Body>) -> (StatusCode, Value) {
    let response = server.router().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// A request as the admin.
pub(crate) fn request(method: Method, path: &str, content_type: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", content_type)
        .header("user-agent", "test/1")
        .body(body.into())
        .unwrap()
}

pub(crate) async fn get(server: &Server, path: &str) -> (StatusCode, Value) {
    send(server, request(Method::GET, path, "application/json", Body::empty())).await
}

pub(crate) async fn post(server: &Server, path: &str, body: &Value) -> (StatusCode, Value) {
    send(
        server,
        request(Method::POST, path, "application/json", body.to_string()),
    )
    .await
}

pub(crate) async fn put(server: &Server, path: &str, body: &Value) -> (StatusCode, Value) {
    send(server, request(Method::PUT, path, "application/json", body.to_string())).await
}

pub(crate) async fn patch(server: &Server, path: &str, media: &str, body: &Value) -> (StatusCode, Value) {
    send(server, request(Method::PATCH, path, media, body.to_string())).await
}

pub(crate) async fn delete(server: &Server, path: &str, body: &Value) -> (StatusCode, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    send(server, request(Method::DELETE, path, "application/json", body)).await
}

/// A watch, read event by event.
pub(crate) struct Watch {
    body: Body,
    rest: Vec<u8>,
}

impl Watch {
    pub(crate) async fn open(server: &Server, path: &str) -> Self {
        let response = server
            .router()
            .oneshot(request(Method::GET, path, "application/json", Body::empty()))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Self {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }

    /// The next event; `None` once the server ended the watch.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(std::time::Duration::from_secs(20), self.body.frame());
            let frame = frame.await.expect("an event within 20 s")?.unwrap();
            self.rest.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d));
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn next_brief(&mut self) -> Option<(String, String)> {
        let event = self.next().await?;
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Some((text("/type"), text("/object/metadata/name")))
    }
}

pub(crate) fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"v": value}}, "data": {"k": value}})
}

pub(crate) fn pod(name: &str, node: Option<&str>) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "a", "image": "a:1"}]}});
    if let Some(node) = node {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

pub(crate) fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "a", "image": "a:1"}]}}}})
}

/// Waits until a path answers with the status.
pub(crate) async fn until(server: &Server, path: &str, wanted: StatusCode) -> Value {
    // A watch on everything that changes would be exact; the path's own kind is not known here, so it is asked again.
    for _ in 0..2000 {
        let (status, body) = get(server, path).await;
        if status == wanted {
            return body;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{path} does not become {wanted}");
}
