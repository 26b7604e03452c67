//! What the quorum is written while nothing happens: the tasks of agents that follow it, renew their leases and lead.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use leeward_controller::agent::{Agent, Start, follow, lead, renew};
use leeward_core::{lease::Timing, name::ClusterName};
use leeward_quorum::{Store, Txn};
use tokio_util::sync::CancellationToken;

/// How long agents may take to hold their leases and to have a leader.
const PATIENCE: Duration = Duration::from_secs(60);

/// The writes a second in two lengths of a lease, once every region holds its own and one leads. Each write raises the store's revision by one.
pub(super) async fn writes_a_second(store: &Arc<dyn Store>, regions: &[ClusterName], timing: Timing) -> Result<f64> {
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let agents: Vec<_> = regions
        .iter()
        .map(|region| Agent::new(Start::alone(region.clone(), timing, Arc::clone(store))))
        .collect();
    for agent in &agents {
        tokio::spawn(follow::run(Arc::clone(agent), stop.clone()));
        tokio::spawn(renew::run(Arc::clone(agent), stop.clone()));
        tokio::spawn(lead::run(Arc::clone(agent), stop.clone()));
    }
    let begun = Instant::now();
    // Each has renewed at least once what it took.
    let at_rest = |agent: &Arc<Agent>| {
        let known = agent.known();
        let renewed = known
            .sights
            .values()
            .chain(&known.leader)
            .filter(|sight| sight.lease.sequence > 1);
        renewed.count() == regions.len() + 1
    };
    while !agents.iter().all(at_rest) {
        ensure!(begun.elapsed() < PATIENCE, "not every region took its lease");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (before, began) = (revision(&**store).await?, Instant::now());
    tokio::time::sleep(timing.ttl * 2).await;
    let (after, lasted) = (revision(&**store).await?, began.elapsed());
    Ok((after - before) as f64 / lasted.as_secs_f64())
}

/// The store's newest revision.
pub(super) async fn revision(store: &dyn Store) -> Result<u64> {
    let read = store.txn(Txn::default().read("leader")).await;
    Ok(read.context("the quorum does not tell its revision")?.revision)
}
