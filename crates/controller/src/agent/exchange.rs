//! Reports between agents, and heartbeats to the witness, several times within a lease. Whoever is not heard of for half a
//! lease is not seen; each observer's word is one vote.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Extension, Json, Router, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use leeward_core::{
    lease::Moment,
    name::{ClusterName, Incarnation},
    report::ClusterReport,
};
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::{
    clock,
    peer::PeerName,
    witness::{HEARTBEAT, Sights},
};

const REPORT: &str = "/v1/report";
/// The incarnation of the quorum that who reports knows. A header, so that an agent that does not know of it yet reads the report all the same.
const INCARNATION: &str = "leeward-incarnation";

/// The longest time between two reports.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// Where reports are received.
pub fn router(agent: Arc<Agent>) -> Router {
    Router::new().route(REPORT, post(receive)).with_state(agent)
}

async fn receive(
    State(agent): State<Arc<Agent>>,
    Extension(PeerName(name)): Extension<PeerName>,
    headers: HeaderMap,
    Json(report): Json<ClusterReport>,
) -> Result<(), (StatusCode, String)> {
    if report.cluster.as_str() != name {
        return Err((
            StatusCode::FORBIDDEN,
            format!("{name} may not report for {}", report.cluster),
        ));
    }
    let incarnation = headers
        .get(INCARNATION)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    agent.hear_incarnation(&report.cluster, Incarnation(incarnation.unwrap_or(0)));
    agent.hear(report);
    Ok(())
}

/// Reports until `stop`.
pub async fn run(agent: Arc<Agent>, stop: CancellationToken) {
    let every = agent.timing.renew_every().min(AT_LEAST_EVERY);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut changes, mut figures) = (agent.changes(), agent.figures());
    let mut last = None;
    loop {
        let mut for_peers_alone = false;
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            _ = changes.changed() => {
                changes.borrow_and_update();
                // Only news is worth a report between two ticks.
                if last.as_ref() == Some(&report(&agent)) {
                    continue;
                }
            }
            _ = figures.changed() => {
                figures.borrow_and_update();
                for_peers_alone = true;
            }
        }
        let report = report(&agent);
        last = Some(report.clone());
        let (incarnation, _) = agent.known().incarnation();
        let mut sends = tokio::task::JoinSet::new();
        let peers = if agent.speaks() { agent.peers() } else { Arc::default() };
        for peer in peers.iter() {
            let request = agent
                .http
                .post(format!("{}{REPORT}", peer.url))
                .timeout(every)
                .header(INCARNATION, incarnation.0)
                .json(&report);
            // Whether it arrived shows in what is heard from the other side.
            sends.spawn(async move {
                let _ = request.send().await;
            });
        }
        // The region lives while any of its agents does.
        if !for_peers_alone {
            let witness = Arc::clone(&agent);
            sends.spawn(async move { heartbeat(&witness, every).await });
        }
        // A peer that hangs must not hold up the next report to the others by more than its time-out.
        sends.join_all().await;
    }
}

fn report(agent: &Agent) -> ClusterReport {
    ClusterReport {
        cluster: agent.me.clone(),
        holder: agent.holder.clone(),
        apps: agent.said(),
        unseen: agent.unseen(),
    }
}

async fn heartbeat(agent: &Agent, timeout: Duration) {
    let asked = clock::now();
    let answer = agent
        .http
        .post(format!("{}{HEARTBEAT}", agent.witness_url))
        .timeout(timeout)
        .send()
        .await;
    let Ok(answer) = answer else { return };
    let Ok(sights) = answer.json::<Sights>().await else {
        return;
    };
    let heard: BTreeMap<ClusterName, Moment> = sights
        .heard_ms_ago
        .into_iter()
        .map(|(cluster, ms)| (cluster, Moment(asked.since(Moment(Duration::from_millis(ms))))))
        .collect();
    agent.hear_witness(heard);
}
