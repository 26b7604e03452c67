//! What a leader does at each look: the next decision for every application, and all of them sent.
//!
//! [`plan_all`] decides and does nothing; [`commit_all`] sends, many at a time. A decision that finds that another one came before it is
//! taken anew at the next look.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use leeward_core::{
    check::{Violation, check},
    incarnation::decided_in,
    lease::{Moment, Timing},
    maintenance::DRAIN,
    name::{AppKey, ClusterName},
    plan::{self, Change, Commit},
    report::{AppReport, Seen},
};
use leeward_quorum::{
    Entry, Error, Store, Txn, commit, key,
    known::{Known, Situation},
};

/// Decisions that are sent at the same time.
const TOGETHER: usize = 32;

/// What each cluster says of an application.
pub type Reports<'a> = &'a dyn Fn(&AppKey) -> BTreeMap<ClusterName, Seen<AppReport>>;

/// Everything that the decisions rest on.
pub struct Look<'a> {
    /// The copy of the quorum.
    pub known: &'a Known,
    /// For each cluster, the observers that cannot see it.
    pub unseen_by: &'a BTreeMap<ClusterName, BTreeSet<String>>,
    /// The process that reported last from each cluster.
    pub holders: &'a BTreeMap<ClusterName, String>,
    /// What the clusters say.
    pub reports: Reports<'a>,
    /// The lengths of leases.
    pub timing: &'a Timing,
    /// How many applications may be moving off drained clusters at the same time.
    pub drains: usize,
    /// This observer's monotonic clock.
    pub now: Moment,
    /// The wall clock, for records; Unix ms.
    pub wall_ms: u64,
}

/// A decision, ready to be sent.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Why.
    pub why: String,
    /// All that it compares and changes.
    pub txn: Txn,
}

/// What was planned and must not be sent: a defect of the program.
#[derive(Debug, thiserror::Error)]
pub enum Defect {
    /// `check` refused it.
    #[error("a plan was refused, which is a defect of the planner: {violation} ({why})")]
    Refused {
        /// Why it was planned.
        why: String,
        /// What it breaks.
        violation: Violation,
    },
    /// It cannot be written down.
    #[error("a decision about {app} cannot be written: {error}")]
    Unwritable {
        /// The application.
        app: AppKey,
        /// Why.
        error: Error,
    },
}

/// The next decision for each application that needs one, or what is wrong with it. Of the applications of a lost cluster the first one seals its lease; the others
/// follow once that is known, all together.
pub fn plan_all(look: &Look<'_>) -> Vec<Result<Decision, Defect>> {
    let (incarnation, _) = look.known.incarnation();
    let mut sealing = BTreeSet::new();
    let mut decisions = Vec::new();
    let mut draining = look
        .known
        .situations()
        .filter(|situation| is_draining(situation))
        .count();
    for situation in look.known.situations() {
        let app = &situation.app.value.key;
        let reports = (look.reports)(app);
        let mut snapshot = situation.snapshot(look.known, look.unseen_by, look.holders.clone(), reports);
        snapshot.may_drain = draining < look.drains;
        let Some(commit) = plan::decide(&snapshot, look.timing, look.now, look.wall_ms) else {
            continue;
        };
        if let Err(violation) = check(&commit, &snapshot, look.timing, look.now) {
            let why = commit.why;
            decisions.push(Err(Defect::Refused { why, violation }));
            continue;
        }
        let seals = commit.changes.iter().find_map(|change| match change {
            Change::Seal(cluster) => Some(cluster.clone()),
            _ => None,
        });
        if seals.is_some_and(|cluster| !sealing.insert(cluster)) {
            continue;
        }
        draining += usize::from(drains(&commit));
        let commit = decided_in(incarnation, commit);
        let txn = commit::txn(app, &look.known.sights, &commit);
        decisions.push(match txn {
            Ok(txn) => Ok(Decision {
                why: commit.why,
                // The specification that was decided on must still be the accepted one, and the incarnation be known.
                txn: txn
                    .expect(key::spec(app), situation.app.revision)
                    .expect(key::INCARNATION, situation.begun),
            }),
            Err(error) => Err(Defect::Unwritable {
                app: app.clone(),
                error,
            }),
        });
    }
    decisions
}

fn is_draining(situation: &Situation) -> bool {
    let operation = situation.plan().and_then(|plan| plan.operation.as_ref());
    operation.is_some_and(|operation| operation.id.starts_with(DRAIN))
}

fn drains(commit: &Commit) -> bool {
    commit.changes.iter().any(|change| match change {
        Change::Plan(plan) => plan.operation.iter().any(|operation| operation.id.starts_with(DRAIN)),
        _ => false,
    })
}

/// Sends decisions; `learn` is told what was read, in few pieces. How many were applied.
pub async fn commit_all(store: &dyn Store, decisions: Vec<Decision>, mut learn: impl FnMut(Vec<Entry>)) -> usize {
    let mut applied = 0;
    let mut sent = futures::stream::iter(decisions)
        .map(|decision| async move { (decision.why, store.txn(decision.txn).await) })
        .buffer_unordered(TOGETHER)
        .ready_chunks(TOGETHER);
    while let Some(answers) = sent.next().await {
        let mut entries = Vec::new();
        for (why, answer) in answers {
            match answer {
                Ok(outcome) => {
                    if outcome.applied {
                        applied += 1;
                        tracing::info!("{why}");
                    } else {
                        tracing::debug!(why, "something changed meanwhile: decided anew");
                    }
                    entries.extend(outcome.entries);
                }
                Err(error) => tracing::warn!(%error, why, "a decision was not committed"),
            }
        }
        learn(entries);
    }
    applied
}

#[cfg(test)]
mod tests;
