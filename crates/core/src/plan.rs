//! The next plan of one application, as a pure function of what was observed.
//!
//! [`next`] turns a [`Snapshot`] into at most one [`Commit`] and a [`Report`] of what is true and what is waited for. A
//! commit is one compare-and-set transaction: everything that the decision rests on is compared, so a decision made on
//! old news changes nothing. [`crate::check::check`] looks at every commit again before it is sent.
//!
//! Invariants: a plan's generation grows by one; a role changes its owner only when the owner has released it or its
//! lease is over, and then its epoch grows; at most one operation runs for an application.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

mod cancel;
mod movement;
mod ready;
mod request;

pub use cancel::{TooLate, cancellable};
pub(crate) use movement::switch_over;
pub(crate) use ready::target;
pub use ready::{out_of_sync, unready, without_lease};

use crate::{
    app::{App, Model},
    lease::{Moment, Role, Sight, Timing},
    maintenance::{self, Maintenance},
    name::{AppKey, ClusterName, Epoch, Generation, RoleKey},
    operation::{Finished, Journal, Operation, Outcome, Request},
    report::{AppReport, Report, Seen, report},
};

/// What is to be, for one application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Grows by one with each committed plan.
    pub generation: Generation,
    /// The application.
    pub app: AppKey,
    /// The cluster that serves (ActivePassive); with ActiveActive the one whose objects the others follow.
    pub active: ClusterName,
    /// What is being done.
    pub operation: Option<Operation>,
    /// The operation that ended last.
    pub finished: Option<Finished>,
}

/// A value in the quorum with the revision at which it was last changed; revision 0 means absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// The revision.
    pub revision: u64,
}

/// Everything that a decision about one application rests on.
#[derive(Debug, Clone)]
pub struct Snapshot<'a> {
    /// The accepted specification.
    pub app: &'a App,
    /// The newest committed plan.
    pub plan: Option<Versioned<Plan>>,
    /// The application's roles.
    pub roles: BTreeMap<RoleKey, Versioned<Role>>,
    /// What this observer saw of each cluster's lease.
    pub leases: &'a BTreeMap<ClusterName, Sight>,
    /// For each cluster, the observers that cannot see it now.
    pub unseen_by: &'a BTreeMap<ClusterName, BTreeSet<String>>,
    /// The process that reported last from each cluster. One that was started anew does not have the lease of the one before it.
    pub holders: BTreeMap<ClusterName, String>,
    /// What each cluster says of the application.
    pub reports: BTreeMap<ClusterName, Seen<AppReport>>,
    /// What people said of clusters: those that are not in it are in service.
    pub maintenance: &'a BTreeMap<ClusterName, Versioned<Maintenance>>,
    /// Whether one more application may begin to move off a drained cluster.
    pub may_drain: bool,
    /// What people ask for and was not answered yet, oldest first.
    pub requests: Vec<Versioned<Request>>,
    /// The journal of the running operation.
    pub journal: Journal,
    /// The keys of what is in the quorum of the application and cannot be read, by this version at least. It is not absent: while there is any,
    /// nothing is decided.
    pub unreadable: &'a [String],
}

/// One thing that a commit compares: the revision at which a key must still be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The plan is at this revision.
    Plan(u64),
    /// The role is at this revision.
    Role(RoleKey, u64),
    /// The lease is at this revision.
    Lease(ClusterName, u64),
    /// The request is at this revision.
    Request(String, u64),
    /// What was said of the cluster is at this revision.
    Maintenance(ClusterName, u64),
}

/// One thing that a commit changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The next plan.
    Plan(Box<Plan>),
    /// A role's new state.
    Role(RoleKey, Role),
    /// A lease is sealed.
    Seal(ClusterName),
    /// A request is answered: taken away, or kept with the reason why it was refused.
    Answer(Request),
}

/// One decision: a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// What it rests on.
    pub expects: Vec<Expect>,
    /// What it changes.
    pub changes: Vec<Change>,
    /// Why, for events and logs.
    pub why: String,
}

/// The least number of observers that must miss a cluster before it counts as lost.
pub const VOTES: usize = 2;

/// Decides what to do next for one application.
///
/// `now` is this observer's monotonic clock, the one that its lease sights are measured with; `wall_ms` goes into
/// records only and decides nothing.
pub fn next(snapshot: &Snapshot<'_>, timing: &Timing, now: Moment, wall_ms: u64) -> (Option<Commit>, Report) {
    (decide(snapshot, timing, now, wall_ms), report(snapshot, timing, now))
}

/// The decision of [`next`] alone, for who looks at thousands of applications and reads no report.
pub fn decide(snapshot: &Snapshot<'_>, timing: &Timing, now: Moment, wall_ms: u64) -> Option<Commit> {
    if !snapshot.unreadable.is_empty() {
        return None;
    }
    let Some(plan) = &snapshot.plan else {
        return first(snapshot);
    };
    let case = Case {
        snapshot,
        plan,
        timing,
        now,
        wall_ms,
    };
    match &plan.value.operation {
        Some(operation) => go_on(&case, operation),
        None => missing_roles(&case)
            .or_else(|| request::answer(&case))
            .or_else(|| movement::automatic(&case))
            .or_else(|| maintenance::drain(&case))
            .or_else(|| follow_another(&case)),
    }
}

/// What is decided on about an application that has a plan, and when.
pub(crate) struct Case<'a> {
    pub(crate) snapshot: &'a Snapshot<'a>,
    pub(crate) plan: &'a Versioned<Plan>,
    pub(crate) timing: &'a Timing,
    /// On the clock that leases were seen with.
    pub(crate) now: Moment,
    /// For records only; Unix ms.
    pub(crate) wall_ms: u64,
}

impl Case<'_> {
    /// Whether a cluster may hold a lease.
    pub(crate) fn has_lease(&self, cluster: &ClusterName) -> bool {
        let sight = self.snapshot.leases.get(cluster);
        sight.is_some_and(|sight| !sight.over(self.timing, self.now))
    }

    /// Whether what a cluster was granted is known to be over. Of one that never had a lease nothing is known.
    pub(crate) fn is_over(&self, cluster: &ClusterName) -> bool {
        let sight = self.snapshot.leases.get(cluster);
        sight.is_some_and(|sight| sight.over(self.timing, self.now))
    }

    /// Whether a cluster is lost: what it was granted is over, and enough observers miss it.
    pub(crate) fn is_lost(&self, cluster: &ClusterName) -> bool {
        let observers = self.snapshot.unseen_by.get(cluster);
        self.is_over(cluster) && observers.is_some_and(|observers| observers.len() >= VOTES)
    }
}

/// The first plan of an application: the cluster that has the data is active, at epoch 1.
fn first(snapshot: &Snapshot<'_>) -> Option<Commit> {
    let active = snapshot.app.first_active()?.clone();
    let mut commit = Commit {
        expects: vec![Expect::Plan(0)],
        changes: vec![Change::Plan(Box::new(Plan {
            generation: Generation(1),
            app: snapshot.app.key.clone(),
            active: active.clone(),
            operation: None,
            finished: None,
        }))],
        why: format!("{} is protected from now on; {active} is active", snapshot.app.key),
    };
    for key in snapshot.app.role_keys() {
        match snapshot.roles.get(&key) {
            // Left over from an earlier life of the application: the epoch must not go back.
            Some(old) => {
                commit.expects.push(Expect::Role(key.clone(), old.revision));
                let role = Role::held(active.clone(), old.value.epoch.next());
                commit.changes.push(Change::Role(key, role));
            }
            None => {
                commit.expects.push(Expect::Role(key.clone(), 0));
                commit
                    .changes
                    .push(Change::Role(key, Role::held(active.clone(), Epoch(1))));
            }
        }
    }
    Some(commit)
}

/// Roles that were added to a specification after its first plan start where the application is active.
fn missing_roles(case: &Case<'_>) -> Option<Commit> {
    let (snapshot, plan) = (case.snapshot, case.plan);
    let missing: Vec<_> = snapshot
        .app
        .role_keys()
        .filter(|key| !snapshot.roles.contains_key(key))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let epoch = highest_epoch(snapshot).max(Epoch(1));
    let mut commit = advance(plan, |_| {}, "a writer role was added".to_owned());
    for key in missing {
        commit.expects.push(Expect::Role(key.clone(), 0));
        commit
            .changes
            .push(Change::Role(key, Role::held(plan.value.active.clone(), epoch)));
    }
    Some(commit)
}

/// An ActiveActive application whose objects were those of a cluster that is no placement any more follows another one.
fn follow_another(case: &Case<'_>) -> Option<Commit> {
    let (app, plan) = (case.snapshot.app, case.plan);
    if app.model != Model::ActiveActive || app.placement(&plan.value.active).is_some() {
        return None;
    }
    let next = app.first_active()?.clone();
    let why = format!(
        "{} is no placement of {} any more: {next} is followed",
        plan.value.active, app.key
    );
    Some(advance(plan, |plan| plan.active = next, why))
}

fn highest_epoch(snapshot: &Snapshot<'_>) -> Epoch {
    snapshot
        .roles
        .values()
        .map(|role| role.value.epoch)
        .max()
        .unwrap_or_default()
}

/// The next generation of a plan, changed by `change`.
fn advance(plan: &Versioned<Plan>, change: impl FnOnce(&mut Plan), why: String) -> Commit {
    let mut next = plan.value.clone();
    next.generation = next.generation.next();
    change(&mut next);
    Commit {
        expects: vec![Expect::Plan(plan.revision)],
        changes: vec![Change::Plan(Box::new(next))],
        why,
    }
}

/// Ends an operation whose steps are done, or whose source or target is lost; else answers what is asked for meanwhile.
fn go_on(case: &Case<'_>, operation: &Operation) -> Option<Commit> {
    let snapshot = case.snapshot;
    if operation.next_step(&snapshot.journal).is_none() {
        let ended_ms = snapshot
            .journal
            .values()
            .filter_map(|record| record.ended_ms)
            .max()
            .unwrap_or(case.wall_ms);
        let why = format!("{} has ended; {} is active", operation.id, operation.to);
        let finished = Finished {
            operation: operation.clone(),
            ended_ms,
            outcome: Outcome::Succeeded,
        };
        return Some(advance(
            case.plan,
            |next| {
                next.operation = None;
                next.finished = Some(finished);
            },
            why,
        ));
    }
    movement::source_lost(case, operation)
        .or_else(|| cancel::target_lost(case, operation))
        .or_else(|| cancel::asked_meanwhile(case, operation))
}

/// How long an observer may go without hearing from a cluster before it votes that it cannot see it.
pub fn unseen_after(timing: &Timing) -> Duration {
    timing.ttl / 2
}

#[cfg(test)]
mod tests;
