//! The way of one request: which endpoints are tried, in which order, and what the client is told.
//!
//! Rules:
//! - A request that is safe to repeat (GET, HEAD or OPTIONS without a body) is tried at the next endpoint at once when
//!   it was not delivered, broke off before the answer, took longer than a try may, or was answered 502, 503 or 504.
//!   Every endpoint is tried at most once, and all within the profile's time.
//! - Any other is tried again only when it is certain that no application saw it: the connection could not be opened,
//!   or the other edge said `not-delivered`.
//! - For a profile with a writer a local pod is asked only with the admission's grant, and what it answers is let out
//!   only while the grant of that epoch stands (see [`super::pass`]).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use leeward_core::{
    name::ClusterName,
    routing::{Endpoint, Profile, route},
};
use tokio::time::{Instant, timeout_at};

use super::{
    Limits,
    answer::{Outcome, own},
    body::{Answer, Source},
    connection::Passes,
    origin::Origins,
    request::{Head, Sender},
};
use crate::{Shared, counters::count, header};

mod tries;

/// A body up to this many bytes is read before the first try, so that a request that was not delivered can be sent
/// elsewhere whole.
const HELD_BODY: u64 = 64 << 10;

/// Answers requests by the shared table.
pub(super) struct Forwarder {
    shared: Arc<Shared>,
    origins: Origins,
    body_timeout: Duration,
    cluster: HeaderValue,
}

/// A request on its way.
struct Journey<'a> {
    head: Head,
    body: Source,
    safe: bool,
    deadline: Instant,
    passes: &'a Arc<Passes>,
    random: u64,
}

/// What a try gave.
enum Try {
    /// An answer of the application, or of the other edge where it is final.
    Answer(Response<Answer>),
    /// An answer that a request which is safe to repeat need not take while others are left.
    Poor(Response<Answer>),
    /// No application saw the request.
    NotDelivered(String),
    /// An application may have seen it.
    Unknown(StatusCode, String),
}

impl Forwarder {
    pub(super) fn new(shared: Arc<Shared>, limits: &Limits) -> Self {
        let cluster = HeaderValue::from_str(shared.cluster().as_str());
        Self {
            shared,
            origins: Origins::new(limits.connect_timeout),
            body_timeout: limits.head_timeout,
            cluster: cluster.unwrap_or_else(|_| HeaderValue::from_static("unnamed")),
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Answers one request of a client's connection.
    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        passes: &Arc<Passes>,
    ) -> Response<Answer> {
        let head = match Head::read(&mut request, peer) {
            Ok(head) => head,
            Err(error) => {
                count(&self.shared.counters().requests);
                count(&self.shared.counters().rejected);
                return self.own(error.status(), Outcome::NotDelivered, error.to_string());
            }
        };
        let id = head.headers.get(header::REQUEST_ID).cloned();
        let mut response = self.answer_head(head, request.into_body(), passes).await;
        if let Some(id) = id {
            response.headers_mut().entry(header::REQUEST_ID).or_insert(id);
        }
        response
    }

    async fn answer_head(&self, head: Head, body: Incoming, passes: &Arc<Passes>) -> Response<Answer> {
        let (counters, began) = (self.shared.counters(), Instant::now());
        if head.sender != Sender::Probe {
            count(&counters.requests);
        }
        if head.sender == Sender::Edge {
            count(&counters.forwarded_in);
        }
        let Some(profile) = self.shared.index().profile(head.host()).cloned() else {
            count(&counters.rejected);
            let text = format!(
                "no application is served for host {}. Check the Host header, and the hosts of the ProtectedApp",
                head.host()
            );
            return self.own(StatusCode::NOT_FOUND, Outcome::NotDelivered, text);
        };
        if head.sender == Sender::Probe {
            return self.answer_probe(&profile, head, passes).await;
        }
        let safe = head.safe_method() && body.is_end_stream();
        let limit = if safe {
            profile.timing.safe_ms
        } else {
            profile.timing.unsafe_ms
        };
        let deadline = Instant::now() + Duration::from_millis(limit);
        let body = match self.hold(body).await {
            Ok(body) => body,
            Err(text) => {
                count(&counters.rejected);
                return self.own(StatusCode::REQUEST_TIMEOUT, Outcome::NotDelivered, text);
            }
        };
        let journey = Journey {
            head,
            body,
            safe,
            deadline,
            passes,
            random: rand::random(),
        };
        let response = match journey.head.sender {
            Sender::Client => {
                let response = self.travel(&journey, profile.clone()).await;
                let own = response.headers().contains_key(header::OUTCOME);
                let by = response.headers().get(header::CLUSTER).filter(|_| !own);
                let by = by.and_then(|by| by.to_str().ok());
                let status = response.status().as_u16();
                self.shared.answers().count(&profile, by, status, began.elapsed());
                response
            }
            _ => {
                let result = self.try_local(&journey, &profile, false).await;
                self.conclude(result, &journey)
            }
        };
        let counter = match response.headers().get(header::OUTCOME).map(HeaderValue::as_bytes) {
            None => &counters.answered,
            Some(b"not-delivered") => &counters.not_delivered,
            Some(_) => &counters.unknown,
        };
        count(counter);
        response
    }

    /// Reads a small body whole; leaves a large or endless one with the client.
    async fn hold(&self, body: Incoming) -> Result<Source, &'static str> {
        if body.is_end_stream() {
            return Ok(Source::Whole(Bytes::new()));
        }
        if body.size_hint().upper().is_none_or(|size| size > HELD_BODY) {
            return Ok(Source::stream(body));
        }
        match timeout_at(Instant::now() + self.body_timeout, body.collect()).await {
            Ok(Ok(whole)) => Ok(Source::Whole(whole.to_bytes())),
            _ => Err("the request's body did not arrive whole and in time"),
        }
    }

    /// Tries endpoint after endpoint. The table is read anew for each try, so that a writer that moves meanwhile is
    /// found.
    async fn travel(&self, journey: &Journey<'_>, mut profile: Arc<Profile>) -> Response<Answer> {
        let mut tried: Vec<ClusterName> = Vec::new();
        let mut last = Try::NotDelivered("no endpoint can answer now".to_owned());
        loop {
            if !tried.is_empty() {
                match self.shared.index().profile(journey.head.host()) {
                    Some(newest) => profile = newest.clone(),
                    None => break,
                }
            }
            let Some(endpoint) = self.next(&profile, &tried, journey.random) else {
                break;
            };
            if !tried.is_empty() {
                count(&self.shared.counters().retries);
            }
            tried.push(endpoint.cluster.clone());
            let more = self.next(&profile, &tried, journey.random).is_some();
            let result = if endpoint.cluster == *self.shared.cluster() {
                self.try_local(journey, &profile, more).await
            } else {
                self.try_remote(journey, &profile, endpoint, more).await
            };
            let again = match &result {
                Try::Answer(_) => false,
                Try::Poor(_) | Try::Unknown(..) => journey.safe,
                Try::NotDelivered(_) => journey.body.untouched(),
            };
            // What is known of an earlier try is not made less certain by one that never left.
            last = match (last, result) {
                (earlier @ (Try::Poor(_) | Try::Unknown(..)), Try::NotDelivered(_)) => earlier,
                (_, result) => result,
            };
            if !again || Instant::now() >= journey.deadline {
                break;
            }
        }
        self.conclude(last, journey)
    }

    fn next<'a>(&self, profile: &'a Profile, tried: &[ClusterName], random: u64) -> Option<&'a Endpoint> {
        let local = self.shared.cluster();
        let backends = self.shared.backends();
        let healthy = |cluster: &ClusterName| {
            self.shared.health().usable(cluster, &profile.app)
                && (cluster != local || !backends.of(&profile.app).is_empty())
        };
        route(profile, healthy, local, tried, random)
    }

    /// What the client is told in the end.
    fn conclude(&self, result: Try, journey: &Journey<'_>) -> Response<Answer> {
        match result {
            Try::Answer(response) | Try::Poor(response) => response,
            Try::NotDelivered(text) => {
                let text = format!("not delivered, safe to send again: {text}");
                self.own(StatusCode::SERVICE_UNAVAILABLE, Outcome::NotDelivered, text)
            }
            Try::Unknown(status, text) => {
                let advice = if journey.safe {
                    "safe to send again"
                } else {
                    "it may have had effect; ask before you repeat it"
                };
                self.own(status, Outcome::Unknown, format!("outcome unknown, {advice}: {text}"))
            }
        }
    }

    /// A probe along the whole path: whether a local pod answers. The body is not passed on, since a region that may
    /// not answer for a writer must not let its data out this way.
    async fn answer_probe(&self, profile: &Profile, head: Head, passes: &Arc<Passes>) -> Response<Answer> {
        if !head.safe_method() || head.path.as_str() != profile.probe.path {
            let text = format!("a probe of {} is a GET of {}", profile.app, profile.probe.path);
            return self.own(StatusCode::BAD_REQUEST, Outcome::NotDelivered, text);
        }
        let journey = Journey {
            head,
            body: Source::Whole(Bytes::new()),
            safe: true,
            deadline: Instant::now() + Duration::from_millis(profile.probe.timeout_ms),
            passes,
            random: rand::random(),
        };
        let anybody = Profile {
            writer: None,
            ..profile.clone()
        };
        let mut response = match self.try_local(&journey, &anybody, false).await {
            Try::Answer(answer) | Try::Poor(answer) => {
                let (parts, body) = answer.into_parts();
                // Read to its end if it is short, so that the connection can be used again.
                let _ = timeout_at(journey.deadline, Limited::new(body, 64 << 10).collect()).await;
                let mut response = Response::new(Answer::Text(None));
                *response.status_mut() = parts.status;
                response.headers_mut().insert(header::CLUSTER, self.cluster.clone());
                response
            }
            failed => self.conclude(failed, &journey),
        };
        response
            .headers_mut()
            .insert(header::ADMISSION, HeaderValue::from_static("not-asked"));
        response
    }

    fn own(&self, status: StatusCode, outcome: Outcome, text: impl Into<String>) -> Response<Answer> {
        let mut response = own(status, outcome, text);
        response.headers_mut().insert(header::CLUSTER, self.cluster.clone());
        response
    }
}
