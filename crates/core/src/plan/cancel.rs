//! A switchover that is called off, and what else is asked for while an operation runs.
//!
//! A cancel is decided against the holder's giving back ([`crate::handover::release`]). Each is one compare-and-set that compares the
//! plan and every role: of the two exactly one is applied, whatever was sent first and however late it arrives. The cancel leaves every role with its
//! owner at its epoch, so nothing has to be copied or waited for: whoever had it goes on, with the standbys that were in sync.
//!
//! Invariant: a role that was given back is never held again at the same epoch.

use super::{Change, Commit, Expect, Plan, Snapshot, Versioned, advance};
use crate::{
    handover::Roles,
    lease::{Hold, Role},
    operation::{Finished, Journal, Kind, Operation, Request, StepName, is_done},
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
    /// The source has stopped for good.
    #[error(
        "{id} is past its point of no return: {from} has {gave} and cannot go on by itself; once {id} has ended, switch over to {from}"
    )]
    Past {
        /// The operation.
        id: String,
        /// The cluster that was active.
        from: String,
        /// What it has given away.
        gave: &'static str,
    },
}

/// Whether an operation can still be called off, by what is known of its roles and its journal.
///
/// # Errors
/// Why not. Once it cannot, it never can again.
pub fn cancellable(operation: &Operation, roles: &Roles, journal: &Journal) -> Result<(), TooLate> {
    let past = |gave| TooLate::Past {
        id: operation.id.clone(),
        from: operation.from.to_string(),
        gave,
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
            true => Err(past("given up serving")),
            false => Ok(()),
        };
    }
    let asked = |role: &Role| role.owner == operation.from && role.hold == Hold::Revoking;
    match roles.values().all(|role| asked(&role.value)) {
        true => Ok(()),
        false => Err(past("given its roles back")),
    }
}

/// What is asked for while an operation runs: that it is called off, or something that contradicts it.
pub(super) fn asked_meanwhile(
    snapshot: &Snapshot<'_>,
    plan: &Versioned<Plan>,
    running: &Operation,
    wall_ms: u64,
) -> Option<Commit> {
    let cancels = |request: &&Versioned<Request>| request.value.cancel && request.value.id == running.id;
    if let Some(request) = snapshot.requests.iter().find(cancels) {
        return Some(match cancellable(running, &snapshot.roles, &snapshot.journal) {
            Ok(()) => cancel(snapshot, plan, running, request, wall_ms),
            Err(late) => refuse(request, late.to_string()),
        });
    }
    let request = snapshot.requests.first()?;
    let reason = match request.value.cancel {
        true => not_running(&request.value),
        false => contradicts(snapshot, running),
    };
    Some(refuse(request, reason))
}

/// The role stays where it is, and the plan says so.
fn cancel(
    snapshot: &Snapshot<'_>,
    plan: &Versioned<Plan>,
    running: &Operation,
    request: &Versioned<Request>,
    wall_ms: u64,
) -> Commit {
    let why = format!("{} is cancelled; {} is active again", running.id, running.from);
    let finished = Finished {
        operation: running.clone(),
        ended_ms: wall_ms,
        cancelled: true,
    };
    let mut commit = advance(
        plan,
        |next| {
            next.active = running.from.clone();
            next.operation = None;
            next.finished = Some(finished);
        },
        why,
    );
    for (key, role) in &snapshot.roles {
        // Compared: what gives it back changes it, and then this is not applied.
        commit.expects.push(Expect::Role(key.clone(), role.revision));
        let held = Role {
            hold: Hold::Held,
            ..role.value.clone()
        };
        commit.changes.push(Change::Role(key.clone(), held));
    }
    let id = request.value.id.clone();
    commit.expects.push(Expect::Request(id, request.revision));
    commit.changes.push(Change::Answer(request.value.clone()));
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
