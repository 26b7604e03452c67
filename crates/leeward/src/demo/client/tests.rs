use super::*;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use hyper::header::{HeaderMap, HeaderValue};
use serde_json::json;

fn outcome(status: u16, header: Option<&str>, body: &str) -> Outcome {
    let mut headers = HeaderMap::new();
    if let Some(value) = header {
        headers.insert("leeward-outcome", HeaderValue::from_str(value).unwrap());
    }
    attempt::outcome(7, StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
}

#[test]
fn an_answer_is_an_acknowledgement_only_when_it_names_number_epoch_and_cluster() {
    let whole = r#"{"n":7,"epoch":2,"cluster":"east","offset":42}"#;
    let acknowledged = Outcome::Acknowledged {
        epoch: 2,
        cluster: "east".into(),
        offset: Some(42),
    };
    for (status, header, body, expected) in [
        (200, None, whole, acknowledged),
        (200, None, r#"{"n":8,"epoch":2,"cluster":"east"}"#, Outcome::Unknown),
        (200, None, r#"{"n":7,"cluster":"east"}"#, Outcome::Unknown),
        (200, None, "", Outcome::Unknown),
        (200, Some("unknown"), whole, Outcome::Unknown),
        (502, Some("unknown"), "", Outcome::Unknown),
        (503, Some("not-delivered"), "", Outcome::Refused),
        (503, None, "", Outcome::Unknown),
        (500, None, whole, Outcome::Unknown),
        (507, None, "", Outcome::Refused),
        (409, None, "", Outcome::Refused),
        (503, Some("something new"), "", Outcome::Unknown),
    ] {
        assert_eq!(outcome(status, header, body), expected, "{status} {header:?} {body}");
    }
}

#[test]
fn requests_go_to_the_edges_in_turn_and_to_silent_ones_last() {
    for (suspect, index, expected) in [
        (vec![false, false], 0, vec![0, 1]),
        (vec![false, false], 1, vec![1, 0]),
        (vec![true, false], 0, vec![1, 0]),
        (vec![true, false], 1, vec![1, 0]),
        (vec![true, true], 1, vec![1, 0]),
        (vec![false, true, false], 1, vec![2, 0, 1]),
    ] {
        assert_eq!(order(&suspect, index), expected, "{suspect:?} {index}");
    }
}

/// An edge and the application behind it in one.
async fn edge(answer: fn(u64) -> Response) -> SocketAddr {
    let read = || async { axum::Json(json!({ "cluster": "west", "epoch": 1, "count": 0 })).into_response() };
    let write = move |Path(n): Path<u64>| async move { answer(n) };
    let app = Router::new().route("/", get(read)).route("/writes/c/{n}", post(write));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// An address that takes connections and never answers.
async fn silent() -> (SocketAddr, tokio::net::TcpListener) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    silent().await.0
}

fn acknowledge(n: u64) -> Response {
    axum::Json(json!({ "n": n, "epoch": 1, "cluster": "west", "offset": n * 40 })).into_response()
}

fn client(edges: &[SocketAddr]) -> Client {
    let edges = edges.to_vec();
    Client::start(Settings {
        edges,
        host: "app.test".into(),
        name: "c".into(),
        rate: 50,
        writes: true,
    })
}

#[tokio::test]
async fn a_dead_edge_costs_neither_a_read_nor_a_write() {
    let edges = [nobody().await, edge(acknowledge).await];
    let client = client(&edges);
    let since = client.now();
    client.acknowledged_since(since, 1).await;
    let second = client.acknowledged_since(client.now(), 1).await;
    let records = client.stop().await;
    assert!(second.n > 1 && records.reads.len() > 1);
    assert!(
        records
            .reads
            .iter()
            .all(|read| read.ok && read.cluster.as_deref() == Some("west"))
    );
    assert!(
        records
            .writes
            .iter()
            .all(|write| matches!(write.outcome, Outcome::Acknowledged { epoch: 1, .. }))
    );
}

#[tokio::test]
async fn without_any_edge_reads_fail_and_writes_are_refused() {
    let client = client(&[nobody().await, nobody().await]);
    client
        .live()
        .wait_for(|live| live.reads_failed > 0 && live.refused > 0)
        .await
        .unwrap();
    let records = client.stop().await;
    assert!(
        records
            .reads
            .iter()
            .all(|read| !read.ok && read.ended_at - read.sent_at >= 2_000_000)
    );
    assert!(records.writes.iter().all(|write| write.outcome == Outcome::Refused));
}

#[tokio::test]
async fn a_silent_edge_delays_a_read_but_leaves_a_write_unknown_and_is_then_avoided() {
    let (silent, _listener) = silent().await;
    let client = client(&[silent, edge(acknowledge).await]);
    client.live().wait_for(|live| live.unknown > 0).await.unwrap();
    let records = client.stop().await;
    assert!(records.reads.iter().all(|read| read.ok));
    let unknown = records
        .writes
        .iter()
        .filter(|write| write.outcome == Outcome::Unknown)
        .count();
    // Before the silence is noticed, after half a second, every second write goes there.
    assert!(
        (1..=30).contains(&unknown) && unknown * 2 < records.writes.len(),
        "{unknown} of {}",
        records.writes.len()
    );
}

#[tokio::test]
async fn a_slow_answer_does_not_hold_up_later_requests() {
    let (silent, _listener) = silent().await;
    let client = client(&[silent]);
    client.live().wait_for(|live| live.in_flight >= 40).await.unwrap();
    let live = client.live().borrow().clone();
    assert_eq!((live.acknowledged, live.reads_ok), (0, 0));
    client.stop().await;
}
