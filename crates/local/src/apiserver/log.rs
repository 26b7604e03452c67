//! Pod logs, from the endpoint of the pod's node.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::call::Call;
use super::object;
use super::status::Failure;
use crate::machinery::{FieldError, Reason};

/// Parameters that the node's endpoint knows.
const PASSED: [&str; 7] = [
    "follow",
    "tailLines",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "limitBytes",
];

/// Plain HTTP to the nodes of this machine.
pub(crate) type NodeClient = Client<HttpConnector, http_body_util::Empty<bytes::Bytes>>;

pub(crate) fn node_client() -> NodeClient {
    Client::builder(TokioExecutor::new()).build_http()
}

impl Call {
    /// Refuses options that say nothing sensible.
    fn check_options(&self) -> Result<(), Failure> {
        let mut errors = Vec::new();
        for (key, least, why) in [
            ("tailLines", 0, "must be greater than or equal to 0"),
            ("limitBytes", 1, "must be greater than 0"),
            ("sinceSeconds", 1, "must be greater than 0"),
        ] {
            let Some(text) = self.query.get(key) else { continue };
            let number: i64 = text
                .parse()
                .map_err(|_| Failure::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))?;
            if number < least {
                errors.push(FieldError {
                    field: key.into(),
                    reason: Reason::Invalid,
                    message: format!("Invalid value: {number}: {why}"),
                });
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        let mut kind = self.resource.kind.clone();
        kind.kind = "PodLogOptions".into();
        Err(Failure::invalid(&kind, &self.name, &errors))
    }

    /// `GET` of a pod's log.
    pub(crate) async fn log(&self) -> Result<Response, Failure> {
        let pod = self.get()?;
        self.check_options()?;
        let container = chosen_container(&pod, self.query.get("container"))?;
        let node = object::str_at(&pod, "/spec/nodeName");
        if node.is_empty() {
            let message = format!("pod {} does not have a host assigned", self.name);
            return Err(Failure::bad_request(message));
        }
        let id = super::store::Id {
            resource: "nodes".into(),
            namespace: String::new(),
            name: node.to_owned(),
        };
        let found = self.app.store.get(&id).and_then(|node| endpoint(&node));
        let authority = found.ok_or_else(|| Failure::internal(format!("node {node} has no kubelet endpoint")))?;
        let mut parameters: Vec<String> = PASSED
            .iter()
            .filter_map(|key| self.query.get(key).map(|value| format!("{key}={}", encode(value))))
            .collect();
        if self.query.flag("follow") {
            parameters.retain(|p| !p.starts_with("follow="));
            parameters.push("follow=true".into());
        }
        let uri = format!(
            "http://{authority}/containerLogs/{}/{}/{container}?{}",
            self.namespace,
            self.name,
            parameters.join("&")
        );
        let token = format!("Bearer {}", self.app.kubelet_token);
        let request = Request::get(&uri)
            .header(header::AUTHORIZATION, token)
            .body(http_body_util::Empty::new());
        let request = request.map_err(|e| Failure::internal(e.to_string()))?;
        let answer = self
            .app
            .nodes
            .request(request)
            .await
            .map_err(|e| Failure::internal(format!("Get \"{uri}\": the node does not answer: {e}")))?;
        let status = answer.status();
        if !status.is_success() {
            let text = answer
                .into_body()
                .collect()
                .await
                .map(|b| b.to_bytes())
                .unwrap_or_default();
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            return Err(match status {
                StatusCode::BAD_REQUEST => Failure::bad_request(text),
                StatusCode::NOT_FOUND => Failure::new(404, "NotFound", text),
                _ => Failure::internal(text),
            });
        }
        let mut response = Response::new(Body::new(answer.into_body()));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }
}

fn encode(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    value
        .bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

fn endpoint(node: &Value) -> Option<String> {
    let addresses = node.pointer("/status/addresses")?.as_array()?;
    let internal = addresses.iter().find(|a| object::str_at(a, "/type") == "InternalIP")?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port")?.as_u64()?;
    Some(format!("{}:{port}", object::str_at(internal, "/address")))
}

/// The container asked for, or the only one.
pub(super) fn chosen_container(pod: &Value, asked: Option<&str>) -> Result<String, Failure> {
    let names = |pointer: &str| -> Vec<&str> {
        let list = pod.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().map(|c| object::str_at(c, "/name")).collect()
    };
    let (containers, init) = (names("/spec/containers"), names("/spec/initContainers"));
    let pod_name = object::name(pod);
    match (asked, containers.as_slice()) {
        (Some(asked), _) if containers.contains(&asked) || init.contains(&asked) => Ok(asked.to_owned()),
        (Some(asked), _) => Err(Failure::bad_request(format!(
            "container {asked} is not valid for pod {pod_name}"
        ))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, _) => {
            let all = [init, containers].concat().join(" ");
            Err(Failure::bad_request(format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{all}]"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{chosen_container, endpoint};

    #[test]
    fn the_container_must_be_clear() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(chosen_container(&pod, Some("b")).unwrap(), "b");
        let message = chosen_container(&pod, None).unwrap_err().message;
        assert_eq!(
            message,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert!(chosen_container(&pod, Some("c")).is_err());
    }

    #[test]
    fn a_node_says_where_its_endpoint_is() {
        let node = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.1.19.10"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}});
        assert_eq!(endpoint(&node).unwrap(), "127.1.19.10:10250");
        assert_eq!(endpoint(&json!({})), None);
    }
}
