//! A second look at every commit before it is sent, written apart from the planner: it refuses what breaks an invariant,
//! whatever the planner's reason.

use crate::{
    lease::{Hold, Moment, Timing},
    maintenance::{Maintenance, in_service},
    name::{AppKey, ClusterName, RoleKey},
    operation::{Kind, Operation},
    plan::{Change, Commit, Expect, Plan, Snapshot},
};

/// An invariant that a commit would break.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The generation does not follow the committed one.
    #[error("the plan's generation would go from {from} to {to}")]
    Generation {
        /// The committed generation, 0 when there is none.
        from: u64,
        /// The one in the commit.
        to: u64,
    },
    /// The commit does not compare what it changes.
    #[error("{0} would be changed without being compared")]
    NotCompared(String),
    /// A role's epoch would go back, or stay with another owner or with one that gave it back.
    #[error("role {0} would get another owner or be held again without a higher epoch, or get a lower epoch")]
    Epoch(RoleKey),
    /// A role's owner would change while the old one may be writing.
    #[error("role {role} would be taken from {owner}, which has not released it and whose lease is not over")]
    TwoWriters {
        /// The role.
        role: RoleKey,
        /// Who may be writing.
        owner: ClusterName,
    },
    /// A role would be taken for a cluster that may lack more than the rpo, and nobody accepted that.
    #[error("role {role} would be taken for {to}, which is not in sync, and nobody accepted to lose anything")]
    NotInSync {
        /// The role.
        role: RoleKey,
        /// Who would get it.
        to: ClusterName,
    },
    /// A failover would begin that nobody asked for, of an application that a person has paused.
    #[error("{0} is paused, and would fail over without a person asking for it")]
    Paused(AppKey),
    /// A switchover would begin that nobody asked for, from a cluster that is not drained.
    #[error("{app} would be switched over from {from} without a person asking for it, and {from} is not drained")]
    NotDrained {
        /// The application.
        app: AppKey,
        /// The cluster that it would leave.
        from: ClusterName,
    },
    /// Something would move to a cluster that is out of service.
    #[error("{app} would move to {to}, which is out of service for maintenance")]
    OutOfService {
        /// The application.
        app: AppKey,
        /// The cluster.
        to: ClusterName,
    },
    /// Something would move to a cluster that could not write.
    #[error("{app} would move to {to}, whose lease is not in force")]
    WithoutLease {
        /// The application.
        app: AppKey,
        /// The cluster.
        to: ClusterName,
    },
    /// The active cluster would be one that the application has no placement in.
    #[error("{0} would be active without being a placement")]
    NotPlaced(ClusterName),
}

/// Refuses a commit that breaks an invariant.
///
/// # Errors
/// The first [`Violation`] found.
pub fn check(commit: &Commit, snapshot: &Snapshot<'_>, timing: &Timing, now: Moment) -> Result<(), Violation> {
    for change in &commit.changes {
        match change {
            Change::Plan(plan) => {
                let (from, revision) = snapshot
                    .plan
                    .as_ref()
                    .map_or((0, 0), |plan| (plan.value.generation.0, plan.revision));
                if plan.generation.0 != from + 1 {
                    return Err(Violation::Generation {
                        from,
                        to: plan.generation.0,
                    });
                }
                if !commit.expects.contains(&Expect::Plan(revision)) {
                    return Err(Violation::NotCompared("the plan".into()));
                }
                if snapshot.app.paused && fails_over_unasked(commit, plan) {
                    return Err(Violation::Paused(plan.app.clone()));
                }
                begins_in_service(commit, plan, snapshot)?;
                begins_with_lease(plan, snapshot, timing, now)?;
                if snapshot.app.placement(&plan.active).is_none() {
                    return Err(Violation::NotPlaced(plan.active.clone()));
                }
            }
            Change::Role(key, role) => {
                let Some(old) = snapshot.roles.get(key) else {
                    compared(commit, &Expect::Role(key.clone(), 0), key)?;
                    continue;
                };
                compared(commit, &Expect::Role(key.clone(), old.revision), key)?;
                let moved = role.owner != old.value.owner;
                let held_again = old.value.hold == Hold::Released && role.hold != Hold::Released;
                if role.epoch < old.value.epoch || ((moved || held_again) && role.epoch == old.value.epoch) {
                    return Err(Violation::Epoch(key.clone()));
                }
                if moved && old.value.hold != Hold::Released {
                    taken_safely(commit, snapshot, key, &old.value.owner, timing, now)?;
                }
                // What was given back may have had its last point sent to another one.
                if moved && !old.value.in_sync.contains(&role.owner) && !loss_is_accepted(commit) {
                    return Err(Violation::NotInSync {
                        role: key.clone(),
                        to: role.owner.clone(),
                    });
                }
            }
            Change::Seal(cluster) => {
                let revision = snapshot.leases.get(cluster).map_or(0, |sight| sight.revision);
                if !commit.expects.contains(&Expect::Lease(cluster.clone(), revision)) {
                    return Err(Violation::NotCompared(format!("the lease of {cluster}")));
                }
            }
            Change::Answer(_) => {}
        }
    }
    Ok(())
}

/// What begins does not move to a cluster that is out of service, and a switchover that nobody asked for leaves one that is drained.
fn begins_in_service(commit: &Commit, plan: &Plan, snapshot: &Snapshot<'_>) -> Result<(), Violation> {
    let running = snapshot.plan.as_ref().and_then(|plan| plan.value.operation.as_ref());
    let Some(begins) = plan.operation.as_ref().filter(|begins| running != Some(begins)) else {
        return Ok(());
    };
    let said = |cluster| {
        snapshot
            .maintenance
            .get(cluster)
            .map_or_else(Default::default, |said| said.value)
    };
    let app = plan.app.clone();
    // What was under way there already goes on, also as a failover.
    let under_way = running.is_some_and(|running| running.to == begins.to);
    if !under_way && said(&begins.to) != Maintenance::None {
        return Err(Violation::OutOfService {
            app,
            to: begins.to.clone(),
        });
    }
    let asked = commit.changes.iter().any(|change| matches!(change, Change::Answer(_)));
    if begins.kind == Kind::Switchover && !asked && said(&begins.from) != Maintenance::Drain {
        return Err(Violation::NotDrained {
            app,
            from: begins.from.clone(),
        });
    }
    if !commit.expects.contains(&in_service(snapshot, &begins.to)) {
        return Err(Violation::NotCompared(format!("whether {} is in service", begins.to)));
    }
    Ok(())
}

/// What begins moves to a cluster that lives: it could not write, and nobody could be chosen after it.
fn begins_with_lease(plan: &Plan, snapshot: &Snapshot<'_>, timing: &Timing, now: Moment) -> Result<(), Violation> {
    let running = snapshot.plan.as_ref().and_then(|plan| plan.value.operation.as_ref());
    let begins = plan.operation.as_ref().filter(|begins| running != Some(begins));
    let dead = |begins: &&Operation| {
        let sight = snapshot.leases.get(&begins.to);
        sight.is_none_or(|sight| sight.over(timing, now))
    };
    match begins.filter(dead) {
        Some(begins) => Err(Violation::WithoutLease {
            app: plan.app.clone(),
            to: begins.to.clone(),
        }),
        None => Ok(()),
    }
}

/// A plan with a failover is only ever the one that it begins with, since the next one ends it.
fn fails_over_unasked(commit: &Commit, plan: &Plan) -> bool {
    let fails_over = plan
        .operation
        .as_ref()
        .is_some_and(|operation| operation.kind == Kind::Failover);
    fails_over && !commit.changes.iter().any(|change| matches!(change, Change::Answer(_)))
}

fn loss_is_accepted(commit: &Commit) -> bool {
    commit.changes.iter().any(|change| match change {
        Change::Plan(plan) => {
            let operation = plan.operation.as_ref();
            operation.is_some_and(|operation| operation.accepted_loss_ms.is_some())
        }
        _ => false,
    })
}

fn compared(commit: &Commit, expect: &Expect, key: &RoleKey) -> Result<(), Violation> {
    if commit.expects.contains(expect) {
        Ok(())
    } else {
        Err(Violation::NotCompared(format!("role {key}")))
    }
}

/// The owner's lease is over, is compared at the revision that was waited out, and is sealed in the same transaction unless it is already.
fn taken_safely(
    commit: &Commit,
    snapshot: &Snapshot<'_>,
    role: &RoleKey,
    owner: &ClusterName,
    timing: &Timing,
    now: Moment,
) -> Result<(), Violation> {
    let safe = snapshot.leases.get(owner).is_some_and(|sight| {
        sight.over(timing, now)
            && commit.expects.contains(&Expect::Lease(owner.clone(), sight.revision))
            && (sight.lease.sealed || commit.changes.contains(&Change::Seal(owner.clone())))
    });
    if safe {
        Ok(())
    } else {
        Err(Violation::TwoWriters {
            role: role.clone(),
            owner: owner.clone(),
        })
    }
}
