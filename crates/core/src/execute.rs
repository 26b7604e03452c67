//! What one cluster's agent has to do for an application, as a pure function of the committed plan, the roles and the
//! journal. Every answer is a level ("be in this mode"), so that an agent that was away does the same as one that saw
//! every change.

use std::collections::BTreeMap;

use crate::{
    app::{App, Model},
    handover::Roles,
    lease::{Hold, Role},
    name::{ClusterName, Epoch, RoleKey},
    operation::{Journal, Operation, Step, StepName, is_done},
    plan::{Plan, Versioned, cancellable},
};

/// What the workloads and the edge of an application do in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is decided yet: what is there is left alone.
    Unmanaged,
    /// The workloads run with their full replicas, at this epoch where there are roles.
    Serve {
        /// The highest epoch of the roles; none without roles.
        epoch: Option<Epoch>,
    },
    /// The workloads run with the placement's standby replicas; data comes from the active cluster.
    Standby,
}

/// The mode of an application in cluster `me`.
pub fn mode(
    app: &App,
    plan: Option<&Plan>,
    roles: &BTreeMap<RoleKey, Versioned<Role>>,
    journal: &Journal,
    me: &ClusterName,
) -> Mode {
    let Some(plan) = plan else { return Mode::Unmanaged };
    if app.placement(me).is_none() {
        return Mode::Unmanaged;
    }
    if app.model == Model::ActiveActive {
        return Mode::Serve { epoch: None };
    }
    if plan.active != *me {
        return match &plan.operation {
            // Without roles nothing is lost by serving on until the other one serves.
            Some(op) if op.from == *me && app.roles.is_empty() && !is_done(journal, StepName::Start) => {
                Mode::Serve { epoch: None }
            }
            _ => Mode::Standby,
        };
    }
    if app.roles.is_empty() {
        return Mode::Serve { epoch: None };
    }
    let promoted = is_promoted(plan, journal, me);
    let mut epoch = None;
    for key in app.role_keys() {
        match roles.get(&key) {
            Some(role) if role.value.owner == *me && role.value.hold == Hold::Held => {
                epoch = epoch.max(Some(role.value.epoch));
            }
            _ => return Mode::Standby,
        }
    }
    if promoted { Mode::Serve { epoch } } else { Mode::Standby }
}

/// Whether the data of the roles in `me` is what it may write to: no operation brings it there, or its step is done.
pub fn is_promoted(plan: &Plan, journal: &Journal, me: &ClusterName) -> bool {
    let operation = plan.operation.as_ref();
    operation.is_none_or(|operation| operation.to != *me || is_done(journal, StepName::Promote))
}

/// Whether `me` is the active cluster and stays it: a switchover that brings the application there and may still be called off has not made it so.
pub fn is_active(plan: &Plan, roles: &Roles, journal: &Journal, me: &ClusterName) -> bool {
    let operation = plan.operation.as_ref();
    plan.active == *me && operation.is_none_or(|operation| cancellable(operation, roles, journal).is_err())
}

/// The step that `me` has to execute now, if it is its turn.
pub fn step<'a>(plan: Option<&'a Plan>, journal: &Journal, me: &ClusterName) -> Option<(&'a Operation, &'a Step)> {
    let operation = plan?.operation.as_ref()?;
    let step = operation.next_step(journal)?;
    (step.cluster == *me).then_some((operation, step))
}

/// Where the data of the application comes from, as seen by `me`: the cluster to follow, or none where `me` is the source.
pub fn follows<'a>(app: &App, plan: Option<&'a Plan>, me: &ClusterName) -> Option<&'a ClusterName> {
    let plan = plan?;
    match (&plan.operation, app.model) {
        (_, Model::ActiveActive) => (plan.active != *me).then_some(&plan.active),
        // Until the new writer is promoted there is one source only: the old one, if it lives.
        (Some(op), _) if op.to == *me => Some(&op.from),
        _ => (plan.active != *me).then_some(&plan.active),
    }
}
