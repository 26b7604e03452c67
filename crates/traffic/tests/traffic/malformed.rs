//! What is malformed, too large, or too slow is refused, and the next client is served.

use std::time::Duration;

use leeward_traffic::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::rig::*;

#[tokio::test]
async fn requests_that_two_servers_could_read_differently_get_400_and_are_not_delivered() {
    let (west, _east) = two(None).await;
    let pod = Pod::start("a", Manner::Answers).await;
    west.pods(&[pod.address]);
    let cases = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: web.example\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\nCONTENT-LENGTH: x\r\n\r\n0\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "Content-Length: +5\r\n\r\nhello",
        "Content-Length: 5, 5\r\n\r\nhello",
        "Transfer-Encoding: gzip\r\n\r\nhello",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Host: other.example\r\nContent-Length: 0\r\n\r\n",
        "X: 1\r\n folded: 2\r\nContent-Length: 0\r\n\r\n",
        "X\0: 1\r\nContent-Length: 0\r\n\r\n",
    ];
    for case in cases {
        let reply = raw(
            west.address,
            &format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{case}"),
        )
        .await;
        assert_eq!(reply.status, 400, "{case:?}: {reply:?}");
    }
    assert_eq!(
        raw(west.address, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            .await
            .status,
        400
    );
    assert_eq!(raw(west.address, "\x16\x03\x01\x02garbage\r\n\r\n").await.status, 400);
    assert_eq!(pod.delivered(), 0);
    assert_eq!(get(&west).await.status, 200);
}

#[tokio::test]
async fn a_host_that_no_application_has_gets_404_and_a_proxy_request_501() {
    let (west, _east) = two(None).await;
    let reply = raw(
        west.address,
        "GET / HTTP/1.1\r\nHost: nobody.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(reply.status, 404);
    assert!(reply.body.contains("nobody.example"), "{reply:?}");
    let reply = raw(
        west.address,
        "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(reply.status, 501);
}

#[tokio::test]
async fn a_head_that_is_too_large_gets_431() {
    let (west, _east) = two(None).await;
    let large = format!("X-Large: {}\r\n", "x".repeat(40 << 10));
    assert_eq!(raw(west.address, &text("GET", "/", &large, "")).await.status, 431);
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_cut_off() {
    let limits = Limits {
        head_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let west = Region::start_with("west", None, limits).await;
    for part in ["", "G", "GET / HTTP/1.1\r\nHost:", "PRI * HT"] {
        let mut stream = TcpStream::connect(west.address).await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
    }
}

#[tokio::test]
async fn connections_above_the_bound_wait_for_a_place() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let west = Region::start_with("west", None, limits).await;
    let first = TcpStream::connect(west.address).await.unwrap();
    let second = TcpStream::connect(west.address).await.unwrap();
    let ask = |mut stream: TcpStream| async move {
        stream.write_all(text("GET", "/", "", "").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    // Answered one after the other, though the first one has not asked yet when the second one does.
    let second = tokio::spawn(ask(second));
    assert!(!soon(ask(first)).await.is_empty());
    assert!(!soon(second).await.unwrap().is_empty());
    assert_eq!(west.shared.counters().snapshot().connections, 2);
}

#[tokio::test]
async fn an_edge_that_is_told_to_stop_ends_what_is_in_flight_first() {
    let (west, _east) = two(None).await;
    let mut pod = Pod::start("a", Manner::Waits).await;
    west.pods(&[pod.address]);
    let idle = TcpStream::connect(west.address).await.unwrap();
    let (reply, ()) = tokio::join!(get(&west), async {
        pod.arrival().await;
        west.stop.cancel();
        pod.go_on();
    });
    assert_eq!(reply.status, 200, "{reply:?}");
    soon(west.served).await.unwrap();
    assert!(TcpStream::connect(west.address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn requests_come_over_http2_without_tls_too() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let (west, _east) = two(None).await;
    let pod = Pod::start("a", Manner::Answers).await;
    west.pods(&[pod.address]);
    let stream = TokioIo::new(TcpStream::connect(west.address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://{HOST}/two"))
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = soon(response.collect()).await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body).to_ascii_lowercase();
    assert!(
        body.starts_with("a got get /two http/1.1") && body.contains("host: web.example\r\n"),
        "{body}"
    );
}
