//! `Operation` resources: what a person asks for goes into the quorum, also that it is called off; how far it is comes back as status. A
//! failover that Leeward decided on by itself gets a resource in the cluster that it moved to, so that an auditor finds it.
//!
//! A resource belongs to the operation of its name, in whatever cluster it is: where the one that it was made in is away, one in another
//! cluster calls the operation off as well.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::reflector::ObjectRef,
};
use leeward_api::{
    FIELD_MANAGER, Operation, OperationStatus, condition,
    operation::{OperationType, StepStatus},
};
use leeward_core::{
    maintenance::DRAIN,
    name::{AppKey, ClusterName},
    operation::{self as core, Journal, Kind, Outcome, Request, StepName},
    plan::{Versioned, cancellable},
};
use leeward_quorum::{
    Txn, key,
    known::{Known, Situation},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::traces::Traces;

use crate::{
    agent::{Agent, follow},
    cache::Cache,
    clock,
};

/// Why a resource could not be handled now. Tried again.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The quorum did not answer.
    #[error(transparent)]
    Quorum(#[from] leeward_quorum::Error),
    /// The API refused or did not answer.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

/// Handles all `Operation`s of this cluster until `stop`.
pub async fn run(agent: Arc<Agent>, client: Client, cache: Cache, traces: Option<Traces>, stop: CancellationToken) {
    let mut changes = agent.changes();
    loop {
        changes.borrow_and_update();
        let known = agent.known();
        let mut failed = false;
        // Before everything was read, no application seems to be protected, and nothing may be refused for that.
        let read = known.view.revision() > 0;
        if read {
            let ended = agent.counted.operations.look(&known);
            if let Some(traces) = traces.as_ref().filter(|_| agent.acts()) {
                traces.ended(&agent.me, &known, &ended);
            }
        }
        if !agent.acts() {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changes.changed() => continue,
            }
        }
        for operation in cache.operations.state().into_iter().filter(|_| read) {
            if let Err(error) = handle(&agent, &client, &known, &operation).await {
                tracing::debug!(operation = operation.name_any(), %error, "not handled yet");
                failed = true;
            }
        }
        for situation in known.situations() {
            if let Err(error) = record(&agent, &client, &cache, situation).await {
                tracing::debug!(app = %situation.app.value.key, %error, "the operation is not recorded yet");
                failed = true;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => tokio::time::sleep(Duration::from_millis(20)).await,
            () = tokio::time::sleep(Duration::from_millis(500)), if failed => {}
        }
    }
}

fn ended(operation: &Operation) -> bool {
    let phase = operation.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Cancelled" | "Refused" | "Failed"))
}

async fn handle(agent: &Agent, client: &Client, known: &Known, resource: &Operation) -> Result<(), OperationError> {
    if ended(resource) || resource.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let (id, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
    let app = AppKey::new(namespace, &resource.spec.app);
    let Some(situation) = known.situation(&app) else {
        let reason = format!(
            "there is no ProtectedApp {} in this namespace that was accepted",
            resource.spec.app
        );
        return apply(client, resource, &refused(resource, reason)).await;
    };
    let request_key = key::request(&app, &id);
    let asked = known.view.get::<Request>(&request_key);
    if let Some(status) = progress(&situation, &id, resource) {
        let running = status.phase.as_deref() == Some(RUNNING);
        let status = match &asked {
            Some(asked) if running => with_refused_cancel(status, &asked.value, resource),
            _ => status,
        };
        apply(client, resource, &status).await?;
        return match asked {
            // It came too late, or the operation has ended meanwhile: the answer was taken.
            Some(asked) if !running || asked.value.refused.is_some() => {
                forget(agent, &request_key, asked.revision).await
            }
            None if running && resource.spec.cancel && !is_told(&status.conditions) => {
                put(agent, &request_key, 0, &request(resource, id)).await
            }
            _ => Ok(()),
        };
    }
    match asked {
        Some(Versioned { value, revision }) => match value.refused {
            Some(_) if value.cancel => {
                apply(client, resource, &called_off(resource)).await?;
                forget(agent, &request_key, revision).await
            }
            Some(reason) => {
                apply(client, resource, &refused(resource, reason)).await?;
                forget(agent, &request_key, revision).await
            }
            None if resource.spec.cancel && !value.cancel => {
                put(agent, &request_key, revision, &Request { cancel: true, ..value }).await
            }
            None => Ok(()),
        },
        // It was answered, its plan just has not been seen yet.
        None if resource.status.as_ref().is_some_and(|status| status.phase.is_some()) => Ok(()),
        None if resource.spec.cancel => apply(client, resource, &called_off(resource)).await,
        None => {
            put(agent, &request_key, 0, &request(resource, id)).await?;
            let status = OperationStatus {
                phase: Some("Pending".into()),
                ..OperationStatus::default()
            };
            apply(client, resource, &status).await
        }
    }
}

const RUNNING: &str = "Running";

fn request(resource: &Operation, id: String) -> Request {
    Request {
        id,
        kind: match resource.spec.type_ {
            OperationType::Failover => Kind::Failover,
            OperationType::Switchover => Kind::Switchover,
        },
        to: ClusterName::new(&resource.spec.to),
        asked_ms: clock::wall_ms(),
        accept_loss_ms: resource
            .spec
            .accept_data_loss
            .map(|loss| u64::try_from(std::time::Duration::from(loss).as_millis()).unwrap_or(u64::MAX)),
        cancel: resource.spec.cancel,
        refused: None,
    }
}

/// Asks, in the place of what was asked at a revision, 0 for nothing. Where that has changed meanwhile it is looked at again.
async fn put(agent: &Agent, key: &str, revision: u64, request: &Request) -> Result<(), OperationError> {
    let txn = Txn::default().expect(key, revision).put(key, request)?.read(key);
    let outcome = agent.quorum.txn(txn).await?;
    agent.learn(|known| follow::take(known, outcome.entries));
    Ok(())
}

/// An answer was taken.
async fn forget(agent: &Agent, key: &str, revision: u64) -> Result<(), OperationError> {
    agent
        .quorum
        .txn(Txn::default().expect(key, revision).delete(key))
        .await?;
    Ok(())
}

/// Whether it was said already that it is too late to call it off.
fn is_told(conditions: &[Condition]) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == condition::CANCELLED)
}

/// The status of a running operation that could not be called off any more.
fn with_refused_cancel(mut status: OperationStatus, asked: &Request, resource: &Operation) -> OperationStatus {
    if let Some(late) = asked.refused.as_ref().filter(|_| asked.cancel) {
        let generation = resource.metadata.generation;
        let now = now();
        condition::set(
            &mut status.conditions,
            condition::CANCELLED,
            false,
            "TooLate",
            late,
            generation,
            now,
        );
    }
    status
}

/// The status of an operation that was called off before it began.
fn called_off(resource: &Operation) -> OperationStatus {
    let mut status = resource.status.clone().unwrap_or_default();
    cancelled(&mut status, "it was called off before it began", resource);
    status
}

fn cancelled(status: &mut OperationStatus, message: &str, resource: &Operation) {
    status.phase = Some("Cancelled".into());
    status.message = Some(message.to_owned());
    let generation = resource.metadata.generation;
    complete(status, false, "Cancelled", message, generation);
    condition::set(
        &mut status.conditions,
        condition::CANCELLED,
        true,
        "Cancelled",
        message,
        generation,
        now(),
    );
}

/// The status of an operation that is or was in the plan.
fn progress(situation: &Situation, id: &str, resource: &Operation) -> Option<OperationStatus> {
    let plan = situation.plan()?;
    let conditions = resource
        .status
        .as_ref()
        .map(|status| status.conditions.clone())
        .unwrap_or_default();
    if let Some(operation) = plan.operation.as_ref().filter(|operation| operation.id == id) {
        let mut status = describe(operation, &situation.journal);
        status.phase = Some(RUNNING.into());
        status.cancellable = Some(cancellable(operation, &situation.roles, &situation.journal).is_ok());
        status.message = operation.next_step(&situation.journal).map(|step| {
            let trouble = situation
                .journal
                .get(&step.name)
                .and_then(|record| record.trouble.clone());
            let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
            format!("{:?} in {}{trouble}", step.name, step.cluster)
        });
        status.conditions = conditions;
        return Some(status);
    }
    let finished = plan.finished.as_ref().filter(|finished| finished.operation.id == id)?;
    let mut status = match (&plan.operation, &resource.status) {
        // Another one followed at once, and the journal is that one's.
        (Some(_), Some(before)) => before.clone(),
        _ => describe(&finished.operation, &situation.journal),
    };
    status.ended = time(finished.ended_ms);
    status.cancellable = None;
    status.conditions = conditions;
    match &finished.outcome {
        Outcome::Failed(why) => {
            status.phase = Some("Failed".into());
            status.message = Some(why.clone());
            if plan.operation.is_none() {
                // Its target never had the roles.
                status.epoch = None;
            }
            complete(&mut status, false, "Failed", why, resource.metadata.generation);
        }
        Outcome::Cancelled => {
            // No role was raised to it for its target.
            status.epoch = None;
            let message = format!("{} is active again; nothing was moved", finished.operation.from);
            cancelled(&mut status, &message, resource);
        }
        Outcome::Succeeded => {
            let message = format!("{} is active", finished.operation.to);
            status.phase = Some("Succeeded".into());
            let took = finished.ended_ms.saturating_sub(finished.operation.began_ms);
            status.rto = Some(Duration::from_millis(took).into());
            complete(&mut status, true, "Succeeded", &message, resource.metadata.generation);
            status.message = Some(message);
        }
    }
    Some(status)
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(clock::wall_ms() as i64).unwrap_or_default()
}

fn complete(status: &mut OperationStatus, ready: bool, reason: &str, message: &str, generation: Option<i64>) {
    let now = now();
    for (type_, value) in [(condition::COMPLETE, true), (condition::READY, ready)] {
        condition::set(&mut status.conditions, type_, value, reason, message, generation, now);
    }
}

fn describe(operation: &core::Operation, journal: &Journal) -> OperationStatus {
    let decided = StepStatus {
        name: "Decide".into(),
        cluster: String::new(),
        started: time(operation.began_ms),
        ended: time(operation.decided_ms),
        outcome: Some("Done".into()),
    };
    let steps = operation.steps.iter().map(|step| {
        let record = journal.get(&step.name);
        StepStatus {
            name: format!("{:?}", step.name),
            cluster: step.cluster.to_string(),
            started: record.and_then(|record| time(record.started_ms)),
            ended: record.and_then(|record| time(record.ended_ms?)),
            outcome: record.and_then(|r| r.trouble.clone().or_else(|| r.ended_ms.map(|_| "Done".to_owned()))),
        }
    });
    let point = journal.get(&StepName::Promote).and_then(|record| record.point_ms);
    OperationStatus {
        from: Some(operation.from.to_string()),
        epoch: Some(operation.epoch.0),
        started: time(operation.began_ms),
        steps: std::iter::once(decided).chain(steps).collect(),
        promoted_point: point.and_then(time),
        rpo: point
            .filter(|_| operation.kind == Kind::Failover)
            .map(|point| Duration::from_millis(operation.began_ms.saturating_sub(point)).into()),
        ..OperationStatus::default()
    }
}

fn time(ms: u64) -> Option<MicroTime> {
    jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?)
        .ok()
        .map(MicroTime)
}

fn refused(resource: &Operation, reason: String) -> OperationStatus {
    let mut status = resource.status.clone().unwrap_or_default();
    status.phase = Some("Refused".into());
    status.message = Some(reason.clone());
    complete(&mut status, false, "Refused", &reason, resource.metadata.generation);
    status
}

async fn apply(client: &Client, resource: &Operation, status: &OperationStatus) -> Result<(), OperationError> {
    if resource.status.as_ref() == Some(status) {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": "leeward.dev/v1alpha1",
        "kind": "Operation",
        "metadata": { "name": resource.name_any() },
        "status": status,
    });
    let api: Api<Operation> = Api::namespaced(client.clone(), &resource.namespace().unwrap_or_default());
    api.patch_status(
        &resource.name_any(),
        &PatchParams::apply(FIELD_MANAGER).force(),
        &Patch::Apply(&patch),
    )
    .await?;
    Ok(())
}

/// Makes the resource of an operation that nobody asked for, in the cluster that it moves to.
async fn record(agent: &Agent, client: &Client, cache: &Cache, situation: &Situation) -> Result<(), OperationError> {
    let Some(plan) = situation.plan() else { return Ok(()) };
    let finished = plan.finished.as_ref().map(|finished| &finished.operation);
    let Some(operation) = plan.operation.as_ref().or(finished) else {
        return Ok(());
    };
    let app = &situation.app.value.key;
    let here = cache
        .operations
        .get(&ObjectRef::new(&operation.id).within(&app.namespace));
    let unasked = ["failover-", DRAIN]
        .iter()
        .any(|prefix| operation.id.starts_with(prefix));
    if operation.to != agent.me || here.is_some() || !unasked {
        return Ok(());
    }
    let type_ = match operation.kind {
        Kind::Failover => OperationType::Failover,
        Kind::Switchover => OperationType::Switchover,
    };
    let resource = json!({
        "apiVersion": "leeward.dev/v1alpha1",
        "kind": "Operation",
        "metadata": { "name": operation.id, "namespace": app.namespace },
        "spec": { "type": type_, "app": app.name, "to": operation.to.as_str() },
    });
    let api: Api<Operation> = Api::namespaced(client.clone(), &app.namespace);
    api.patch(
        &operation.id,
        &PatchParams::apply(FIELD_MANAGER).force(),
        &Patch::Apply(&resource),
    )
    .await?;
    Ok(())
}
