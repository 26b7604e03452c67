//! Copies between regions: what is pushed to one is soon in the others, whole or not at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::StatusCode;
use leeward_images::digest::Digest;
use leeward_images::inventory::{Inventory, State as Held};
use leeward_images::pack;
use leeward_images::peers::Peer;
use leeward_images::replicate::{Config, Replicator};
use leeward_images::store::Store;

use super::harness::{Region, client, codes, reference, serve, small_image};

/// So long that only a notification can explain a copy.
const NEVER: Duration = Duration::from_secs(3600);

fn replicator(region: &Region) -> Replicator {
    let config = Config {
        interval: NEVER,
        ..Config::default()
    };
    Replicator::with_config(region.store.clone(), region.peers.clone(), config)
}

async fn push(region: &Region, name: &str, content: &str) -> Digest {
    pack::push(&client(), &region.url, &reference(name), &small_image(content))
        .await
        .unwrap()
}

/// Waits until a region has an image verified, however long that takes: the test's own limit ends a hang.
async fn arrives(region: &Region, name: &str, digest: Digest) {
    let inventory = Inventory::new(region.store.clone());
    loop {
        let images = inventory.check_verified(&[name]).await.unwrap();
        if images[0].digest == Some(digest) && images[0].state == Held::Present {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_to_one_region_is_copied_to_the_others() {
    let (west, east) = (Region::start("west").await, Region::start("east").await);
    west.know(&[&east]);
    east.know(&[&west]);
    let running = [
        tokio::spawn(replicator(&west).run()),
        tokio::spawn(replicator(&east).run()),
    ];
    let first = push(&west, "sample:1", "first").await;
    arrives(&east, "sample:1", first).await;
    // And the other way, over the same tag.
    let second = push(&east, "sample:1", "second").await;
    arrives(&west, "sample:1", second).await;
    // A deletion travels too.
    client()
        .delete(format!("{}/v2/sample/manifests/1", west.url))
        .send()
        .await
        .unwrap();
    while east
        .store
        .listing()
        .resolve(&reference("sample:1").repository, &reference("sample:1").selector())
        .is_some()
    {
        tokio::task::yield_now().await;
    }
    running.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pushed_before_a_region_knew_the_others_is_told_to_them_then() {
    let (west, east) = (Region::start("west").await, Region::start("east").await);
    east.know(&[&west]);
    let running = tokio::spawn(replicator(&east).run());
    let first = push(&west, "first:1", "x").await;
    let telling = tokio::spawn(replicator(&west).run());
    west.know(&[&east]);
    arrives(&east, "first:1", first).await;
    // Nobody tells of this one until the peers are set anew.
    telling.abort();
    assert!(telling.await.is_err());
    let second = push(&west, "second:1", "y").await;
    let telling = tokio::spawn(replicator(&west).run());
    west.know(&[&east]);
    arrives(&east, "second:1", second).await;
    telling.abort();
    running.abort();
}

#[tokio::test]
async fn a_tag_pushed_in_both_regions_ends_the_same_in_both() {
    let (west, east) = (Region::start("west").await, Region::start("east").await);
    west.know(&[&east]);
    east.know(&[&west]);
    push(&west, "sample:1", "west's").await;
    push(&east, "sample:1", "east's").await;
    for _ in 0..2 {
        for region in [&west, &east] {
            let round = replicator(region).round(&mut HashMap::new()).await;
            assert!(round.failed.is_empty(), "{:?}", round.failed);
        }
    }
    assert_eq!(west.store.listing(), east.store.listing());
    // Nothing more to do, and the listing's ETag says so.
    let mut known = HashMap::new();
    replicator(&west).round(&mut known).await;
    assert_eq!(replicator(&west).round(&mut known).await.copied, 0);
    assert_eq!(known.len(), 1);
}

#[tokio::test]
async fn a_pull_of_what_only_another_region_has_is_answered_and_kept() {
    let (west, east) = (Region::start("west").await, Region::start("east").await);
    let digest = push(&west, "ghcr.io/team/app:1", "x").await;
    east.know(&[&west]);
    let response = east.get("/v2/team/app/manifests/1?ns=ghcr.io").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let manifest: serde_json::Value = response.json().await.unwrap();
    let layer: Digest = manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    let path = format!("/v2/team/app/blobs/{layer}?ns=ghcr.io");
    // Who pushes asks with HEAD, and must be told what is here.
    let head = client().head(format!("{}{path}", east.url)).send().await.unwrap();
    assert_eq!(head.status(), 404);
    let blob = east.get(&path).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(Digest::of(&blob), layer);
    assert!(east.store.blob_len(&layer).is_some());
    // The peers' face never asks on.
    let absent = client()
        .get(format!("{}/v2/team/app/manifests/{digest}?ns=ghcr.io", east.peer_url))
        .send()
        .await
        .unwrap();
    assert_eq!(codes(absent).await, (404, vec!["MANIFEST_UNKNOWN".into()]));
}

#[tokio::test]
async fn a_region_that_does_not_answer_is_not_asked_for_every_blob() {
    let east = Region::start("east").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        // Accepts and hangs up.
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    east.peers.set(vec![Peer {
        region: "west".into(),
        base_url,
        client: client(),
    }]);
    for n in 0..20_u8 {
        let path = format!("/v2/sample/blobs/{}", Digest::of(&[n]));
        let refused = codes(east.get(&path).send().await.unwrap()).await;
        assert_eq!(refused, (404, vec!["BLOB_UNKNOWN".into()]));
    }
    assert!(asked.load(Ordering::SeqCst) < 5, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tampered_blob_is_found_moved_aside_and_fetched_again() {
    let (west, east) = (Region::start("west").await, Region::start("east").await);
    west.know(&[&east]);
    east.know(&[&west]);
    let digest = push(&west, "sample:1", "x").await;
    replicator(&east).round(&mut HashMap::new()).await;
    let manifest = west.store.read_small(&digest).unwrap().unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer: Digest = manifest["layers"][1]["digest"].as_str().unwrap().parse().unwrap();
    let inventory = Inventory::new(east.store.clone());
    assert_eq!(
        inventory.check_verified(&["sample:1"]).await.unwrap()[0].state,
        Held::Present
    );

    let mut bytes = std::fs::read(east.blob_path(&layer)).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(east.blob_path(&layer), &bytes).unwrap();
    assert_eq!(
        inventory.check(&["sample:1"])[0].state,
        Held::Unverified { blobs: vec![layer] }
    );
    assert_eq!(
        inventory.check_verified(&["sample:1"]).await.unwrap()[0].state,
        Held::Corrupt { blobs: vec![layer] }
    );
    assert_eq!(
        std::fs::read_dir(east.dir.path().join("quarantine")).unwrap().count(),
        1
    );
    // Replication mends it without being told by anybody else.
    let running = tokio::spawn(replicator(&east).run());
    arrives(&east, "sample:1", digest).await;
    running.abort();
}

#[tokio::test]
async fn a_tampered_blob_is_not_served() {
    let (west, east) = (Region::start("west").await, Region::start("east").await);
    let digest = west.push_blob(b"content").await;
    let path = format!("/v2/sample/blobs/{digest}");
    assert_eq!(west.get(&path).send().await.unwrap().text().await.unwrap(), "content");
    std::fs::write(west.blob_path(&digest), b"contend").unwrap();
    assert_eq!(
        codes(west.get(&path).send().await.unwrap()).await,
        (404, vec!["BLOB_UNKNOWN".into()])
    );
    // With a region that has it, the reader notices nothing.
    east.push_blob(b"content").await;
    west.know(&[&east]);
    assert_eq!(west.get(&path).send().await.unwrap().text().await.unwrap(), "content");
}

/// What a lying peer does to a blob.
type Spoil = fn(&mut Vec<u8>);

/// A peer that answers as the store behind it does, but with every blob spoilt.
async fn liar(State((behind, spoil)): State<(String, Spoil)>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().to_string();
    let answer = client().get(format!("{behind}{path}")).send().await.unwrap();
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
    let mut bytes = answer.bytes().await.unwrap().to_vec();
    if path.contains("/blobs/") {
        spoil(&mut bytes);
    }
    (status, Body::from(bytes)).into_response()
}

#[tokio::test]
async fn a_peer_that_sends_other_bytes_than_promised_gets_nothing_stored() {
    let west = Region::start("west").await;
    push(&west, "sample:1", "x").await;
    let spoils: [(&str, Spoil); 3] = [
        ("changed", |bytes| bytes[0] ^= 1),
        ("longer", |bytes| bytes.push(0)),
        ("shorter", |bytes| bytes.truncate(bytes.len() / 2)),
    ];
    for (name, spoil) in spoils {
        let east = Region::start("east").await;
        let base_url = serve(Router::new().fallback(liar).with_state((west.peer_url.clone(), spoil))).await;
        east.peers.set(vec![Peer {
            region: "west".into(),
            base_url,
            client: client(),
        }]);
        let mut known = HashMap::new();
        let round = replicator(&east).round(&mut known).await;
        assert!(!round.failed.is_empty() && known.is_empty(), "{name}");
        assert!(east.store.listing().repositories.is_empty(), "{name}");
        assert_eq!(
            std::fs::read_dir(east.dir.path().join("blobs/sha256")).unwrap().count(),
            0,
            "{name}"
        );
        assert_eq!(east.leftovers(), 0, "{name}");
        // With an honest peer beside it the copy is made.
        east.peers.set(vec![east.peers.list()[0].clone(), west.as_peer()]);
        let round = replicator(&east).round(&mut known).await;
        assert!(round.failed.is_empty(), "{name}: {:?}", round.failed);
        assert_eq!(west.store.listing(), east.store.listing());
    }
}

/// A peer that breaks off every answer of a blob that does not ask for a range, after half of it.
async fn breaker(State(behind): State<String>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().to_string();
    let mut ask = client().get(format!("{behind}{path}"));
    let range = request.headers().get("range").cloned();
    if let Some(range) = &range {
        ask = ask.header("range", range);
    }
    let answer = ask.send().await.unwrap();
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
    let bytes = answer.bytes().await.unwrap();
    if path.contains("/blobs/") && range.is_none() {
        let half = bytes.slice(..bytes.len() / 2);
        let cut = async {
            // What came before goes out while the rest is not there yet.
            tokio::task::yield_now().await;
            Err(std::io::Error::other("cut"))
        };
        let broken = futures::stream::iter([Ok(half)]).chain(futures::stream::once(cut));
        return (status, Body::from_stream(broken)).into_response();
    }
    (status, Body::from(bytes)).into_response()
}

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_was() {
    let (west, east) = (Region::start("west").await, Region::start("east").await);
    push(&west, "sample:1", "x").await;
    let base_url = serve(Router::new().fallback(breaker).with_state(west.peer_url.clone())).await;
    east.peers.set(vec![Peer {
        region: "west".into(),
        base_url,
        client: client(),
    }]);
    let round = replicator(&east).round(&mut HashMap::new()).await;
    assert!(round.failed.is_empty(), "{:?}", round.failed);
    assert_eq!(west.store.listing(), east.store.listing());
}

#[tokio::test]
async fn an_index_is_copied_with_its_members_and_present_with_this_platforms() {
    let (west, east) = (Region::start("west").await, Region::start("east").await);
    let members = [push(&west, "sample:a", "a").await, push(&west, "sample:b", "b").await];
    let arch = oci_spec::image::Arch::default().to_string();
    let member = |digest: &Digest, arch: &str| {
        let size = west.store.blob_len(digest).unwrap();
        serde_json::json!({"mediaType": leeward_images::manifest::OCI_MANIFEST, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": arch}})
    };
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": leeward_images::manifest::OCI_INDEX,
        "manifests": [member(&members[0], "riscv64"), member(&members[1], &arch)]});
    let put = client()
        .put(format!("{}/v2/sample/manifests/multi", west.url))
        .header("content-type", leeward_images::manifest::OCI_INDEX)
        .body(index.to_string());
    assert_eq!(put.send().await.unwrap().status(), 201);
    east.know(&[&west]);
    replicator(&east).round(&mut HashMap::new()).await;
    let inventory = Inventory::new(east.store.clone());
    assert_eq!(
        inventory.check_verified(&["sample:multi"]).await.unwrap()[0].state,
        Held::Present
    );
    // Losing a blob of the other platform does not matter here.
    let other: serde_json::Value =
        serde_json::from_slice(&east.store.read_small(&members[0]).unwrap().unwrap()).unwrap();
    let layer: Digest = other["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    std::fs::remove_file(east.blob_path(&layer)).unwrap();
    assert_eq!(inventory.check(&["sample:multi"])[0].state, Held::Present);
    assert_eq!(
        inventory.check(&["sample:a"])[0].state,
        Held::Missing { blobs: vec![layer] }
    );
}

#[tokio::test]
async fn what_was_verified_stays_so_over_a_restart_and_a_second_opener_is_refused() {
    let mut region = Region::start("west").await;
    push(&region, "sample:1", "x").await;
    let inventory = Inventory::new(region.store.clone());
    inventory.check_verified(&["sample:1"]).await.unwrap();
    let refused = Store::open(region.dir.path());
    assert!(refused.is_err_and(|error| error.to_string().contains("in use")));
    drop(inventory);
    // The servers hold the store too, so that a copy of the directory stands for the restart: its stamps do not match the
    // copied files, and nothing counts until it was hashed there.
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(region.dir.path())
        .arg(copy.path().join("store"))
        .status();
    assert!(status.unwrap().success());
    region.store = Store::open(&copy.path().join("store")).unwrap();
    let inventory = Inventory::new(region.store.clone());
    let state = inventory.check(&["sample:1"])[0].state.clone();
    assert!(matches!(state, Held::Unverified { .. }), "{state:?}");
    assert_eq!(
        inventory.check_verified(&["sample:1"]).await.unwrap()[0].state,
        Held::Present
    );
    drop((inventory, region));
}
