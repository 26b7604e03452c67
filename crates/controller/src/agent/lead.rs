//! Deciding. One agent at a time leads; which one is a lease of its own in the quorum, taken like every other when it is
//! over. Leading is for order, not for safety: every commit compares all that it rests on, so that two leaders do no harm.

use std::{sync::Arc, time::Duration};

use leeward_core::lease::{Lease, Moment};
use leeward_quorum::{Error, Txn, key, known::Situation};
use tokio_util::sync::CancellationToken;

use super::{
    Agent,
    decide::{self, Look},
    follow,
};
use crate::clock;

/// How often is looked again while something is under way or somebody is not seen.
const BUSY: Duration = Duration::from_millis(50);

/// Leads whenever it is this agent's turn, until `stop`.
pub async fn run(agent: Arc<Agent>, stop: CancellationToken) {
    let mut changes = agent.changes();
    let mut renewed: Option<Moment> = None;
    loop {
        let quiet = agent.timing.renew_every() / 2;
        let busy = !agent.unseen().is_empty() || agent.known().situations().any(|situation| under_way(situation));
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => { changes.borrow_and_update(); }
            () = tokio::time::sleep(if busy { BUSY.min(quiet) } else { quiet }) => {}
        }
        // Whoever does not act hears of nobody.
        if !agent.acts() {
            continue;
        }
        match lead(&agent, &mut renewed).await {
            Ok(true) => decide(&agent).await,
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "nobody can be leader now");
                tokio::time::sleep(BUSY).await;
            }
        }
    }
}

fn under_way(situation: &Situation) -> bool {
    situation.plan().is_none_or(|plan| plan.operation.is_some())
}

/// Renews or takes the leader's lease; whether this agent leads.
async fn lead(agent: &Agent, renewed: &mut Option<Moment>) -> Result<bool, Error> {
    let now = clock::now();
    let known = agent.known();
    let mine = known
        .leader
        .as_ref()
        .is_some_and(|sight| sight.lease.holder == agent.holder);
    if mine && renewed.is_some_and(|at| now < at.after(agent.timing.renew_every())) {
        return Ok(true);
    }
    let (sequence, revision) = match &known.leader {
        None => (1, 0),
        Some(sight) if mine || sight.over(&agent.timing, now) => (sight.lease.sequence + 1, sight.revision),
        Some(_) => return Ok(false),
    };
    let lease = Lease {
        cluster: agent.me.clone(),
        holder: agent.holder.clone(),
        sequence,
        sealed: false,
    };
    let txn = Txn::default()
        .expect(key::LEADER, revision)
        .put(key::LEADER, &lease)?
        .read(key::LEADER);
    let outcome = agent.quorum.txn(txn).await?;
    agent.learn(|known| follow::take(known, outcome.entries));
    if outcome.applied {
        if !mine {
            tracing::info!(cluster = %agent.me, "leads from now on");
        }
        *renewed = Some(now);
    }
    Ok(outcome.applied)
}

/// Takes the next decision for each application.
async fn decide(agent: &Agent) {
    let decisions = {
        let known = agent.known();
        let look = Look {
            known: &known,
            unseen_by: &agent.unseen_by(),
            holders: &agent.holders(),
            reports: &|app| agent.reports(app),
            timing: &agent.timing,
            drains: agent.moves_together,
            now: clock::now(),
            wall_ms: clock::wall_ms(),
        };
        decide::plan_all(&look)
    };
    let sound = decisions.into_iter().filter_map(|decision| {
        decision
            .inspect_err(|defect| tracing::error!(%defect, "nothing is decided"))
            .ok()
    });
    decide::commit_all(&*agent.quorum, sound.collect(), |entries| {
        agent.learn(|known| follow::take(known, entries));
    })
    .await;
}
