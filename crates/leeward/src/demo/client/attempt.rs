//! One request to one edge, and what its answer means.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::Outcome;

/// What the edge says about a write that it did not get an answer for: `not-delivered` or `unknown`.
const OUTCOME: &str = "leeward-outcome";

/// Answers are a few dozen bytes; more is no answer of the application.
const ANSWER_LIMIT: usize = 64 * 1024;

/// What became of one try of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// There was no connection, so nothing was delivered.
    Unreachable,
    /// The outcome.
    Outcome(Outcome),
}

#[derive(Deserialize)]
struct Body {
    n: Option<u64>,
    epoch: Option<u64>,
    cluster: Option<String>,
    offset: Option<u64>,
}

/// The connections to all edges.
pub(crate) struct Http {
    client: Client<HttpConnector, Empty<Bytes>>,
    host: Option<HeaderValue>,
}

impl Http {
    pub(crate) fn new(host: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self {
            client,
            host: HeaderValue::from_str(host).ok(),
        }
    }

    fn request(&self, method: Method, edge: SocketAddr, path: &str) -> Option<Request<Empty<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{edge}{path}"))
            .body(Empty::new())
            .ok()?;
        request.headers_mut().insert(HOST, self.host.clone()?);
        Some(request)
    }

    /// Reads at an edge. Some when it was answered, with the cluster that the answer names.
    pub(super) async fn read(&self, edge: SocketAddr) -> Option<Option<String>> {
        let response = self.client.request(self.request(Method::GET, edge, "/")?).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .ok()?
            .to_bytes();
        Some(serde_json::from_slice::<Body>(&body).ok().and_then(|body| body.cluster))
    }

    /// Sends write `n` to an edge.
    pub(crate) async fn write(&self, edge: SocketAddr, client: &str, n: u64) -> Answer {
        let Some(request) = self.request(Method::POST, edge, &format!("/writes/{client}/{n}")) else {
            return Answer::Outcome(Outcome::Refused);
        };
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Answer::Unreachable,
            Err(_) => return Answer::Outcome(Outcome::Unknown),
        };
        let (head, body) = response.into_parts();
        let body = match http_body_util::Limited::new(body, ANSWER_LIMIT).collect().await {
            Ok(body) => body.to_bytes(),
            // The head alone may be enough for a refusal; an acknowledgement without its body is none.
            Err(_) => Bytes::new(),
        };
        Answer::Outcome(outcome(n, head.status, &head.headers, &body))
    }
}

/// What an answer to write `n` means. Whatever is not certain is unknown.
pub(super) fn outcome(n: u64, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Outcome {
    match headers.get(OUTCOME).map(HeaderValue::as_bytes) {
        Some(b"not-delivered") => return Outcome::Refused,
        Some(_) => return Outcome::Unknown,
        None => {}
    }
    // The application's own word that it stored nothing: a request that it does not take, or no room for it.
    if status.is_client_error() || status == StatusCode::INSUFFICIENT_STORAGE {
        return Outcome::Refused;
    }
    match serde_json::from_slice(body) {
        Ok(Body {
            n: Some(answered),
            epoch: Some(epoch),
            cluster: Some(cluster),
            offset,
        }) if status.is_success() && answered == n => Outcome::Acknowledged { epoch, cluster, offset },
        _ => Outcome::Unknown,
    }
}
