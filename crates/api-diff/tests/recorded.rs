//! A local region against what a real API server answered when the cases were recorded.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::path::Path;

use futures::StreamExt as _;
use leeward_api_diff::difference::{Accepted, differences};
use leeward_api_diff::{Words, answers, case, recorded, target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_region_answers_every_case_as_a_real_api_server_did() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let accepted = Accepted::read(&here.join("accepted.yaml")).unwrap();
    assert!(accepted.len() < 20, "the list of accepted differences stays short");
    let local = target::Local::start().await.unwrap();
    let client = target::client(&local.kubeconfig()).await.unwrap();
    let mut wrong = Vec::new();
    for (stem, cases) in case::read(&here.join("cases")).unwrap() {
        let recorded = recorded::read(&here.join("answers"), &stem).unwrap();
        let mut played = futures::stream::iter(&cases)
            .map(|case| {
                let client = client.clone();
                async move { (case, answers(&client, case, &Words::new()).await) }
            })
            .buffered(8);
        while let Some((case, local)) = played.next().await {
            let Some(real) = recorded.get(&case.name) else {
                wrong.push(format!("{stem}: \"{}\" has no recorded answers", case.name));
                continue;
            };
            match local {
                Err(error) => wrong.push(format!("{stem}: {error:#}")),
                Ok(local) => {
                    let local = recorded::record(case, &local);
                    for (index, (local, real)) in local.iter().zip(real).enumerate() {
                        let mut found = differences(&case.name, index, local, real);
                        found.retain(|difference| !accepted.iter().any(|entry| entry.covers(difference)));
                        wrong.extend(found.iter().map(ToString::to_string));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}
