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

pub use cancel::{TooLate, cancellable};

use crate::{
    app::{App, Model},
    lease::{Hold, Moment, Role, Sight, Timing},
    maintenance::{self, Maintenance},
    name::{AppKey, ClusterName, Epoch, Generation, RoleKey},
    operation::{Finished, Journal, Kind, Operation, Request, Step, StepName, is_done},
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
    match &snapshot.plan {
        None => first(snapshot),
        Some(plan) => missing_roles(snapshot, plan).or_else(|| match &plan.value.operation {
            Some(operation) => go_on(snapshot, plan, operation, timing, now, wall_ms),
            None => answer(snapshot, plan, timing, now, wall_ms)
                .or_else(|| automatic(snapshot, plan, timing, now, wall_ms))
                .or_else(|| maintenance::drain(snapshot, plan, timing, now, wall_ms))
                .or_else(|| follow_another(snapshot, plan)),
        }),
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
fn missing_roles(snapshot: &Snapshot<'_>, plan: &Versioned<Plan>) -> Option<Commit> {
    if plan.value.operation.is_some() {
        return None;
    }
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
fn follow_another(snapshot: &Snapshot<'_>, plan: &Versioned<Plan>) -> Option<Commit> {
    let app = snapshot.app;
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
fn go_on(
    snapshot: &Snapshot<'_>,
    plan: &Versioned<Plan>,
    operation: &Operation,
    timing: &Timing,
    now: Moment,
    wall_ms: u64,
) -> Option<Commit> {
    if operation.next_step(&snapshot.journal).is_none() {
        let ended_ms = snapshot
            .journal
            .values()
            .filter_map(|record| record.ended_ms)
            .max()
            .unwrap_or(wall_ms);
        let why = format!("{} has ended; {} is active", operation.id, operation.to);
        let finished = Finished {
            operation: operation.clone(),
            ended_ms,
            cancelled: false,
            failed: None,
        };
        return Some(advance(
            plan,
            |next| {
                next.operation = None;
                next.finished = Some(finished);
            },
            why,
        ));
    }
    source_lost(snapshot, plan, operation, timing, now, wall_ms)
        .or_else(|| cancel::target_lost(snapshot, plan, operation, timing, now, wall_ms))
        .or_else(|| cancel::asked_meanwhile(snapshot, plan, operation, timing, now, wall_ms))
}

/// A switchover whose source is lost before it has given its roles back is a failover to the same target.
fn source_lost(
    snapshot: &Snapshot<'_>,
    plan: &Versioned<Plan>,
    operation: &Operation,
    timing: &Timing,
    now: Moment,
    wall_ms: u64,
) -> Option<Commit> {
    let released = is_done(&snapshot.journal, StepName::Release);
    let lost = operation.kind == Kind::Switchover && !released && lost(snapshot, &operation.from, timing, now);
    let holds = snapshot.roles.values().any(|role| role.value.owner == operation.from);
    let in_sync = out_of_sync(snapshot, &operation.to).is_empty();
    let by_itself = !snapshot.app.paused;
    (lost && by_itself && in_sync && (holds || snapshot.app.roles.is_empty()))
        .then(|| take_over(snapshot, plan, &operation.from, &operation.to, None, now, wall_ms))
        .flatten()
}

/// Whether a cluster is lost: what it was granted is over, and enough observers miss it.
pub fn lost(snapshot: &Snapshot<'_>, cluster: &ClusterName, timing: &Timing, now: Moment) -> bool {
    let over = snapshot
        .leases
        .get(cluster)
        .is_some_and(|sight| sight.over(timing, now));
    over && snapshot
        .unseen_by
        .get(cluster)
        .is_some_and(|observers| observers.len() >= VOTES)
}

/// Answers the oldest request.
fn answer(
    snapshot: &Snapshot<'_>,
    plan: &Versioned<Plan>,
    timing: &Timing,
    now: Moment,
    wall_ms: u64,
) -> Option<Commit> {
    let request = snapshot.requests.first()?;
    if let Some(reason) = refusal(snapshot, &plan.value, &request.value, timing, now, wall_ms) {
        return Some(cancel::refuse(request, reason));
    }
    let asked = &request.value;
    let mut commit = match asked.kind {
        Kind::Failover => take_over(snapshot, plan, &plan.value.active, &asked.to, Some(asked), now, wall_ms)?,
        Kind::Switchover => switch_over(snapshot, plan, asked, wall_ms),
    };
    commit.changes.push(Change::Answer(asked.clone()));
    commit.expects.push(Expect::Request(asked.id.clone(), request.revision));
    Some(commit)
}

/// Why a request cannot be done, if it cannot.
fn refusal(
    snapshot: &Snapshot<'_>,
    plan: &Plan,
    request: &Request,
    timing: &Timing,
    now: Moment,
    wall_ms: u64,
) -> Option<String> {
    let to = &request.to;
    if request.cancel {
        return Some(cancel::not_running(request));
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
    if *to == plan.active {
        return Some(format!("{to} is already the active cluster"));
    }
    let over = snapshot
        .leases
        .get(&plan.active)
        .is_none_or(|sight| sight.over(timing, now));
    match request.kind {
        Kind::Failover if !over => Some(format!(
            "{} is alive and holds its lease, so it may be writing: ask for a switchover, or wait until it is fenced",
            plan.active
        )),
        Kind::Switchover if over => Some(format!(
            "{} does not answer, so it cannot stop in order: ask for a failover",
            plan.active
        )),
        _ => {
            let missing = unready(snapshot, to);
            if !missing.is_empty() {
                return Some(format!("{to} is not ready: {}", missing.join("; ")));
            }
            (request.kind == Kind::Failover)
                .then(|| loss_refused(snapshot, &plan.active, request, timing, now, wall_ms))
                .flatten()
        }
    }
}

/// Why a failover to a cluster that is not in sync is refused: a person has to say how much may be lost.
fn loss_refused(
    snapshot: &Snapshot<'_>,
    from: &ClusterName,
    request: &Request,
    timing: &Timing,
    now: Moment,
    wall_ms: u64,
) -> Option<String> {
    let roles = out_of_sync(snapshot, &request.to);
    if roles.is_empty() {
        return None;
    }
    let newest = snapshot.reports.get(&request.to).into_iter();
    let newest = newest.flat_map(|seen| seen.value.roles.values().filter_map(|role| role.point.as_ref()));
    // Without a point all of it would be lost.
    let oldest_ms = newest.map(|point| point.source_ms).min().unwrap_or(0);
    // Unseen it may have gone on until its lease ended.
    let lease = snapshot.leases.get(from);
    let silent = lease.map_or(Duration::ZERO, |sight| now.since(sight.first_seen));
    let ended = wall_ms.saturating_sub(ms(silent)).saturating_add(ms(timing.ttl));
    let loss_ms = ended.min(wall_ms).saturating_sub(oldest_ms);
    if request.accept_loss_ms.is_some_and(|accepted| accepted >= loss_ms) {
        return None;
    }
    let seconds = loss_ms.div_ceil(1000);
    Some(format!(
        "{} is not in sync (role {}): up to {seconds} s of what {from} wrote would be lost; wait for {from}, or ask again with \
         --accept-data-loss {seconds}s",
        request.to,
        roles.join(", ")
    ))
}

/// What a cluster lacks to take over; empty when it is ready.
pub fn unready(snapshot: &Snapshot<'_>, cluster: &ClusterName) -> Vec<String> {
    let said = snapshot.maintenance.get(cluster);
    let mut lacks: Vec<_> = said.and_then(|said| said.value.lacks(cluster)).into_iter().collect();
    lacks.extend(not_there(snapshot, cluster));
    lacks
}

fn not_there(snapshot: &Snapshot<'_>, cluster: &ClusterName) -> Vec<String> {
    let Some(seen) = snapshot.reports.get(cluster) else {
        return vec![format!("{cluster} has not reported")];
    };
    if seen.age > Seen::<AppReport>::STALE {
        return vec![format!("{cluster} has not reported for {} s", seen.age.as_secs())];
    }
    let mut missing = seen.value.missing.clone();
    for role in &snapshot.app.roles {
        if seen
            .value
            .roles
            .get(&role.name)
            .and_then(|role| role.point.as_ref())
            .is_none()
        {
            missing.push(format!("no complete point of role {}", role.name));
        }
    }
    missing
}

/// The roles of which a cluster may lack more than the rpo: nothing fails over to it by itself.
pub fn out_of_sync(snapshot: &Snapshot<'_>, cluster: &ClusterName) -> Vec<String> {
    let app = snapshot.app;
    let lacks = |key: &RoleKey| {
        let role = snapshot.roles.get(key);
        role.is_none_or(|role| role.value.owner != *cluster && !role.value.in_sync.contains(cluster))
    };
    app.role_keys().filter(lacks).map(|key| key.role).collect()
}

/// Fails over by itself when the active cluster is lost and a standby is ready and in sync.
fn automatic(
    snapshot: &Snapshot<'_>,
    plan: &Versioned<Plan>,
    timing: &Timing,
    now: Moment,
    wall_ms: u64,
) -> Option<Commit> {
    let app = snapshot.app;
    let active = &plan.value.active;
    if !app.fails_over() || !lost(snapshot, active, timing, now) {
        return None;
    }
    let target = app
        .standbys(active)
        .into_iter()
        .find(|p| unready(snapshot, &p.cluster).is_empty() && out_of_sync(snapshot, &p.cluster).is_empty())?;
    take_over(snapshot, plan, active, &target.cluster, None, now, wall_ms)
}

/// When the last sign of a cluster was seen, a renewal or a report: until then it may have written. Wall clock, Unix ms.
fn last_sign_ms(snapshot: &Snapshot<'_>, cluster: &ClusterName, now: Moment, wall_ms: u64) -> u64 {
    let report = snapshot.reports.get(cluster).map_or(Duration::MAX, |seen| seen.age);
    let renewal = snapshot.leases.get(cluster);
    let renewal = renewal.map_or(Duration::MAX, |sight| now.since(sight.first_seen));
    wall_ms.saturating_sub(ms(report.min(renewal)))
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The takeover: lease sealed, roles and epoch moved, plan advanced, all in one transaction.
fn take_over(
    snapshot: &Snapshot<'_>,
    plan: &Versioned<Plan>,
    from: &ClusterName,
    to: &ClusterName,
    request: Option<&Request>,
    now: Moment,
    wall_ms: u64,
) -> Option<Commit> {
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
        began_ms: last_sign_ms(snapshot, from, now, wall_ms),
        decided_ms: wall_ms,
        steps: steps(snapshot.app, Kind::Failover, from, to),
        accepted_loss_ms: request.and_then(|request| request.accept_loss_ms).filter(|_| !in_sync),
    };
    let why = format!(
        "{from} is lost and fenced: {} fails over to {to} at epoch {epoch}",
        snapshot.app.key
    );
    let broken_off = plan.value.operation.as_ref().map(|running| Finished {
        operation: running.clone(),
        ended_ms: wall_ms,
        cancelled: false,
        failed: Some(format!(
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
pub(crate) fn switch_over(snapshot: &Snapshot<'_>, plan: &Versioned<Plan>, request: &Request, wall_ms: u64) -> Commit {
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
        decided_ms: wall_ms,
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

/// How long an observer may go without hearing from a cluster before it votes that it cannot see it.
pub fn unseen_after(timing: &Timing) -> Duration {
    timing.ttl / 2
}

#[cfg(test)]
mod tests;
