//! The status of a `ProtectedApp`: from the report that the planner's snapshot gives, to the resource.

pub(super) mod fenced;
pub(super) mod figures;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use leeward_api::{
    FIELD_MANAGER, ProtectedApp, ProtectedAppStatus,
    app::{GrantStatus, MirrorStatus, PlacementStatus, RunningOperation},
    condition,
    operation::OperationType,
};
use leeward_core::{
    app::{App, Model},
    execute::Mode,
    lease::{Moment, Sight, Timing},
    name::{ClusterName, Epoch},
    operation::{Kind, Operation, StepName},
    plan::cancellable,
    report::{PlacementReport, PlacementState, Report},
};
use serde_json::json;

use super::{accept::Accepted, kept};
use leeward_quorum::known::Situation;

/// When the lease that a cluster writes by ended, as this agent saw it, where it is over: it can have written nothing since. Wall clock, Unix ms.
pub fn wrote_until(sight: Option<&Sight>, timing: &Timing, now: Moment, now_ms: u64) -> Option<u64> {
    let silent = now.since(sight?.first_seen);
    let over = silent.checked_sub(timing.ttl)?;
    Some(now_ms.saturating_sub(u64::try_from(over.as_millis()).unwrap_or(u64::MAX)))
}

/// Builds the status. `bare` are the writers here that have no gate; `now_ms` is the wall clock, `until_ms` when what serves can have written last, where that is over; `before` keeps its
/// transition times.
pub fn build(
    situation: &Situation,
    report: &Report,
    bare: &fenced::Bare,
    before: Option<&ProtectedAppStatus>,
    now_ms: u64,
    until_ms: Option<u64>,
) -> ProtectedAppStatus {
    let app = &situation.app.value;
    let now = jiff::Timestamp::from_millisecond(now_ms as i64).unwrap_or_default();
    let plan = situation.plan();
    let serving = situation.routed().map(|basis| basis.serving());
    let epoch = situation.roles.values().map(|role| role.value.epoch).max();
    let written_ms = until_ms.map_or(now_ms, |until| until.min(now_ms));
    let shown = |found: &PlacementReport| placement(found, serving, state(app, found, serving), written_ms);
    let mut status = ProtectedAppStatus {
        observed_generation: Some(app.observed),
        active: serving
            .filter(|_| app.model == Model::ActivePassive)
            .map(ClusterName::to_string),
        epoch: epoch.filter(|epoch| *epoch > Epoch(0)).map(|epoch| epoch.0),
        generation: plan.map(|plan| plan.generation.0),
        operation: plan
            .and_then(|plan| plan.operation.as_ref())
            .map(|running| operation(running, situation)),
        placements: report.placements.iter().map(shown).collect(),
        waiting_for: report.waiting_for.clone(),
        conditions: before.map(|before| before.conditions.clone()).unwrap_or_default(),
        last_rpo: before.and_then(|before| before.last_rpo),
        last_rto: before.and_then(|before| before.last_rto),
    };
    // While an operation runs, the journal is its own.
    let ended = plan.filter(|plan| plan.operation.is_none());
    if let Some(finished) = ended.and_then(|plan| plan.finished.as_ref()) {
        let operation = &finished.operation;
        if operation.kind == Kind::Failover {
            let point = situation
                .journal
                .get(&StepName::Promote)
                .and_then(|record| record.point_ms);
            let rpo = point.map(|point| Duration::from_millis(operation.began_ms.saturating_sub(point)).into());
            status.last_rpo = rpo.or(status.last_rpo);
            status.last_rto = Some(Duration::from_millis(finished.ended_ms.saturating_sub(operation.began_ms)).into());
        }
    }
    conditions(&mut status, situation, report, now);
    fenced::say(&mut status, app, plan, report, bare, now);
    status
}

/// What a placement is doing: while the application moves, who has the roles is the active one, and not who is to have them.
fn state(app: &App, found: &PlacementReport, serving: Option<&ClusterName>) -> PlacementState {
    let serves = serving == Some(&found.cluster);
    match found.state {
        PlacementState::Standby if serves => PlacementState::Active,
        PlacementState::Active if !serves && app.model == Model::ActivePassive => PlacementState::Standby,
        other => other,
    }
}

fn conditions(status: &mut ProtectedAppStatus, situation: &Situation, report: &Report, now: jiff::Timestamp) {
    let app = &situation.app.value;
    let (reason, message) = match report.waiting_for.first() {
        Some(first) if app.paused => ("Paused", first.clone()),
        None => ("Ready", "the loss of the active cluster would be survived".to_owned()),
        Some(first) => ("Waiting", first.clone()),
    };
    condition::set(
        &mut status.conditions,
        condition::PROTECTED,
        report.protected,
        reason,
        &message,
        Some(app.observed),
        now,
    );
    let has = situation.routed().map(|basis| basis.serving());
    let serves = |found: &&PlacementReport| {
        state(app, found, has) == PlacementState::Active
            && found.answers
            && matches!(situation.mode(&found.cluster), Mode::Serve { .. })
    };
    let serving: Vec<_> = report
        .placements
        .iter()
        .filter(serves)
        .map(|placement| placement.cluster.to_string())
        .collect();
    let (reason, message) = match (serving.is_empty(), &status.operation) {
        (true, Some(running)) => (
            "Moving",
            format!(
                "no cluster serves now: it moves from {} to {}",
                running.from, running.to
            ),
        ),
        (true, None) => ("NoCluster", "no cluster serves now".to_owned()),
        (false, _) => (
            "Active",
            format!(
                "{} serve{}",
                serving.join(", "),
                if serving.len() == 1 { "s" } else { "" }
            ),
        ),
    };
    condition::set(
        &mut status.conditions,
        condition::SERVING,
        !serving.is_empty(),
        reason,
        &message,
        Some(app.observed),
        now,
    );
}

fn operation(running: &Operation, situation: &Situation) -> RunningOperation {
    let late = cancellable(running, &situation.roles, &situation.journal).err();
    RunningOperation {
        name: running.id.clone(),
        type_: match running.kind {
            Kind::Failover => OperationType::Failover,
            Kind::Switchover => OperationType::Switchover,
        },
        from: running.from.to_string(),
        to: running.to.to_string(),
        step: running
            .next_step(&situation.journal)
            .map(|step| format!("{:?} in {}", step.name, step.cluster)),
        cancellable: late.is_none(),
        not_cancellable: late.map(|late| late.to_string()),
    }
}

fn placement(
    report: &PlacementReport,
    serving: Option<&ClusterName>,
    state: PlacementState,
    written_ms: u64,
) -> PlacementStatus {
    let follows = serving.is_some_and(|serving| *serving != report.cluster);
    let point = report.point.as_ref().filter(|_| follows);
    PlacementStatus {
        cluster: report.cluster.to_string(),
        state: state.as_str().to_owned(),
        ready: report.missing.is_empty(),
        missing: report.missing.clone(),
        short: report.short.clone(),
        unknown: report.unknown.clone(),
        in_sync: report.in_sync,
        // Rounded, so that a status is not written again for each millisecond.
        lag: point.map(|p| Duration::from_secs(written_ms.saturating_sub(p.source_ms).div_ceil(1000)).into()),
        // Whole seconds, as the API keeps it: with more, what is read back would always differ.
        last_point: point
            .and_then(|p| jiff::Timestamp::from_second(i64::try_from(p.source_ms / 1000).ok()?).ok())
            .map(Time),
        mirror: report.mirror.as_ref().filter(|_| !follows).map(|mirror| MirrorStatus {
            points: mirror.points,
            bytes_sent: mirror.bytes_sent,
            longest_pause_ms: mirror.pause_us_max.div_ceil(1000),
        }),
        kept: report.kept.as_deref().and_then(kept::read),
        grants: report
            .gates
            .iter()
            .map(|(role, gate)| GrantStatus {
                role: role.clone(),
                pod: gate.pod.clone(),
                epoch: gate.epoch.0,
            })
            .collect(),
    }
}

/// The reasons of the condition `Protected` of a resource that was not accepted.
pub const REFUSED: [&str; 2] = ["Invalid", "OtherAuthority"];

/// The status of a resource that was not accepted; `runs` is that of the specification before, which goes on.
pub fn refused(
    resource: &ProtectedApp,
    accepted: &Accepted,
    runs: Option<&ProtectedAppStatus>,
    now_ms: u64,
) -> Option<ProtectedAppStatus> {
    let (reason, message) = match accepted {
        Accepted::No(invalid) => (REFUSED[0], invalid.to_string()),
        Accepted::Elsewhere(cluster) => (
            REFUSED[1],
            format!("{cluster} has authority over an application of this name; change it there"),
        ),
        _ => return None,
    };
    let mut status = runs.or(resource.status.as_ref()).cloned().unwrap_or_default();
    // The conditions keep their transition times.
    let before = resource.status.as_ref().map(|status| &status.conditions);
    let protected = |condition: &&Condition| condition.type_ == condition::PROTECTED;
    status.conditions.retain(|condition| !protected(&condition));
    status
        .conditions
        .extend(before.into_iter().flatten().find(protected).cloned());
    status.observed_generation = resource.metadata.generation;
    status.waiting_for = match runs {
        Some(runs) => std::iter::once(message.clone())
            .chain(runs.waiting_for.iter().cloned())
            .collect(),
        None => vec![message.clone()],
    };
    let now = jiff::Timestamp::from_millisecond(now_ms as i64).unwrap_or_default();
    let generation = resource.metadata.generation;
    condition::set(
        &mut status.conditions,
        condition::PROTECTED,
        false,
        reason,
        &message,
        generation,
        now,
    );
    Some(status)
}

/// Applies a status.
///
/// # Errors
/// When the API refuses or does not answer.
pub async fn apply(
    client: &Client,
    namespace: &str,
    name: &str,
    status: &ProtectedAppStatus,
) -> Result<(), kube::Error> {
    let patch = json!({
        "apiVersion": "leeward.dev/v1alpha1",
        "kind": "ProtectedApp",
        "metadata": { "name": name },
        "status": status,
    });
    let api: Api<ProtectedApp> = Api::namespaced(client.clone(), namespace);
    api.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&patch))
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
