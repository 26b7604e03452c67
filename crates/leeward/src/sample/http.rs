//! The sample's HTTP service: routes, readiness and the way it stops.
//!
//! Flow: bind, open the log, say that it is ready, serve until SIGTERM, let what is in flight finish for at most [`GRACE`], exit.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Settings;
use super::log::{Error, Log};
use super::record;

/// How long requests in flight may take after SIGTERM. The process is gone within 1 s.
const GRACE: Duration = Duration::from_millis(800);

struct Sample {
    settings: Settings,
    /// None when stateless.
    log: Option<Log>,
}

/// Serves until SIGTERM or SIGINT.
pub(super) async fn serve(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!(
            "cannot listen on {}: set POD_IP and PORT to an address of this pod that is free",
            settings.listen
        )
    })?;
    let listener = listener.tap_io(|stream| {
        // Without it the small answers of a log wait for the client's acknowledgement. Failing costs only latency.
        let _ = stream.set_nodelay(true);
    });
    let log = match &settings.data {
        None => None,
        Some(directory) => {
            let opened = Log::open(directory, &settings.cluster, settings.epoch)?;
            if opened.torn > 0 {
                println!(
                    "cut {} bytes of a torn last line off the log: no one was told that it was stored",
                    opened.torn
                );
            }
            Some(opened.log)
        }
    };
    let count = log.as_ref().map_or(0, |log| log.durable().count);
    println!(
        "{} epoch {}: {count} records, listening on {}",
        settings.cluster, settings.epoch, settings.listen
    );

    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let server = axum::serve(listener, router(Arc::new(Sample { settings, log }))).with_graceful_shutdown(async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    });
    let mut server = std::pin::pin!(server.into_future());
    tokio::select! {
        served = &mut server => return served.context("the server ended"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    println!("stopping: requests in flight have {} ms", GRACE.as_millis());
    let _ = stop.send(true);
    match tokio::time::timeout(GRACE, server).await {
        Ok(served) => served.context("the server ended"),
        Err(_) => Ok(()),
    }
}

fn router(sample: Arc<Sample>) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/healthz", get(health))
        .route("/writes", get(records))
        .route("/writes/{client}/{n}", post(write))
        .with_state(sample)
}

impl Sample {
    /// Says in headers who answered, so that an edge or `curl -i` sees it without reading the body.
    fn signed(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Ok(cluster) = HeaderValue::from_str(&self.settings.cluster) {
            headers.insert("x-cluster", cluster);
        }
        headers.insert("x-epoch", HeaderValue::from(self.settings.epoch));
        response
    }

    fn refused(&self, status: StatusCode, why: impl ToString) -> Response {
        self.signed((status, Json(json!({ "error": why.to_string() }))).into_response())
    }
}

async fn root(State(sample): State<Arc<Sample>>) -> Response {
    let Settings { cluster, epoch, .. } = &sample.settings;
    let count = sample.log.as_ref().map(|log| log.durable().count);
    sample.signed(Json(json!({ "cluster": cluster, "epoch": epoch, "count": count })).into_response())
}

/// The log was opened before the first request is answered, so answering at all is being ready.
async fn health(State(sample): State<Arc<Sample>>) -> Response {
    match sample.log.as_ref().and_then(Log::broken) {
        Some(why) => sample.refused(StatusCode::SERVICE_UNAVAILABLE, why),
        None => sample.signed("ok\n".into_response()),
    }
}

async fn write(State(sample): State<Arc<Sample>>, Path((client, n)): Path<(String, u64)>) -> Response {
    if let Err(error) = record::check_word(&client) {
        return sample.refused(StatusCode::BAD_REQUEST, error);
    }
    let Some(log) = &sample.log else {
        return sample.refused(
            StatusCode::METHOD_NOT_ALLOWED,
            "this instance has no volume: it only answers reads",
        );
    };
    match log.write(client, n).await {
        Ok(stored) => {
            let Settings { cluster, epoch, .. } = &sample.settings;
            let (offset, duplicate) = (stored.offset, stored.duplicate());
            let body = json!({ "n": n, "epoch": epoch, "cluster": cluster, "offset": offset, "duplicate": duplicate });
            sample.signed(Json(body).into_response())
        }
        Err(error @ Error::Append(_)) => sample.refused(StatusCode::INSUFFICIENT_STORAGE, error),
        Err(error @ Error::Superseded { .. }) => sample.refused(StatusCode::CONFLICT, error),
        Err(error) => sample.refused(StatusCode::SERVICE_UNAVAILABLE, error),
    }
}

async fn records(State(sample): State<Arc<Sample>>) -> Response {
    let Some(log) = &sample.log else {
        return sample.refused(StatusCode::NOT_FOUND, "this instance has no volume and so no records");
    };
    let length = log.durable().length;
    match tokio::fs::File::open(log.path()).await {
        Ok(file) => {
            let body = Body::from_stream(tokio_util::io::ReaderStream::new(file.take(length)));
            let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            sample.signed((kind, body).into_response())
        }
        Err(error) => sample.refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot read the log: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    fn app(data: Option<&std::path::Path>) -> Router {
        let listen = "127.0.0.1:0".parse().unwrap();
        let log = data.map(|data| Log::open(data, "west", 2).unwrap().log);
        let data = data.map(Into::into);
        router(Arc::new(Sample {
            settings: Settings {
                listen,
                cluster: "west".into(),
                epoch: 2,
                data,
            },
            log,
        }))
    }

    async fn ask(app: &Router, method: &str, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(
            response.headers().get("x-epoch").map(|value| value.as_bytes()),
            Some(&b"2"[..])
        );
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_write_is_acknowledged_with_epoch_cluster_and_offset_and_can_be_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(Some(directory.path()));
        let (status, body) = ask(&app, "POST", "/writes/c/7").await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            body,
            json!({ "n": 7, "epoch": 2, "cluster": "west", "offset": 0, "duplicate": false })
        );
        let (_, records) = ask(&app, "GET", "/writes").await;
        assert!(records.starts_with("c 7 2 west "), "{records}");
        let (_, root) = ask(&app, "GET", "/").await;
        let root: serde_json::Value = serde_json::from_str(&root).unwrap();
        assert_eq!(root, json!({ "cluster": "west", "epoch": 2, "count": 1 }));
        assert_eq!(ask(&app, "GET", "/healthz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn without_a_volume_reads_are_answered_and_writes_refused() {
        let app = app(None);
        assert_eq!(ask(&app, "GET", "/").await.0, StatusCode::OK);
        assert_eq!(ask(&app, "GET", "/healthz").await.0, StatusCode::OK);
        assert_eq!(ask(&app, "POST", "/writes/c/1").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(ask(&app, "GET", "/writes").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_client_name_that_would_break_the_log_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let app = app(Some(directory.path()));
        assert_eq!(ask(&app, "POST", "/writes/a%20b/1").await.0, StatusCode::BAD_REQUEST);
        assert_eq!(ask(&app, "POST", "/writes/a%0Ab/1").await.0, StatusCode::BAD_REQUEST);
    }
}
