//! Plain HTTP for who looks from outside. It is not for users: few connections, one request on each, and none lasts long.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, http::Method};
use hyper::{Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Observed;

/// Connections at the same time; further ones wait in the kernel's queue.
const AT_ONCE: usize = 8;
/// How long one may last.
const LONGEST: Duration = Duration::from_secs(10);
/// What Prometheus takes the page for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until `stop`.
pub async fn run(listener: TcpListener, observed: Arc<dyn Observed>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "who asks for metrics could not be accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let observed = Arc::clone(&observed);
        tokio::spawn(async move {
            let _place = place;
            // Who is slow or goes away asks again.
            let _ = timeout(LONGEST, serve(stream, observed)).await;
        });
    }
}

async fn serve(stream: TcpStream, observed: Arc<dyn Observed>) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let observed = Arc::clone(&observed);
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), observed).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(method: &Method, path: &str, observed: Arc<dyn Observed>) -> Response<Body> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered here\n".to_owned(),
        );
    }
    match path {
        "/metrics" => page(observed).await,
        "/livez" => verdict(observed.alive()),
        "/readyz" => verdict(observed.ready()),
        _ => text(
            StatusCode::NOT_FOUND,
            "here are /metrics, /livez and /readyz\n".to_owned(),
        ),
    }
}

/// The page, read where it holds up nobody's request: with many applications it takes some milliseconds.
async fn page(observed: Arc<dyn Observed>) -> Response<Body> {
    match tokio::task::spawn_blocking(move || observed.metrics()).await {
        Ok(Ok(page)) => {
            let mut response = text(StatusCode::OK, page);
            let kind = header::HeaderValue::from_static(OPEN_METRICS);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        _ => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the page could not be written\n".to_owned(),
        ),
    }
}

fn verdict(verdict: Result<(), String>) -> Response<Body> {
    match verdict {
        Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
