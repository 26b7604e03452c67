//! What people ask for: done, or refused with what is missing.

use std::time::Duration;

use super::{
    Case, Change, Commit, Expect,
    cancel::{not_running, refuse},
    movement::{ms, switch_over, take_over},
    ready::{out_of_sync, unhealthy, unready},
};
use crate::{
    app::Model,
    operation::{Kind, Request},
};

/// Answers the oldest request.
pub(super) fn answer(case: &Case<'_>) -> Option<Commit> {
    let request = case.snapshot.requests.first()?;
    if let Some(reason) = refusal(case, &request.value) {
        return Some(refuse(request, reason));
    }
    let asked = &request.value;
    let mut commit = match asked.kind {
        Kind::Failover => take_over(case, &case.plan.value.active, &asked.to, Some(asked))?,
        Kind::Switchover => switch_over(case, asked),
    };
    commit.changes.push(Change::Answer(asked.clone()));
    commit.expects.push(Expect::Request(asked.id.clone(), request.revision));
    Some(commit)
}

/// Why a request cannot be done, if it cannot.
fn refusal(case: &Case<'_>, request: &Request) -> Option<String> {
    let (snapshot, active, to) = (case.snapshot, &case.plan.value.active, &request.to);
    if request.cancel {
        return Some(not_running(request));
    }
    if snapshot.app.model == Model::ActiveActive {
        return Some("an ActiveActive application serves in every cluster: there is nothing to move".into());
    }
    if snapshot.app.placement(to).is_none() {
        let known: Vec<_> = snapshot.app.placements.iter().map(|p| p.cluster.as_str()).collect();
        return Some(format!(
            "{to} is not a placement of {}; it has {}",
            snapshot.app.key,
            known.join(", ")
        ));
    }
    if to == active {
        return Some(format!("{to} is already the active cluster"));
    }
    let lives = case.has_lease(active);
    match request.kind {
        Kind::Failover if lives => Some(format!(
            "{active} is alive and holds its lease, so it may be writing: ask for a switchover, or wait until it is fenced"
        )),
        Kind::Switchover if !lives => Some(format!(
            "{active} does not answer, so it cannot stop in order: ask for a failover"
        )),
        _ => {
            let mut missing = unready(snapshot, to);
            missing.extend(unhealthy(case, to));
            if !missing.is_empty() {
                return Some(format!("{to} is not ready: {}", missing.join("; ")));
            }
            (request.kind == Kind::Failover)
                .then(|| loss_refused(case, request))
                .flatten()
        }
    }
}

/// Why a failover is refused for what it would lose: a person has to say how much that may be where the cluster is not in sync, and what is said
/// holds where it is, too.
fn loss_refused(case: &Case<'_>, request: &Request) -> Option<String> {
    let (snapshot, from) = (case.snapshot, &case.plan.value.active);
    let roles = out_of_sync(snapshot, &request.to);
    let in_sync = roles.is_empty();
    if snapshot.app.roles.is_empty() || (in_sync && request.accept_loss_ms.is_none()) {
        return None;
    }
    let newest = snapshot.reports.get(&request.to).into_iter();
    let newest = newest.flat_map(|seen| seen.value.roles.values().filter_map(|role| role.point.as_ref()));
    // Without a point all of it would be lost.
    let oldest_ms = newest.map(|point| point.source_ms).min().unwrap_or(0);
    // Unseen it may have gone on until its lease ended.
    let lease = snapshot.leases.get(from);
    let silent = lease.map_or(Duration::ZERO, |sight| case.now.since(sight.first_seen));
    let ended = case
        .wall_ms
        .saturating_sub(ms(silent))
        .saturating_add(ms(case.timing.ttl));
    let loss_ms = ended.min(case.wall_ms).saturating_sub(oldest_ms);
    // One that is in sync lacks no more than that, whatever the clocks of the regions say.
    let loss_ms = if in_sync {
        loss_ms.min(ms(snapshot.app.rpo))
    } else {
        loss_ms
    };
    if request.accept_loss_ms.is_some_and(|accepted| accepted >= loss_ms) {
        return None;
    }
    let seconds = loss_ms.div_ceil(1000);
    if in_sync {
        return Some(format!(
            "up to {seconds} s of what {from} wrote would be lost, more than is accepted, though {} is in sync and lacks no more than the rpo; ask \
             again with --accept-data-loss {seconds}s, or without it",
            request.to
        ));
    }
    Some(format!(
        "{} is not in sync (role {}): up to {seconds} s of what {from} wrote would be lost; wait for {from}, or ask again with \
         --accept-data-loss {seconds}s",
        request.to,
        roles.join(", ")
    ))
}
