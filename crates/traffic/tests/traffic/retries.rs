//! Where a request goes, and when it is sent again.

use std::time::{Duration, Instant};

use super::rig::*;

#[tokio::test]
async fn a_request_goes_to_the_first_region_and_says_who_answered_and_who_asked() {
    let (west, east) = two(None).await;
    let (a, b) = (
        Pod::start("a", Manner::Answers).await,
        Pod::start("b", Manner::Answers).await,
    );
    west.pods(&[a.address]);
    east.pods(&[b.address]);
    for region in [&west, &east] {
        let reply = get(region).await;
        assert_eq!(
            (reply.status, reply.header("leeward-cluster")),
            (200, Some("west")),
            "{reply:?}"
        );
        assert!(reply.body.starts_with("a got GET / HTTP/1.1"), "{reply:?}");
        let seen = reply.body.to_ascii_lowercase();
        assert!(
            seen.contains("host: web.example\r\n") && seen.contains("x-forwarded-for: 127.0.0.1\r\n"),
            "{seen}"
        );
        assert!(!seen.contains("leeward-") && !seen.contains("connection:"), "{seen}");
        let id = reply.header("x-request-id").expect("an id is given back");
        assert!(seen.contains(&format!("x-request-id: {id}")), "{seen}");
        // What an application says of Leeward's own headers is not believed.
        assert_eq!(reply.header("leeward-outcome"), None);
    }
    assert_eq!((a.delivered(), b.delivered()), (2, 0));
    assert_eq!(east.shared.counters().snapshot().forwarded_out, 1);
    assert_eq!(west.shared.counters().snapshot().forwarded_in, 1);
}

#[tokio::test]
async fn a_read_is_answered_by_the_next_region_when_the_first_one_is_dead() {
    let east = Region::start("east").await;
    let pod = Pod::start("b", Manner::Answers).await;
    east.pods(&[pod.address]);
    let west = endpoint("west", dead().await, 1);
    east.shared
        .install(table(1, None, vec![west, east.endpoint(2)]))
        .unwrap();
    let reply = get(&east).await;
    assert_eq!(
        (reply.status, reply.header("leeward-cluster")),
        (200, Some("east")),
        "{reply:?}"
    );
    assert_eq!(east.shared.counters().snapshot().retries, 1);
    // The failure was noticed: the next request does not try the dead region first.
    assert_eq!(get(&east).await.status, 200);
    assert_eq!(east.shared.counters().snapshot().retries, 1);
}

#[tokio::test]
async fn a_write_that_could_not_be_delivered_is_sent_to_the_next_region_whole() {
    let (west, east) = two(None).await;
    let pod = Pod::start("b", Manner::Answers).await;
    east.pods(&[pod.address]);
    // West has no pod: refused before any application saw it. Then west's only pod is dead.
    for pods in [vec![], vec![dead().await]] {
        west.pods(&pods);
        let reply = post(&east, "order 7").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(
            reply.body.starts_with("b got POST") && reply.body.ends_with("order 7"),
            "{reply:?}"
        );
    }
    assert_eq!(pod.delivered(), 2);
}

#[tokio::test]
async fn a_large_write_is_sent_to_the_next_region_as_long_as_nobody_began_to_read_it() {
    let east = Region::start("east").await;
    let pod = Pod::start("b", Manner::Answers).await;
    east.pods(&[pod.address]);
    let west = endpoint("west", dead().await, 1);
    east.shared
        .install(table(1, None, vec![west, east.endpoint(2)]))
        .unwrap();
    let large = "x".repeat(200_000);
    let reply = post(&east, &large).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.ends_with(&large));
}

#[tokio::test]
async fn a_write_that_may_have_been_delivered_is_not_repeated() {
    let (west, east) = two(None).await;
    let (a, b) = (
        Pod::start("a", Manner::Breaks).await,
        Pod::start("b", Manner::Answers).await,
    );
    west.pods(&[a.address]);
    east.pods(&[b.address]);
    for region in [&west, &east] {
        let reply = post(region, "order 7").await;
        assert_eq!(
            (reply.status, reply.header("leeward-outcome")),
            (502, Some("unknown")),
            "{reply:?}"
        );
        // The failure made west suspect; without a table's reload it would be passed over.
        region.shared.install(table(1, None, vec![west.endpoint(1)])).unwrap();
        region
            .shared
            .install(table(1, None, vec![west.endpoint(1), east.endpoint(2)]))
            .unwrap();
    }
    assert_eq!((a.delivered(), b.delivered()), (2, 0));
}

#[tokio::test]
async fn a_write_that_one_pod_may_have_seen_is_not_given_to_another_pod() {
    let west = Region::start("west").await;
    west.shared.install(table(1, None, vec![west.endpoint(1)])).unwrap();
    let (a, b) = (
        Pod::start("a", Manner::Breaks).await,
        Pod::start("b", Manner::Breaks).await,
    );
    west.pods(&[a.address, b.address]);
    assert_eq!(post(&west, "x").await.header("leeward-outcome"), Some("unknown"));
    assert_eq!(a.delivered() + b.delivered(), 1);
    // A read is: it does no harm.
    assert_eq!(get(&west).await.header("leeward-outcome"), Some("unknown"));
    assert_eq!(a.delivered() + b.delivered(), 3);
}

#[tokio::test]
async fn a_read_that_broke_off_or_was_answered_unavailable_is_tried_in_the_next_region() {
    for manner in [Manner::Breaks, Manner::Status(503)] {
        let (west, east) = two(None).await;
        let (a, b) = (Pod::start("a", manner).await, Pod::start("b", Manner::Answers).await);
        west.pods(&[a.address]);
        east.pods(&[b.address]);
        let reply = get(&west).await;
        assert_eq!(
            (reply.status, reply.header("leeward-cluster")),
            (200, Some("east")),
            "{reply:?}"
        );
        assert_eq!((a.delivered(), b.delivered()), (1, 1));
    }
}

#[tokio::test]
async fn an_applications_own_refusal_is_passed_on_when_no_region_does_better() {
    let (west, east) = two(None).await;
    let a = Pod::start("a", Manner::Status(503)).await;
    west.pods(&[a.address]);
    let reply = get(&east).await;
    assert_eq!((reply.status, reply.body.as_str()), (503, "a"), "{reply:?}");
    assert_eq!(reply.header("leeward-outcome"), None);
    assert_eq!(post(&east, "x").await.status, 503);
}

#[tokio::test]
async fn a_frozen_region_takes_a_part_of_a_reads_time_once() {
    let east = Region::start("east").await;
    let pod = Pod::start("b", Manner::Answers).await;
    east.pods(&[pod.address]);
    let (address, _held) = frozen().await;
    east.shared
        .install(table(1, None, vec![endpoint("west", address, 1), east.endpoint(2)]))
        .unwrap();
    for retries in [1, 1] {
        let start = Instant::now();
        let reply = get(&east).await;
        assert_eq!(
            (reply.status, reply.header("leeward-cluster")),
            (200, Some("east")),
            "{reply:?}"
        );
        assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
        assert_eq!(east.shared.counters().snapshot().retries, retries);
    }
}

#[tokio::test]
async fn a_frozen_pod_is_passed_over_for_another_one_of_the_same_region() {
    let west = Region::start("west").await;
    west.shared.install(table(1, None, vec![west.endpoint(1)])).unwrap();
    let pod = Pod::start("a", Manner::Answers).await;
    let (address, _held) = frozen().await;
    west.pods(&[address, pod.address]);
    for _ in 0..6 {
        assert_eq!(get(&west).await.status, 200);
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_unknown() {
    let west = Region::start("west").await;
    west.shared.install(table(1, None, vec![west.endpoint(1)])).unwrap();
    let (address, _held) = frozen().await;
    west.pods(&[address]);
    let reply = post(&west, "x").await;
    assert_eq!(
        (reply.status, reply.header("leeward-outcome")),
        (504, Some("unknown")),
        "{reply:?}"
    );
}

#[tokio::test]
async fn when_nothing_can_serve_the_client_is_told_to_come_again() {
    let (west, _east) = two(None).await;
    for reply in [get(&west).await, post(&west, "x").await] {
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (503, Some("1")),
            "{reply:?}"
        );
        assert_eq!(reply.header("leeward-outcome"), Some("not-delivered"));
    }
}

#[tokio::test]
async fn a_request_that_another_edge_passed_on_is_never_passed_on_again() {
    let (west, east) = two(None).await;
    let pod = Pod::start("b", Manner::Answers).await;
    east.pods(&[pod.address]);
    let reply = raw(west.address, &text("GET", "/", "leeward-forwarded: north\r\n", "")).await;
    assert_eq!(
        (reply.status, reply.header("leeward-outcome")),
        (503, Some("not-delivered")),
        "{reply:?}"
    );
    assert_eq!(pod.delivered(), 0);
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer_as_long_as_it_goes_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let west = Region::start("west").await;
    let mut slow = table(1, None, vec![west.endpoint(1)]);
    slow.profiles[0].timing.unsafe_ms = 300;
    west.shared.install(slow).unwrap();
    let pod = Pod::start("a", Manner::Answers).await;
    west.pods(&[pod.address]);
    let mut stream = tokio::net::TcpStream::connect(west.address).await.unwrap();
    stream
        .write_all(text("POST", "/", "Content-Length: 100000\r\n", "").as_bytes())
        .await
        .unwrap();
    // Ten parts, each well within the time for an answer, all of them well beyond it.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        stream.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}
