//! An application that moves: the takeover from a lost cluster, and the planned way.

use std::time::Duration;

use super::{
    Case, Change, Commit, Expect, advance, highest_epoch,
    ready::{out_of_sync, target, unhealthy},
};
use crate::{
    app::App,
    lease::{Hold, Role},
    maintenance::in_service,
    name::ClusterName,
    operation::{Finished, Kind, Operation, Outcome, Request, Step, StepName, is_done},
};

/// A switchover whose source is lost before its target took the roles. Until they were given back it is a failover to the same target; where
/// that one is lost as well, or may lack too much, to another one as if nothing had been under way. What was given back a living target takes in
/// order.
pub(super) fn source_lost(case: &Case<'_>, operation: &Operation) -> Option<Commit> {
    let snapshot = case.snapshot;
    let (from, to) = (&operation.from, &operation.to);
    let lost = operation.kind == Kind::Switchover && case.is_lost(from);
    let holds = snapshot.roles.values().any(|role| role.value.owner == *from);
    if !lost || snapshot.app.paused || !(holds || snapshot.app.roles.is_empty()) {
        return None;
    }
    let lives = unhealthy(case, to).is_empty();
    let released = is_done(&snapshot.journal, StepName::Release);
    if lives && released {
        return None;
    }
    if lives && out_of_sync(snapshot, to).is_empty() {
        return take_over(case, from, to, None);
    }
    // Nobody asked for another one.
    let another = snapshot.app.fails_over().then(|| target(case, from).ok()).flatten()?;
    take_over(case, from, &another, None)
}

/// Fails over by itself when the active cluster is lost and a standby lives, is ready and in sync.
pub(super) fn automatic(case: &Case<'_>) -> Option<Commit> {
    let active = &case.plan.value.active;
    if !case.snapshot.app.fails_over() || !case.is_lost(active) {
        return None;
    }
    take_over(case, active, &target(case, active).ok()?, None)
}

/// When the last sign of a cluster was seen, a renewal or a report: until then it may have written. Wall clock, Unix ms.
fn last_sign_ms(case: &Case<'_>, cluster: &ClusterName) -> u64 {
    let report = case
        .snapshot
        .reports
        .get(cluster)
        .map_or(Duration::MAX, |seen| seen.age);
    let renewal = case.snapshot.leases.get(cluster);
    let renewal = renewal.map_or(Duration::MAX, |sight| case.now.since(sight.first_seen));
    case.wall_ms.saturating_sub(ms(report.min(renewal)))
}

pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The takeover: lease sealed, roles and epoch moved, plan advanced, all in one transaction.
pub(super) fn take_over(
    case: &Case<'_>,
    from: &ClusterName,
    to: &ClusterName,
    request: Option<&Request>,
) -> Option<Commit> {
    let (snapshot, plan) = (case.snapshot, case.plan);
    let sight = snapshot.leases.get(from)?;
    let epoch = highest_epoch(snapshot).next();
    let in_sync = out_of_sync(snapshot, to).is_empty();
    let operation = Operation {
        id: request.map_or_else(
            || format!("failover-{}-{epoch}", plan.value.generation.next()),
            |r| r.id.clone(),
        ),
        kind: Kind::Failover,
        from: from.clone(),
        to: to.clone(),
        epoch,
        began_ms: last_sign_ms(case, from),
        decided_ms: case.wall_ms,
        steps: steps(snapshot.app, Kind::Failover, from, to),
        accepted_loss_ms: request.and_then(|request| request.accept_loss_ms).filter(|_| !in_sync),
    };
    let why = format!(
        "{from} is lost and fenced: {} fails over to {to} at epoch {epoch}",
        snapshot.app.key
    );
    let broken_off = plan.value.operation.as_ref().map(|running| Finished {
        operation: running.clone(),
        ended_ms: case.wall_ms,
        outcome: Outcome::Failed(format!(
            "{from} was lost before it ended; {} has failed over to {to} at epoch {epoch}",
            snapshot.app.key
        )),
    });
    let mut commit = advance(
        plan,
        |next| {
            next.active = to.clone();
            next.operation = Some(operation);
            next.finished = broken_off.or(next.finished.take());
        },
        why,
    );
    commit.expects.push(in_service(snapshot, to));
    commit.expects.push(Expect::Lease(from.clone(), sight.revision));
    // Once is enough: the other applications of the same cluster compare the sealed lease, and do not get into each other's way.
    if !sight.lease.sealed {
        commit.changes.push(Change::Seal(from.clone()));
    }
    for (key, role) in &snapshot.roles {
        commit.expects.push(Expect::Role(key.clone(), role.revision));
        commit
            .changes
            .push(Change::Role(key.clone(), Role::held(to.clone(), epoch)));
    }
    Some(commit)
}

/// The planned way: the holder is asked to stop, and gives the roles back itself.
pub(crate) fn switch_over(case: &Case<'_>, request: &Request) -> Commit {
    let (snapshot, plan) = (case.snapshot, case.plan);
    let from = plan.value.active.clone();
    let to = request.to.clone();
    let epoch = highest_epoch(snapshot).next();
    let operation = Operation {
        id: request.id.clone(),
        kind: Kind::Switchover,
        from: from.clone(),
        to: to.clone(),
        epoch,
        began_ms: request.asked_ms,
        decided_ms: case.wall_ms,
        steps: steps(snapshot.app, Kind::Switchover, &from, &to),
        accepted_loss_ms: None,
    };
    let why = format!(
        "{} switches over from {from} to {to} at epoch {epoch}",
        snapshot.app.key
    );
    let mut commit = advance(
        plan,
        |next| {
            next.active = to.clone();
            next.operation = Some(operation);
        },
        why,
    );
    commit.expects.push(in_service(snapshot, &to));
    for (key, role) in &snapshot.roles {
        commit.expects.push(Expect::Role(key.clone(), role.revision));
        commit.changes.push(Change::Role(
            key.clone(),
            Role {
                hold: Hold::Revoking,
                ..role.value.clone()
            },
        ));
    }
    commit
}

fn steps(app: &App, kind: Kind, from: &ClusterName, to: &ClusterName) -> Vec<Step> {
    StepName::of(kind, !app.roles.is_empty())
        .iter()
        .map(|&name| Step {
            name,
            cluster: if name.at_source() { from.clone() } else { to.clone() },
        })
        .collect()
}
