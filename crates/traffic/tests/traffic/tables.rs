//! Tables that come, are refused and are kept; probes.

use std::time::Duration;

use leeward_core::{
    name::Generation,
    routing::{Table, health::Health},
};
use leeward_traffic::{InstallError, Installed, Limits, probe};
use tokio::time::sleep;

use super::rig::*;

#[tokio::test]
async fn a_new_table_moves_requests_at_once() {
    let (west, east) = two(None).await;
    let (a, b) = (
        Pod::start("a", Manner::Answers).await,
        Pod::start("b", Manner::Answers).await,
    );
    west.pods(&[a.address]);
    east.pods(&[b.address]);
    assert_eq!(get(&west).await.header("leeward-cluster"), Some("west"));
    let moved = table(2, None, vec![west.endpoint(2), east.endpoint(1)]);
    assert_eq!(west.shared.install(moved.clone()).unwrap(), Installed::New);
    assert_eq!(west.shared.install(moved).unwrap(), Installed::Same);
    assert_eq!(get(&west).await.header("leeward-cluster"), Some("east"));
}

#[tokio::test]
async fn a_bad_table_is_refused_and_the_last_one_goes_on() {
    let (west, _east) = two(Some(("west", 7))).await;
    let pod = Pod::start("a", Manner::Answers).await;
    west.pods(&[pod.address]);
    west.switch.grant(7);
    let bad = [
        table(2, None, vec![]),
        table(0, Some(("west", 7)), vec![west.endpoint(1)]),
        table(2, Some(("west", 6)), vec![west.endpoint(1)]),
        table(2, Some(("mars", 8)), vec![west.endpoint(1)]),
        table(2, None, vec![west.endpoint(9)]),
    ];
    for table in bad {
        let error = west.shared.install(table).unwrap_err();
        assert!(matches!(error, InstallError::Refused(_)), "{error}");
        assert_eq!(get(&west).await.status, 200);
    }
    assert_eq!(west.shared.generation(), Generation(1));
}

#[tokio::test]
async fn an_edge_that_starts_alone_answers_by_the_table_that_it_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge/table.json");
    let west = Region::start_with("west", Some(path.clone()), Limits::default()).await;
    assert_eq!(get(&west).await.status, 404);
    west.shared.install(table(5, None, vec![west.endpoint(1)])).unwrap();

    let again = Region::start_with("west", Some(path.clone()), Limits::default()).await;
    let pod = Pod::start("a", Manner::Answers).await;
    again.pods(&[pod.address]);
    assert_eq!(again.shared.generation(), Generation(5));
    assert_eq!(get(&again).await.status, 200);

    for damaged in [&b""[..], b"{", b"{\"generation\":1,\"profiles\":[{}]}", b"\xff\x00"] {
        std::fs::write(&path, damaged).unwrap();
        let fresh = Region::start_with("west", Some(path.clone()), Limits::default()).await;
        assert_eq!(get(&fresh).await.status, 404);
        fresh.shared.install(table(1, None, vec![fresh.endpoint(1)])).unwrap();
        let kept: Table = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept.generation, Generation(1));
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_kept_is_used_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "not a folder").unwrap();
    let west = Region::start_with("west", Some(blocked.join("table.json")), Limits::default()).await;
    let error = west.shared.install(table(3, None, vec![west.endpoint(1)])).unwrap_err();
    assert!(matches!(error, InstallError::NotKept { .. }), "{error}");
    assert_eq!(west.shared.generation(), Generation(3));
}

/// Waits until the health of a region, as seen from another, is as expected.
async fn seen(from: &Region, at: &Region, expected: impl Fn(&Health) -> bool) -> Health {
    soon(async {
        loop {
            let report = from.shared.health().report();
            match report.get(&at.name.into(), &app()) {
                Some(health) if expected(health) => return health.clone(),
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn probes_find_along_the_whole_path_whether_each_region_can_answer() {
    let (west, east) = two(Some(("west", 7))).await;
    let pod = Pod::start("b", Manner::Answers).await;
    east.pods(&[pod.address]);
    east.switch.refuse();
    tokio::spawn(probe::run(west.shared.clone(), west.stop.clone()));

    let down = seen(&west, &west, |h| h.known && !h.healthy).await;
    assert!(down.last_error.unwrap().contains("no pod could be asked"));
    // East may not answer for the writer, but its pod is well, and that is what a probe asks.
    let well = seen(&west, &east, |h| h.known && h.healthy).await;
    assert!(well.rtt_ms.is_some());

    west.pods(&[pod.address]);
    seen(&west, &west, |h| h.healthy).await;
    east.pods(&[]);
    seen(&west, &east, |h| !h.healthy).await;
    west.stop.cancel();
}

#[tokio::test]
async fn a_probe_shows_nothing_but_whether_the_probe_path_is_well() {
    let (west, _east) = two(Some(("west", 7))).await;
    let pod = Pod::start("a", Manner::Answers).await;
    west.pods(&[pod.address]);
    west.switch.refuse();
    let probe = async |path| raw(west.address, &text("GET", path, "leeward-probe: 1\r\n", "")).await;
    let reply = probe("/healthz").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{reply:?}");
    assert_eq!(reply.header("leeward-admission"), Some("not-asked"));
    assert_eq!(probe("/secrets").await.status, 400);
    assert_eq!(pod.delivered(), 1);
    assert_eq!(west.shared.counters().snapshot().requests, 0);
}
