//! kubectl's sessions on a local region, against what a real cluster printed when they were recorded.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::path::Path;

use leeward_api_diff::session::{self, compare, play};
use leeward_api_diff::target;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_prints_what_it_printed_on_a_real_cluster() {
    let kubectl = Path::new("kubectl");
    if play::which(kubectl).is_err() {
        eprintln!("skipped: kubectl is not installed");
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("session");
    let local = target::Local::start().await.unwrap();
    let cluster = play::Cluster::new(&local.kubeconfig(), kubectl, "box:1").await.unwrap();
    let (mut wrong, mut commands) = (Vec::new(), 0);
    for session in session::read(&here).unwrap() {
        let Some(real) = session::recorded(&here.join("recorded"), &session.name).unwrap() else {
            continue;
        };
        if session.pods {
            continue;
        }
        commands += session.steps.len();
        let printed = cluster.play(&session).await.unwrap();
        wrong.extend(compare::differences(&session, &printed, &real));
    }
    assert!(commands > 100, "the sessions have their records");
    assert!(wrong.is_empty(), "{} commands\n{}", wrong.len(), wrong.join("\n"));
}
