//! One try: sends a request to a pod or another edge over pooled connections, within a time, and says what is known of
//! a failure.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout_at};

use super::body::{Outgoing, Source};

/// Why a try gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It never left: safe to send elsewhere, whatever it is.
    #[error("could not connect: {0}")]
    NotDelivered(String),
    /// It was, or may have been, delivered.
    #[error("the connection broke before the answer: {0}")]
    Broken(String),
    /// It was, or may have been, delivered.
    #[error("no answer in time")]
    Late,
}

/// Connections to pods and other edges.
pub(super) struct Origins {
    client: Client<HttpConnector, Outgoing>,
}

impl Origins {
    pub(super) fn new(connect_timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(15))
            .pool_max_idle_per_host(256)
            .build(connector);
        Self { client }
    }

    /// Sends a request with a body of `source` and waits for the head of the answer, until `until`; where a body is
    /// streamed, for as long again whenever a part of it has gone meanwhile.
    pub(super) async fn send(
        &self,
        request: Request<Outgoing>,
        source: &Source,
        mut until: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        let patience = until.saturating_duration_since(Instant::now());
        let mut parts = source.parts();
        let mut answer = std::pin::pin!(self.client.request(request));
        loop {
            return match timeout_at(until, answer.as_mut()).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) if error.is_connect() => Err(Failure::NotDelivered(causes(&error))),
                Ok(Err(error)) => Err(Failure::Broken(causes(&error))),
                Err(_) if source.parts() > parts => {
                    parts = source.parts();
                    until = Instant::now() + patience;
                    continue;
                }
                Err(_) => Err(Failure::Late),
            };
        }
    }
}

/// The innermost cause: the client's own errors only name the phase.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
