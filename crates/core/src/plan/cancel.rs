//! A switchover that is called off or whose target is lost, and what else is asked for while an operation runs.
//!
//! Calling off is decided against the holder's giving back ([`crate::handover::release`]) and against the target's taking
//! ([`crate::handover::take`]). Each is one compare-and-set that compares every role: of the three exactly one is applied first, whatever was
//! sent first and however late it arrives, and then the others are not. Whoever had the roles goes on with its own data:
//! - before they were given back, at their epoch, with the standbys that were in sync: nothing has to be copied or waited for;
//! - after that, at a new epoch and with no standby in sync, since the source had stopped for good at the old one.
//!
//! Once the target has taken the roles it may have written: they go back by a failover only, with its waits and to whom it is safe for.
//!
//! Invariant: a role that was given back is never held again at the same epoch.

use super::{
    Case, Change, Commit, Expect, Snapshot, Versioned, advance, highest_epoch, movement::automatic, request::answer,
};
use crate::{
    handover::Roles,
    lease::{Hold, Role},
    name::ClusterName,
    operation::{Finished, Journal, Kind, Operation, Outcome, Request, StepName, is_done},
};

/// Why an operation cannot be called off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooLate {
    /// What it took, it took in one transaction.
    #[error(
        "{id} is a failover, which is past its point of no return when it begins: {from} was fenced and {to} has its roles; once {id} has \
         ended, switch over to {from}"
    )]
    Failover {
        /// The operation.
        id: String,
        /// The cluster that was lost.
        from: String,
        /// The cluster that has the roles.
        to: String,
    },
    /// The source has stopped for good, and the target may have begun.
    #[error("{id} is past its point of no return: {reason}; once {id} has ended, switch over to {from}")]
    Past {
        /// The operation.
        id: String,
        /// The cluster that was active.
        from: String,
        /// What has happened.
        reason: String,
    },
}

/// Whether an operation can still be called off, by what is known of its roles and its journal.
///
/// # Errors
/// Why not. Once it cannot, it never can again.
pub fn cancellable(operation: &Operation, roles: &Roles, journal: &Journal) -> Result<(), TooLate> {
    let past = |reason| TooLate::Past {
        id: operation.id.clone(),
        from: operation.from.to_string(),
        reason,
    };
    if operation.kind == Kind::Failover {
        return Err(TooLate::Failover {
            id: operation.id.clone(),
            from: operation.from.to_string(),
            to: operation.to.to_string(),
        });
    }
    // Without roles both may serve: the source goes on until the target serves, and only then begins to stop.
    if roles.is_empty() {
        return match is_done(journal, StepName::Start) {
            true => Err(past(format!("{} serves", operation.to))),
            false => Ok(()),
        };
    }
    let asked = |role: &Role| role.owner == operation.from && role.hold != Hold::Held;
    match roles.values().all(|role| asked(&role.value)) {
        true => Ok(()),
        false => Err(past(format!("{} has taken the roles", operation.to))),
    }
}

/// What becomes of an operation whose target is lost. What the target has not taken goes back to the source by itself, if that one lives;
/// what it has taken fails over as from every lost cluster.
pub(super) fn target_lost(case: &Case<'_>, running: &Operation) -> Option<Commit> {
    let snapshot = case.snapshot;
    if cancellable(running, &snapshot.roles, &snapshot.journal).is_err() {
        return automatic(case);
    }
    // Where the source has no lease either, nobody would have the roles if it had them: the target may still take what it was given.
    if snapshot.app.paused || !cannot_take(case, &running.to) || !case.has_lease(&running.from) {
        return None;
    }
    let to = &running.to;
    let failed = format!("{to} was lost before it took over");
    let mut commit = give_back(case, running, Some(failed));
    // The target did not come back meanwhile: one that renews its lease may still take the roles.
    let sight = snapshot.leases.get(to)?;
    commit.expects.push(Expect::Lease(to.clone(), sight.revision));
    if !sight.lease.sealed {
        commit.changes.push(Change::Seal(to.clone()));
    }
    Some(commit)
}

/// Whether a target has no lease and is not about to have one, whoever still hears of it: cut off from the quorum alone it could take nothing. One
/// whose agent was started anew renews again once it has waited as long as it was waited for here.
fn cannot_take(case: &Case<'_>, to: &ClusterName) -> bool {
    let Some(sight) = case.snapshot.leases.get(to).filter(|_| case.is_over(to)) else {
        return false;
    };
    let starts = sight.is_of_another(case.snapshot.holders.get(to));
    let waits_until = case.timing.taken_from(case.timing.taken_from(sight.first_seen));
    case.is_lost(to) || !starts || case.now >= waits_until
}

/// What is asked for while an operation runs: that it is called off, a failover from a target that is lost, or something that contradicts
/// it.
pub(super) fn asked_meanwhile(case: &Case<'_>, running: &Operation) -> Option<Commit> {
    let snapshot = case.snapshot;
    let cancels = |request: &&Versioned<Request>| request.value.cancel && request.value.id == running.id;
    if let Some(request) = snapshot.requests.iter().find(cancels) {
        return Some(match cancellable(running, &snapshot.roles, &snapshot.journal) {
            Ok(()) if gave_back(snapshot) && !case.has_lease(&running.from) => refuse(request, away(running)),
            Ok(()) => cancel(case, running, request),
            Err(late) => refuse(request, late.to_string()),
        });
    }
    let request = snapshot.requests.first()?;
    let taken = cancellable(running, &snapshot.roles, &snapshot.journal).is_err();
    if taken && case.is_over(&running.to) && request.value.kind == Kind::Failover && !request.value.cancel {
        return answer(case);
    }
    let reason = match request.value.cancel {
        true => not_running(&request.value),
        false => contradicts(snapshot, running),
    };
    Some(refuse(request, reason))
}

/// Whether the source has given any role back.
fn gave_back(snapshot: &Snapshot<'_>) -> bool {
    snapshot.roles.values().any(|role| role.value.hold == Hold::Released)
}

fn away(running: &Operation) -> String {
    format!(
        "{} has given its roles back and does not answer, so it cannot go on: wait until {} has taken them, or ask again when {} is back",
        running.from, running.to, running.from
    )
}

/// A person calls it off.
fn cancel(case: &Case<'_>, running: &Operation, request: &Versioned<Request>) -> Commit {
    let mut commit = give_back(case, running, None);
    let id = request.value.id.clone();
    commit.expects.push(Expect::Request(id, request.revision));
    commit.changes.push(Change::Answer(request.value.clone()));
    commit
}

/// The roles are the source's, and the plan says so; `failed` says why where nobody called it off.
fn give_back(case: &Case<'_>, running: &Operation, failed: Option<String>) -> Commit {
    let snapshot = case.snapshot;
    let (id, from) = (&running.id, &running.from);
    let anew = gave_back(snapshot).then(|| highest_epoch(snapshot).next());
    let at = anew.map(|epoch| format!(" at epoch {epoch}")).unwrap_or_default();
    let failed = failed.map(|why| format!("{why}; {from} is active again{at}, nothing was lost"));
    let why = match &failed {
        Some(why) => format!("{id} has failed: {why}"),
        None => format!("{id} is cancelled; {from} is active again{at}"),
    };
    let finished = Finished {
        operation: running.clone(),
        ended_ms: case.wall_ms,
        outcome: failed.map_or(Outcome::Cancelled, Outcome::Failed),
    };
    let mut commit = advance(
        case.plan,
        |next| {
            next.active = from.clone();
            next.operation = None;
            next.finished = Some(finished);
        },
        why,
    );
    for (key, role) in &snapshot.roles {
        // Compared: what gives it back or takes it changes it, and then this is not applied.
        commit.expects.push(Expect::Role(key.clone(), role.revision));
        let held = match anew {
            Some(epoch) => Role::held(from.clone(), epoch),
            None => Role {
                hold: Hold::Held,
                ..role.value.clone()
            },
        };
        commit.changes.push(Change::Role(key.clone(), held));
    }
    commit
}

/// Why nothing is cancelled where no operation of that name runs.
pub(super) fn not_running(request: &Request) -> String {
    format!(
        "{} does not run: it was called off before it began, or has ended",
        request.id
    )
}

fn contradicts(snapshot: &Snapshot<'_>, running: &Operation) -> String {
    let (kind, or) = match running.kind {
        Kind::Failover => ("failover", String::new()),
        Kind::Switchover => (
            "switchover",
            match cancellable(running, &snapshot.roles, &snapshot.journal) {
                Ok(()) => format!(
                    ", or call it off with `leeward switchover {} --cancel`",
                    snapshot.app.key
                ),
                Err(_) => String::new(),
            },
        ),
    };
    format!(
        "{}, a {kind} from {} to {}, is running: wait until it has ended{or}, and ask again",
        running.id, running.from, running.to
    )
}

/// Answers a request with the reason why it is not done.
pub(super) fn refuse(request: &Versioned<Request>, reason: String) -> Commit {
    let why = format!("{} is refused: {reason}", request.value.id);
    let answered = Request {
        refused: Some(reason),
        ..request.value.clone()
    };
    Commit {
        expects: vec![Expect::Request(request.value.id.clone(), request.revision)],
        changes: vec![Change::Answer(answered)],
        why,
    }
}
