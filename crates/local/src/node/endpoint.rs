//! The node's own HTTP endpoint: logs for the API, freeze and thaw for the mirror of volumes.
//!
//! Plain HTTP on a loopback address, with a bearer token that only the region's own processes can read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::Node;
use super::freeze;
use super::log;

/// The routes of the endpoint.
pub(super) fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs))
        .route("/freeze", post(freeze_pods))
        .route("/thaw", post(thaw))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&node), authenticate))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(node)
}

async fn authenticate(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = given
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    if same(token.as_bytes(), node.token.as_bytes()) {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, "a bearer token of this region is needed\n").into_response()
    }
}

/// Compares in a time that does not depend on where the first difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogQuery {
    #[serde(default)]
    follow: Option<String>,
    #[serde(default)]
    previous: Option<String>,
    #[serde(default)]
    timestamps: Option<String>,
    tail_lines: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<usize>,
}

fn flag(value: Option<&String>) -> bool {
    value.is_some_and(|value| value == "true" || value == "1")
}

impl LogQuery {
    fn select(&self, now: Timestamp) -> log::Query {
        let seconds = self
            .since_seconds
            .and_then(|seconds| now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok());
        log::Query {
            tail: self.tail_lines.and_then(|lines| usize::try_from(lines).ok()),
            since: self.since_time.or(seconds),
            timestamps: flag(self.timestamps.as_ref()),
        }
    }
}

async fn logs(
    State(node): State<Arc<Node>>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Response {
    let Some(pod) = node.pod_named(&namespace, &name) else {
        return (
            StatusCode::NOT_FOUND,
            format!("the pod {namespace}/{name} is not on this node\n"),
        )
            .into_response();
    };
    if !pod.containers().contains(&container) {
        let text = format!("container {container} is not valid for pod {name}\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let previous = flag(query.previous.as_ref());
    let (attempt, log) = match pod.log(&container, previous) {
        Ok(found) => found,
        Err(why) => return (StatusCode::BAD_REQUEST, why + "\n").into_response(),
    };
    let path = log::path(&pod.dir, &container, attempt);
    let select = query.select(Timestamp::now());
    // Before the file is read, so that nothing falls between reading and waiting.
    let changes = log.map(|log| log.changes());
    let (file, wanted) = (path.clone(), select.clone());
    let read = tokio::task::spawn_blocking(move || {
        let size = std::fs::metadata(&file).map(|metadata| metadata.len())?;
        Ok::<_, std::io::Error>((size, log::read_up_to(&file, size, &wanted)?))
    });
    let (size, mut text) = match read.await {
        Ok(Ok(read)) => read,
        _ => return (StatusCode::NOT_FOUND, "the log is gone\n").into_response(),
    };
    if let Some(limit) = query.limit_bytes {
        text.truncate(limit);
    }
    let content = [(header::CONTENT_TYPE, "text/plain")];
    match changes.filter(|_| flag(query.follow.as_ref())) {
        None => (content, text).into_response(),
        Some(changes) => (content, Body::from_stream(follow(path, size, text, changes, select))).into_response(),
    }
}

/// What is there, then what comes, until the container has ended.
fn follow(
    path: std::path::PathBuf,
    size: u64,
    text: Vec<u8>,
    changes: watch::Receiver<u64>,
    select: log::Query,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    let select = log::Query {
        tail: None,
        since: None,
        ..select
    };
    let start = (Some(text), size, changes, true);
    stream::unfold(start, move |(first, mut at, mut changes, open)| {
        let (path, select) = (path.clone(), select.clone());
        async move {
            if let Some(text) = first {
                return Some((Ok(Bytes::from(text)), (None, at, changes, open)));
            }
            let mut open = open;
            while open {
                open = changes.changed().await.is_ok();
                let bytes = read_from(&path, at).await.ok()?;
                // A smaller file is a new one: the old was put aside.
                let (bytes, next) = match bytes {
                    Some(bytes) => {
                        let next = at + bytes.len() as u64;
                        (bytes, next)
                    }
                    None => {
                        let bytes = read_from(&path, 0).await.ok()?.unwrap_or_default();
                        let next = bytes.len() as u64;
                        (bytes, next)
                    }
                };
                at = next;
                if !bytes.is_empty() {
                    return Some((Ok(Bytes::from(log::select(&bytes, &select))), (None, at, changes, open)));
                }
            }
            None
        }
    })
}

/// The bytes from `at` on; none when the file is shorter than that.
async fn read_from(path: &std::path::Path, at: u64) -> std::io::Result<Option<Vec<u8>>> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let mut file = tokio::fs::File::open(path).await?;
    if file.metadata().await?.len() < at {
        return Ok(None);
    }
    file.seek(std::io::SeekFrom::Start(at)).await?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).await?;
    // Only whole records; the rest is read next time.
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    Ok(Some(bytes))
}

#[derive(Debug, Deserialize)]
struct Freeze {
    pods: Vec<String>,
    max_ms: u64,
}

async fn freeze_pods(State(node): State<Arc<Node>>, Json(request): Json<Freeze>) -> Response {
    let mut roots = Vec::new();
    for uid in &request.pods {
        let Some(pod) = node.pod(uid) else {
            let text = json!({"error": format!("the pod {uid} is not on this node")});
            return (StatusCode::NOT_FOUND, Json(text)).into_response();
        };
        roots.extend(pod.running().iter().map(|running| running.pid));
    }
    let time = Duration::from_millis(request.max_ms).min(freeze::MAX);
    match node.freezer.freeze(roots, time).await {
        Ok(token) => Json(json!({"token": token})).into_response(),
        Err(error) => (StatusCode::CONFLICT, Json(json!({"error": error.to_string()}))).into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct Thaw {
    token: String,
}

async fn thaw(State(node): State<Arc<Node>>, Json(request): Json<Thaw>) -> Response {
    Json(json!({"held": node.freezer.thaw(&request.token)})).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"abc", b"ab"));
    }

    #[tokio::test]
    async fn only_whole_records_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("0.log");
        std::fs::write(&file, b"one\ntwo\nhal").unwrap();
        assert_eq!(read_from(&file, 4).await.unwrap(), Some(b"two\n".to_vec()));
        assert_eq!(read_from(&file, 100).await.unwrap(), None);
    }
}
