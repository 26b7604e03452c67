//! A witness that runs on what `leeward join` writes while all of it is replaced.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use leeward_controller::peer::{Credentials, Look};
use serde_json::Value;

use crate::desk::{Desk, PATIENCE};

/// An agent's side, as it mounts what is rendered.
struct Side {
    directory: PathBuf,
    credentials: Credentials,
}

impl Side {
    fn new(desk: &Desk, cluster: &str) -> Self {
        let directory = desk.path(cluster);
        fs::create_dir(&directory).unwrap();
        write(&directory, &desk.identity(cluster));
        let file = |name: &str| directory.join(name);
        let credentials = Credentials::read(&file("ca.crt"), &file("tls.crt"), &file("tls.key")).unwrap();
        Self { directory, credentials }
    }

    fn apply(&self, desk: &Desk, cluster: &str) {
        write(&self.directory, &desk.identity(cluster));
        assert_eq!(self.credentials.look(), Look::Taken);
    }
}

fn write(directory: &Path, identity: &BTreeMap<String, String>) {
    for (name, text) in identity {
        fs::write(directory.join(name), text).unwrap();
    }
}

async fn beat(client: &reqwest::Client, url: &str) -> Result<Value, String> {
    let answer = client.post(format!("{url}/v1/heartbeat")).send().await;
    let answer = answer
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| format!("{error:?}"))?;
    answer.json().await.map_err(|error| format!("{error:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_that_runs_goes_through_a_new_authority_and_answers_every_request() {
    let desk = Desk::new();
    let [address] = leeward_testing::free().unwrap();
    desk.init(&address.to_string());
    let out = desk.path("witness");
    let witness = ["witness", "--out", "witness", "--at", out.to_str().unwrap()];
    let running = desk.witness(address);
    let url = format!("https://{address}");
    let sides = ["west", "east"].map(|name| (name, Side::new(&desk, name)));
    let client = sides[0].1.credentials.client().unwrap();
    let waited = tokio::time::timeout(PATIENCE, async {
        while beat(&client, &url).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap();

    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..2)
        .map(|task| {
            let (credentials, url, over) = (sides[task].1.credentials.clone(), url.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let (mut asked, mut failed) = (0, vec![]);
                let kept = credentials.client().unwrap();
                while !over.load(Ordering::Relaxed) {
                    // One connection that is kept, and a new one each time.
                    for client in [&kept, &credentials.client().unwrap()] {
                        asked += 1;
                        failed.extend(beat(client, &url).await.err());
                    }
                }
                (asked, failed)
            })
        })
        .collect();
    let mut first = None;
    for step in ["trust", "use", "drop"] {
        desk.expect(0, &["authority", step]);
        for (name, side) in &sides {
            side.apply(&desk, name);
        }
        desk.expect(0, &witness);
        running.until("the new certificates are in use");
        first.get_or_insert_with(|| fs::read(out.join("tls.crt")).unwrap());
    }
    assert_ne!(first.unwrap(), fs::read(out.join("tls.crt")).unwrap());
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        let (asked, failed) = task.await.unwrap();
        assert!(
            asked > 20 && failed.is_empty(),
            "{} of {asked}: {failed:?}",
            failed.len()
        );
    }
    let heard = beat(&client, &url).await.unwrap();
    assert!(heard["heard_ms_ago"].get("east").is_some(), "{heard}");
    let (out, _) = desk.expect(0, &["status"]);
    assert!(out.contains("authority 2") && !out.contains("authority 1"), "{out}");
    assert!(!desk.path("leeward-installation/authority-1.pem").exists());
}
