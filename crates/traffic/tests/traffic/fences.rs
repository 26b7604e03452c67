//! Answers of an application with a writer role: only from the writer's region, and only while it may answer.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::rig::*;

#[tokio::test]
async fn reads_and_writes_go_to_the_writers_region_only_and_carry_its_epoch() {
    let (west, east) = two(Some(("east", 7))).await;
    let (a, b) = (
        Pod::start("a", Manner::Answers).await,
        Pod::start("b", Manner::Answers).await,
    );
    west.pods(&[a.address]);
    east.pods(&[b.address]);
    east.switch.grant(7);
    for region in [&west, &east] {
        for reply in [get(region).await, post(region, "x").await] {
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(reply.header("leeward-cluster"), Some("east"));
            assert_eq!(reply.header("leeward-epoch"), Some("7"));
        }
    }
    assert_eq!((a.delivered(), b.delivered()), (0, 4));
}

#[tokio::test]
async fn a_region_without_a_grant_delivers_nothing() {
    let (west, east) = two(Some(("west", 7))).await;
    let (a, b) = (
        Pod::start("a", Manner::Answers).await,
        Pod::start("b", Manner::Answers).await,
    );
    west.pods(&[a.address]);
    east.pods(&[b.address]);
    // Free (it does not know the role), an epoch that is over, refused.
    for set in [|_: &Switch| {}, |s: &Switch| s.grant(6), |s: &Switch| s.refuse()] {
        set(&west.switch);
        for reply in [
            get(&west).await,
            get(&east).await,
            post(&west, "x").await,
            post(&east, "x").await,
        ] {
            assert_eq!(
                (reply.status, reply.header("leeward-outcome")),
                (503, Some("not-delivered")),
                "{reply:?}"
            );
        }
    }
    assert_eq!((a.delivered(), b.delivered()), (0, 0));
}

#[tokio::test]
async fn an_answer_that_comes_after_the_grant_has_ended_is_unknown() {
    type Change = fn(&Switch);
    let changes: [Change; 2] = [Switch::refuse, |s| s.grant(8)];
    for change in changes {
        let (west, east) = two(Some(("west", 7))).await;
        let mut pod = Pod::start("a", Manner::Waits).await;
        west.pods(&[pod.address]);
        for region in [&west, &east] {
            west.switch.grant(7);
            let (reply, ()) = tokio::join!(post(region, "x"), async {
                pod.arrival().await;
                change(&west.switch);
                pod.go_on();
            });
            assert_eq!(
                (reply.status, reply.header("leeward-outcome")),
                (503, Some("unknown")),
                "{reply:?}"
            );
            assert!(!reply.body.starts_with('a'), "{reply:?}");
        }
        assert!(west.shared.counters().snapshot().fenced >= 2);
    }
}

/// Asks and reads as far as the first part of the answer's body.
async fn first_part(region: &Region) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(region.address).await.unwrap();
    stream.write_all(text("GET", "/", "", "").as_bytes()).await.unwrap();
    let (mut seen, mut byte) = (String::new(), [0u8]);
    while !seen.ends_with("first") {
        soon(stream.read_exact(&mut byte)).await.unwrap();
        seen.push(char::from(byte[0]));
    }
    (stream, seen)
}

#[tokio::test]
async fn an_answer_on_its_way_is_cut_when_the_grant_ends() {
    let (west, east) = two(Some(("west", 7))).await;
    let pod = Pod::start("a", Manner::WaitsHalfway).await;
    west.pods(&[pod.address]);
    for region in [&west, &east] {
        west.switch.grant(7);
        let (mut stream, seen) = first_part(region).await;
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
        west.switch.refuse();
        pod.go_on();
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

#[tokio::test]
async fn an_answer_on_its_way_is_cut_when_the_table_knows_of_a_higher_epoch() {
    let (west, east) = two(Some(("west", 7))).await;
    let pod = Pod::start("a", Manner::WaitsHalfway).await;
    west.pods(&[pod.address]);
    west.switch.grant(7);
    let (mut stream, _) = first_part(&east).await;
    // West is frozen, say, and does not know it yet: its grant stands on its own clock.
    let newer = table(2, Some(("east", 8)), vec![west.endpoint(1), east.endpoint(2)]);
    east.shared.install(newer).unwrap();
    pod.go_on();
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

#[tokio::test]
async fn an_answer_of_a_lower_epoch_is_unknown_to_an_edge_that_knows_of_a_higher_one() {
    let (west, east) = two(Some(("west", 7))).await;
    let mut pod = Pod::start("a", Manner::Waits).await;
    west.pods(&[pod.address]);
    west.switch.grant(7);
    let (reply, ()) = tokio::join!(post(&east, "x"), async {
        pod.arrival().await;
        let newer = table(2, Some(("east", 8)), vec![west.endpoint(1), east.endpoint(2)]);
        east.shared.install(newer).unwrap();
        pod.go_on();
    });
    assert_eq!(
        (reply.status, reply.header("leeward-outcome")),
        (503, Some("unknown")),
        "{reply:?}"
    );
}

#[tokio::test]
async fn a_write_that_waits_for_a_frozen_writer_is_unknown_as_soon_as_there_is_a_new_one() {
    let east = Region::start("east").await;
    let (address, west) = frozen().await;
    let endpoints = vec![endpoint("west", address, 1), east.endpoint(2)];
    let mut first = table(1, Some(("west", 7)), endpoints.clone());
    // So long that only the new table can end it in time.
    first.profiles[0].timing.unsafe_ms = 600_000;
    east.shared.install(first).unwrap();
    let (reply, _held) = tokio::join!(post(&east, "x"), async {
        let held = west.accept().await.unwrap();
        east.shared.install(table(2, Some(("east", 8)), endpoints)).unwrap();
        held
    });
    assert_eq!(
        (reply.status, reply.header("leeward-outcome")),
        (503, Some("unknown")),
        "{reply:?}"
    );
}

#[tokio::test]
async fn a_read_that_was_fenced_on_its_way_is_answered_by_the_new_writer() {
    let (west, east) = two(Some(("west", 7))).await;
    let mut old = Pod::start("a", Manner::Waits).await;
    let new = Pod::start("b", Manner::Answers).await;
    west.pods(&[old.address]);
    east.pods(&[new.address]);
    west.switch.grant(7);
    let (reply, ()) = tokio::join!(get(&east), async {
        old.arrival().await;
        let newer = table(2, Some(("east", 8)), vec![west.endpoint(1), east.endpoint(2)]);
        east.shared.install(newer).unwrap();
        east.switch.grant(8);
        old.go_on();
    });
    assert_eq!(
        (reply.status, reply.header("leeward-epoch")),
        (200, Some("8")),
        "{reply:?}"
    );
}

#[tokio::test]
async fn an_application_without_a_writer_needs_no_grant() {
    let (west, _east) = two(None).await;
    let pod = Pod::start("a", Manner::Answers).await;
    west.pods(&[pod.address]);
    west.switch.refuse();
    let reply = post(&west, "x").await;
    assert_eq!((reply.status, reply.header("leeward-epoch")), (200, None), "{reply:?}");
}

#[tokio::test]
async fn an_answer_of_a_region_that_is_behind_the_table_is_unknown() {
    let (west, east) = two(Some(("west", 6))).await;
    let pod = Pod::start("a", Manner::Answers).await;
    west.pods(&[pod.address]);
    west.switch.grant(6);
    let newer = table(2, Some(("west", 7)), vec![west.endpoint(1), east.endpoint(2)]);
    east.shared.install(newer).unwrap();
    let reply = post(&east, "x").await;
    assert_eq!(
        (reply.status, reply.header("leeward-outcome")),
        (503, Some("unknown")),
        "{reply:?}"
    );
}

#[tokio::test]
async fn the_replica_of_an_edge_that_may_not_answer_passes_on_to_the_one_that_may_and_once_only() {
    let (west, east) = two(Some(("west", 7))).await;
    let beside = Region::start("west").await;
    beside.shared.install(west.shared.index().table().clone()).unwrap();
    let a = Pod::start("a", Manner::Answers).await;
    for replica in [&west, &beside] {
        replica.pods(&[a.address]);
    }
    west.switch.grant(7);
    beside.switch.refuse();
    // Asked by a client, and by another region's edge.
    beside.shared.set_replica(Some(west.address));
    let mut moved = west.shared.index().table().clone();
    moved.generation.0 += 1;
    moved.profiles[0].endpoints[0].address = beside.address;
    east.shared.install(moved).unwrap();
    for region in [&beside, &east] {
        for reply in [get(region).await, post(region, "x").await] {
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(reply.header("leeward-epoch"), Some("7"));
        }
    }
    assert_eq!(a.delivered(), 4);
    // Each takes the other one for the one that may.
    west.switch.refuse();
    west.shared.set_replica(Some(beside.address));
    for region in [&beside, &west, &east] {
        let reply = post(region, "x").await;
        assert_eq!(
            (reply.status, reply.header("leeward-outcome")),
            (503, Some("not-delivered")),
            "{reply:?}"
        );
    }
    // It knows of a later writer, whom the other one does not know yet.
    west.switch.grant(7);
    let mut later = beside.shared.index().table().clone();
    later.generation.0 += 5;
    later.profiles[0].writer.as_mut().unwrap().epoch.0 = 8;
    beside.shared.install(later).unwrap();
    assert_eq!(post(&beside, "x").await.status, 503);
}
