//! What operations did, as traces for an OpenTelemetry collector: one trace an operation, with a span for each step that its journal has.
//!
//! Flow: the agent that the application moved to makes the trace once the operation has ended (`of`, pure) and puts it into a queue; one task
//! sends it by OTLP over HTTP. Nothing waits for the collector: what it does not take after some tries, or what the queue has no room for, is
//! dropped, and that is logged.
//!
//! A trace's and its spans' identifiers are derived from the operation, so that one that is sent twice, as after a restart, is the same.

use std::time::Duration;

use leeward_core::{
    name::{AppKey, ClusterName},
    operation::{Finished, Journal, Outcome},
};
use leeward_quorum::known::Known;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use ring::digest::{SHA256, digest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How many traces may wait.
const QUEUE: usize = 64;
/// How long the collector may take for one.
const ANSWER: Duration = Duration::from_secs(5);
/// How often one is sent before it is dropped.
const TRIES: u32 = 4;
/// How long an agent waits after the first try.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// The environment variables that name the collector, as the OpenTelemetry specification has them ("OpenTelemetry Protocol Exporter"): the
/// whole address for traces, and the one that the path of traces is put behind.
const NAMED: [(&str, &str); 2] = [
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"),
];

/// A collector's address that is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not where traces can be sent: it is http://HOST:PORT/v1/traces, of a collector in the cluster; TLS is not spoken to it"
)]
pub struct NotACollector(String);

/// Where traces are sent: as it was `said`, else as `variable` has it, which answers as `std::env::var(name).ok()` does. None where nothing is said.
///
/// # Errors
/// It is no address.
pub fn endpoint(
    said: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<reqwest::Url>, NotACollector> {
    let named = || {
        NAMED.into_iter().find_map(|(name, path)| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some(format!("{}{path}", value.trim_end_matches('/')))
        })
    };
    let Some(text) = said.map(str::to_owned).or_else(named) else {
        return Ok(None);
    };
    match reqwest::Url::parse(&text) {
        Ok(url) if url.scheme() == "http" && url.has_host() => Ok(Some(url)),
        _ => Err(NotACollector(text)),
    }
}

/// The queue; its task sends until the agent stops.
#[derive(Debug, Clone)]
pub struct Traces(mpsc::Sender<ExportTraceServiceRequest>);

impl Traces {
    /// A queue, and what empties it. `pause` is how long it waits after the first try that failed; each time twice as long.
    pub fn to(
        endpoint: reqwest::Url,
        pause: Duration,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), send(endpoint, pause, receiver, stop))
    }

    /// Puts those of applications into the queue of which an operation just ended that moved them to this cluster, `me`.
    pub(crate) fn ended(&self, me: &ClusterName, known: &Known, apps: &[AppKey]) {
        for situation in apps.iter().filter_map(|app| known.situation(app)) {
            let Some(plan) = situation.plan() else { continue };
            if let Some(finished) = plan.finished.as_ref().filter(|finished| finished.operation.to == *me) {
                // Once another one has begun, the journal is that one's.
                let journal = plan.operation.is_none().then_some(&situation.journal);
                self.put(of(me, &situation.app.value.key, finished, journal));
            }
        }
    }

    /// Puts one into the queue.
    pub(crate) fn put(&self, trace: ExportTraceServiceRequest) {
        if self.0.try_send(trace).is_err() {
            tracing::warn!("the trace of an operation is dropped: {QUEUE} others wait for the collector");
        }
    }
}

async fn send(
    endpoint: reqwest::Url,
    pause: Duration,
    mut traces: mpsc::Receiver<ExportTraceServiceRequest>,
    stop: CancellationToken,
) {
    let Ok(http) = reqwest::Client::builder().no_proxy().timeout(ANSWER).build() else {
        tracing::warn!("no trace is sent: there is no HTTP client");
        return;
    };
    let all = async {
        while let Some(trace) = traces.recv().await {
            one(&http, &endpoint, pause, trace.encode_to_vec()).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = all => {}
    }
}

async fn one(http: &reqwest::Client, endpoint: &reqwest::Url, mut pause: Duration, body: Vec<u8>) {
    for tried in 1..=TRIES {
        let request = http
            .post(endpoint.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/x-protobuf")
            .body(body.clone());
        let why = match request.send().await.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => return,
            // It will not be taken the next time either (OTLP specification, "OTLP/HTTP Response").
            Ok(status) if !matches!(status.as_u16(), 429 | 502..=504) => {
                tracing::warn!(%endpoint, %status, "the collector refused the trace of an operation; it is dropped");
                return;
            }
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if tried == TRIES {
            tracing::warn!(%endpoint, why, "the trace of an operation is dropped: the collector did not take it");
            return;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// The trace of an operation that ended. `journal` is its own, or none where another operation has begun since.
pub(crate) fn of(
    me: &ClusterName,
    app: &AppKey,
    finished: &Finished,
    journal: Option<&Journal>,
) -> ExportTraceServiceRequest {
    let operation = &finished.operation;
    let identity = format!("{app} {} {}", operation.epoch, operation.id);
    let trace_id = derived(&identity, 16);
    let root = derived(&format!("{identity} whole"), 8);
    let (code, message) = match &finished.outcome {
        Outcome::Succeeded => (StatusCode::Ok, String::new()),
        Outcome::Cancelled => (StatusCode::Unset, "cancelled".to_owned()),
        Outcome::Failed(why) => (StatusCode::Error, why.clone()),
    };
    let whole = Span {
        trace_id: trace_id.clone(),
        span_id: root.clone(),
        name: format!("{:?} {app}", operation.kind),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: nanos(operation.began_ms),
        end_time_unix_nano: nanos(finished.ended_ms),
        attributes: vec![
            text("k8s.namespace.name", &app.namespace),
            text("leeward.app", &app.name),
            text("leeward.operation", &operation.id),
            text("leeward.from", operation.from.as_str()),
            text("leeward.to", operation.to.as_str()),
            text("leeward.epoch", &operation.epoch.to_string()),
        ],
        status: Some(Status {
            message,
            code: code.into(),
        }),
        ..Span::default()
    };
    let steps = operation.steps.iter().filter_map(|step| {
        let record = journal?.get(&step.name)?;
        let name = format!("{:?}", step.name);
        let unfinished = record.ended_ms.is_none();
        Some(Span {
            trace_id: trace_id.clone(),
            span_id: derived(&format!("{identity} {name}"), 8),
            parent_span_id: root.clone(),
            name,
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: nanos(record.started_ms),
            end_time_unix_nano: nanos(record.ended_ms.unwrap_or(finished.ended_ms)),
            attributes: vec![text("leeward.cluster", step.cluster.as_str())],
            status: unfinished.then(|| Status {
                message: record.trouble.clone().unwrap_or_default(),
                code: StatusCode::Error.into(),
            }),
            ..Span::default()
        })
    });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "leeward"), text("k8s.cluster.name", me.as_str())],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "leeward.operations".into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                    ..InstrumentationScope::default()
                }),
                spans: std::iter::once(whole).chain(steps).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn derived(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = digest(&SHA256, text.as_bytes()).as_ref().to_vec();
    bytes.truncate(length);
    bytes
}

fn nanos(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.into())),
        }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Bytes, http::StatusCode as Http, routing::post};
    use leeward_core::{
        name::Epoch,
        operation::{Kind, Operation, Step, StepName, StepRecord},
    };

    use super::*;

    fn finished(outcome: Outcome) -> (AppKey, Finished, Journal) {
        let step = |name| Step {
            name,
            cluster: ClusterName::new("east"),
        };
        let operation = Operation {
            id: "failover-4-3".into(),
            kind: Kind::Failover,
            from: "west".into(),
            to: "east".into(),
            epoch: Epoch::default(),
            began_ms: 1_000,
            decided_ms: 4_000,
            steps: vec![step(StepName::Take), step(StepName::Promote), step(StepName::Start)],
            accepted_loss_ms: None,
        };
        let record = |started_ms, ended_ms| StepRecord {
            started_ms,
            ended_ms,
            trouble: Some("no ready endpoint".into()),
            point_ms: None,
        };
        let journal = [
            (StepName::Take, record(4_000, Some(4_010))),
            (StepName::Promote, record(4_010, None)),
        ];
        let finished = Finished {
            operation,
            ended_ms: 5_000,
            outcome,
        };
        (AppKey::new("shop", "web"), finished, journal.into())
    }

    fn spans(trace: &ExportTraceServiceRequest) -> &[Span] {
        &trace.resource_spans[0].scope_spans[0].spans
    }

    #[test]
    fn an_operation_is_one_trace_with_a_span_for_each_step_that_was_begun() {
        let (app, finished, journal) = finished(Outcome::Failed("it was given up".into()));
        let trace = of(&"east".into(), &app, &finished, Some(&journal));
        let [whole, take, promote] = spans(&trace) else {
            panic!("{trace:?}")
        };
        assert_eq!(
            (whole.name.as_str(), whole.trace_id.len(), whole.span_id.len()),
            ("Failover shop/web", 16, 8)
        );
        assert_eq!(
            (whole.start_time_unix_nano, whole.end_time_unix_nano),
            (1_000_000_000, 5_000_000_000)
        );
        let status = whole.status.as_ref().unwrap();
        assert_eq!(
            (status.code(), status.message.as_str()),
            (StatusCode::Error, "it was given up")
        );
        for (step, name) in [(take, "Take"), (promote, "Promote")] {
            assert_eq!(step.name, name);
            assert_eq!(
                (&step.trace_id, &step.parent_span_id),
                (&whole.trace_id, &whole.span_id)
            );
            assert_ne!(step.span_id, whole.span_id);
        }
        assert_eq!((take.end_time_unix_nano, &take.status), (4_010_000_000, &None));
        // What was not done ends with the operation, and says what kept it.
        assert_eq!(promote.end_time_unix_nano, 5_000_000_000);
        assert_eq!(promote.status.as_ref().unwrap().message, "no ready endpoint");
        // From another agent, or once more, it is the same trace; without its journal there is the whole of it.
        let again = of(&"north".into(), &app, &finished, None);
        assert_eq!(spans(&again), std::slice::from_ref(whole));
    }

    #[test]
    fn the_collector_is_where_it_is_said_to_be_or_where_the_environment_has_it() {
        let none = |_: &str| None;
        let all = |name: &str| Some(format!("http://{}:4318/", name.len()));
        let general = |name: &str| (name == NAMED[1].0).then(|| "http://otel:4318/".to_owned());
        let got =
            |said, variable: &dyn Fn(&str) -> Option<String>| endpoint(said, variable).map(|url| url.map(String::from));
        assert_eq!(got(None, &none), Ok(None));
        assert_eq!(
            got(Some("http://a:1/v1/traces"), &all),
            Ok(Some("http://a:1/v1/traces".into()))
        );
        assert_eq!(got(None, &general), Ok(Some("http://otel:4318/v1/traces".into())));
        assert_eq!(got(None, &|_: &str| Some(String::new())), Ok(None));
        for bad in ["https://a:4318/v1/traces", "otel:4318", "here"] {
            assert!(endpoint(Some(bad), none).unwrap_err().to_string().starts_with(bad));
        }
    }

    #[tokio::test]
    async fn a_trace_is_sent_until_it_is_taken_and_one_that_is_refused_does_not_hold_up_the_next() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (taken, mut seen) = mpsc::unbounded_channel();
        let collector = Router::new().route(
            "/v1/traces",
            post(move |body: Bytes| {
                let taken = taken.clone();
                async move {
                    let trace = ExportTraceServiceRequest::decode(body).unwrap();
                    let count = spans(&trace).len();
                    taken.send(count).unwrap();
                    // The one with a span alone is never right; the other one is, the second time.
                    static TRIED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
                    match count {
                        1 => Http::BAD_REQUEST,
                        _ if TRIED.swap(true, std::sync::atomic::Ordering::Relaxed) => Http::OK,
                        _ => Http::SERVICE_UNAVAILABLE,
                    }
                }
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, collector).await });
        let (traces, sending) = Traces::to(at.parse().unwrap(), Duration::ZERO, CancellationToken::new());
        tokio::spawn(sending);
        let (app, finished, journal) = finished(Outcome::Succeeded);
        traces.put(of(&"east".into(), &app, &finished, None));
        traces.put(of(&"east".into(), &app, &finished, Some(&journal)));
        let mut got = vec![];
        for _ in 0..3 {
            got.push(seen.recv().await.unwrap());
        }
        assert_eq!(got, [1, 3, 3]);
    }
}
