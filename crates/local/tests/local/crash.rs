//! The API as a process that is killed at random moments, or whose disk is full: what it acknowledged is there afterwards,
//! and no watch misses or repeats an event.
//!
//! The moments come from a seed. `LEEWARD_KILLS` says how many (a few by default), `LEEWARD_SEED` which.

#[path = "crash/process.rs"]
mod process;
#[path = "crash/watcher.rs"]
mod watcher;
#[path = "crash/writer.rs"]
mod writer;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use process::ApiProcess;
use watcher::Watcher;
use writer::{Phase, Writer};

const WRITERS: usize = 4;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Not a test: the process that the tests below start and kill.
#[test]
#[ignore = "the API process of the other tests"]
fn api_process() {
    process::run();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills_and_no_watch_misses_or_repeats_an_event() {
    let kills = number("LEEWARD_KILLS", 8);
    let seed = number("LEEWARD_SEED", rand::random());
    println!("{kills} kills, LEEWARD_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut api = ApiProcess::new(&[]);
    let maps: Api<ConfigMap> = Api::namespaced(api.client().await, "default");
    api.start().await;
    let (phase, phases) = tokio::sync::watch::channel(Phase::Write(0));
    let begin = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let all = Watcher::start(maps.clone(), "", &begin);
    let some = Watcher::start(maps.clone(), "shown=yes", &begin);
    let mut writers: Vec<Writer> = (0..WRITERS)
        .map(|i| Writer::start(i, maps.clone(), StdRng::seed_from_u64(random.random()), phases.clone()))
        .collect();
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_micros(random.random_range(0..60_000))).await;
        api.kill().await;
        // Every writer notices by itself, and stops at what it cannot know.
        phase.send_replace(Phase::Settle);
        for writer in &mut writers {
            writer.settled().await;
        }
        api.start().await;
        let there = maps.list(&ListParams::default()).await.unwrap();
        for writer in &mut writers {
            writer.compare(&there).await;
        }
        phase.send_replace(Phase::Write(kill + 1));
    }
    phase.send_replace(Phase::Stop);
    let mut acknowledged = BTreeSet::new();
    for writer in writers {
        acknowledged.extend(writer.finish().await);
    }
    let there = maps.list(&ListParams::default()).await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    for (watcher, selector) in [(&all, ""), (&some, "shown=yes")] {
        watcher.reaches(&maps, selector, end).await;
    }
    let seen = all.seen();
    let missed: Vec<&u64> = acknowledged.difference(&seen).collect();
    assert!(missed.is_empty(), "the watch never showed {missed:?}");
    println!(
        "{kills} kills: {} acknowledged writes with a revision, {} objects at the end, {} and {} events, {} and {} times resumed",
        acknowledged.len(),
        there.items.len(),
        seen.len(),
        some.seen().len(),
        all.resumed(),
        some.resumed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_with_a_status_and_loses_nothing() {
    // The limit stands for the disk: writing beyond it fails in the same way.
    let mut api = ApiProcess::new(&[
        "prlimit",
        "--fsize=6000000:unlimited",
        "sh",
        "-c",
        "trap '' XFSZ; exec \"$0\" \"$@\"",
    ]);
    let client = api.client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    api.start().await;
    let large = |i: u32| -> ConfigMap {
        let value = json!({"metadata": {"name": format!("m{i}")}, "data": {"k": "x".repeat(200_000)}});
        serde_json::from_value(value).unwrap()
    };
    let mut kept = Vec::new();
    let refused = loop {
        assert!(kept.len() < 1000, "the disk never fills");
        match maps.create(&PostParams::default(), &large(kept.len() as u32)).await {
            Ok(made) => kept.push(made.metadata.name.unwrap()),
            Err(kube::Error::Api(status)) => break status,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (507, "InsufficientStorage"),
        "{refused:?}"
    );
    assert!(refused.message.contains("free some space"), "{refused:?}");
    assert!(!kept.is_empty());
    let is_there = |name: String| {
        let maps = maps.clone();
        async move { assert!(maps.get(&name).await.is_ok(), "{name} is lost") }
    };
    for name in kept.clone() {
        is_there(name).await;
    }
    let raised = std::process::Command::new("prlimit")
        .args(["--fsize=unlimited:unlimited", "--pid", &api.id().to_string()])
        .status();
    assert!(raised.unwrap().success());
    kept.push(
        maps.create(&PostParams::default(), &large(2000))
            .await
            .unwrap()
            .metadata
            .name
            .unwrap(),
    );
    api.kill().await;
    api.start().await;
    for name in kept {
        is_there(name).await;
    }
}
