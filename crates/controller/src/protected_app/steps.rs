//! Executes one step of an operation. Each step is a level to reach, not an edge: run again after a kill at any moment, it
//! goes on from where things are. It is done when it says so, and then the journal does.

use kube::Client;
use leeward_core::{
    app::App,
    capacity::CAPACITY,
    handover,
    name::{ClusterName, RoleKey},
    operation::{Operation, Step, StepName, StepRecord},
    plan::{self, Commit},
};
use leeward_quorum::{Txn, commit, key, known::Situation};
use leeward_state::config::Running;

use super::{
    data::{Data, DataError},
    workloads,
};
use crate::{
    agent::{Agent, follow},
    cache::Cache,
    clock,
};

/// Why a step is not done yet. All of these are tried again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The data is not where it should be.
    #[error(transparent)]
    Data(Box<DataError>),
    /// The API refused or did not answer.
    #[error("{}", leeward_state::api_text(.0))]
    Kube(#[from] kube::Error),
    /// The quorum did not answer.
    #[error(transparent)]
    Quorum(#[from] leeward_quorum::Error),
    /// Something has to come first.
    #[error("waiting for {0}")]
    Waiting(String),
}

impl From<DataError> for StepError {
    fn from(error: DataError) -> Self {
        Self::Data(Box::new(error))
    }
}

/// What steps are executed with.
pub struct Tools<'a> {
    /// This agent.
    pub agent: &'a Agent,
    /// This cluster's API.
    pub client: &'a Client,
    /// What is in this cluster.
    pub cache: &'a Cache,
    /// The data of the roles.
    pub data: &'a Data,
}

/// Executes a step and writes the journal: that it began, and that it is done or what the trouble is.
///
/// # Errors
/// Why it is not done.
pub async fn execute(
    tools: &Tools<'_>,
    situation: &Situation,
    operation: &Operation,
    step: &Step,
) -> Result<(), StepError> {
    let app = &situation.app.value;
    let began = situation.journal.get(&step.name);
    let mut record = StepRecord {
        started_ms: began.map_or_else(clock::wall_ms, |record| record.started_ms),
        ended_ms: None,
        trouble: None,
        point_ms: None,
    };
    if began.is_none() {
        write(tools.agent, app, operation, step.name, &record).await?;
    }
    match run(tools, situation, operation, step.name).await {
        Ok(point_ms) => {
            record.ended_ms = Some(clock::wall_ms());
            record.point_ms = point_ms;
            write(tools.agent, app, operation, step.name, &record).await?;
            tracing::info!(app = %app.key, operation = operation.id, step = ?step.name, "done");
            Ok(())
        }
        Err(error) => {
            record.trouble = Some(error.to_string());
            if began.is_none_or(|began| began.trouble != record.trouble) {
                write(tools.agent, app, operation, step.name, &record).await?;
            }
            Err(error)
        }
    }
}

async fn write(
    agent: &Agent,
    app: &App,
    operation: &Operation,
    step: StepName,
    record: &StepRecord,
) -> Result<(), StepError> {
    let key = key::journal(&app.key, &operation.id, step);
    let outcome = agent.quorum.txn(Txn::default().put(&key, record)?.read(&key)).await?;
    agent.learn(|known| follow::take(known, outcome.entries));
    Ok(())
}

/// Runs a step; the source time of the point that it promoted, if it did.
async fn run(
    tools: &Tools<'_>,
    situation: &Situation,
    operation: &Operation,
    step: StepName,
) -> Result<Option<u64>, StepError> {
    let app = &situation.app.value;
    let mut oldest: Option<u64> = None;
    match step {
        StepName::Quiesce => quiesce(tools, app).await?,
        StepName::LastPoint => {
            // From here on nothing is granted, so that nothing is answered that is not in it: until the next renewal a pod that came late could still
            // be granted what the one before read.
            tools.agent.revoke(&situation.roles, operation);
            for role in app.role_keys() {
                closed(tools.agent, &role)?;
            }
            for role in &app.roles {
                let key = RoleKey::new(app.key.clone(), &role.name);
                let epoch = situation
                    .roles
                    .get(&key)
                    .map(|role| role.value.epoch)
                    .unwrap_or_default();
                tools.data.last_point(app, role, epoch, &operation.to).await?;
            }
        }
        StepName::Release => release(tools.agent, situation, operation).await?,
        StepName::Take => take(tools.agent, situation, operation).await?,
        StepName::Promote => {
            for role in &app.roles {
                let point = tools.data.promote(app, role, operation.epoch).await?;
                let time = point.map(|point| point.source_time_ms);
                oldest = oldest.map_or(time, |oldest| Some(oldest.min(time.unwrap_or(oldest))));
            }
        }
        StepName::Start => start(tools, app)?,
    }
    Ok(oldest)
}

/// The workloads are scaled down by their mode already; here is waited until their pods are gone.
async fn quiesce(tools: &Tools<'_>, app: &App) -> Result<(), StepError> {
    let standby = app
        .placement(&tools.agent.me)
        .map_or(0, |placement| placement.standby_replicas);
    let workloads = workloads::find(tools.cache, app);
    workloads::run(tools.client, app, &workloads, Running::Standby(standby)).await?;
    let pods = workloads::pods(tools.cache, app, &workloads).len();
    if standby == 0 && pods > 0 {
        return Err(StepError::Waiting(format!("the end of its pods ({pods} left)")));
    }
    // A pod that was removed with its node cut off may live on until its grant ends; what it writes has to be in the last point.
    for role in app.role_keys() {
        closed(tools.agent, &role)?;
    }
    let down = workloads.iter().all(|workload| workload.replicas == standby);
    if down {
        Ok(())
    } else {
        Err(StepError::Waiting("the workloads to be scaled down".into()))
    }
}

/// No gate lets anything out in a role.
fn closed(agent: &Agent, role: &RoleKey) -> Result<(), StepError> {
    agent
        .open_gate(role)
        .map_or(Ok(()), |open| Err(StepError::Waiting(open)))
}

/// Gives the roles back: first nothing leaves this agent any more, then the quorum is told.
async fn release(agent: &Agent, situation: &Situation, operation: &Operation) -> Result<(), StepError> {
    // It can still be called off; once the target has the roles there is no way but on.
    let (to, key) = (&operation.to, &situation.app.value.key);
    let cancel = format!("call it off with `leeward switchover {key} --cancel`");
    if let Some(lapsed) = plan::without_lease(&agent.known().sights, to, &agent.timing, clock::now()) {
        return Err(StepError::Waiting(format!(
            "{to} ({lapsed}): bring it back, or {cancel}"
        )));
    }
    if let Some(lack) = no_room(agent, &situation.app.value, &operation.to) {
        return Err(StepError::Waiting(format!(
            "room in {to} ({lack}): make room there, or {cancel}"
        )));
    }
    agent.revoke(&situation.roles, operation);
    for (role, _) in handover::to_revoke(&situation.roles, operation) {
        closed(agent, role)?;
    }
    let plan = situation.plan.as_ref().map_or(0, |plan| plan.revision);
    let commit = handover::release(&situation.roles, plan, operation);
    commit_roles(agent, commit, situation).await
}

/// What has no room any more where the application moves to.
fn no_room(agent: &Agent, app: &App, to: &ClusterName) -> Option<String> {
    let reports = agent.reports(&app.key);
    let missing = &reports.get(to)?.value.missing;
    missing.iter().find(|lack| lack.starts_with(CAPACITY)).cloned()
}

/// Takes the roles that were released for this cluster.
async fn take(agent: &Agent, situation: &Situation, operation: &Operation) -> Result<(), StepError> {
    let plan = situation.plan.as_ref().map_or(0, |plan| plan.revision);
    let commit = handover::take(&situation.roles, plan, operation);
    let commit =
        commit.map_err(|role| StepError::Waiting(format!("{} to release role {}", operation.from, role.role)))?;
    commit_roles(agent, commit, situation).await
}

async fn commit_roles(agent: &Agent, commit: Option<Commit>, situation: &Situation) -> Result<(), StepError> {
    let Some(commit) = commit else { return Ok(()) };
    let txn = commit::txn(&situation.app.value.key, &agent.known().sights, &commit)?;
    let txn = txn.expect(key::INCARNATION, situation.begun);
    let outcome = agent.quorum.txn(txn).await?;
    agent.learn(|known| follow::take(known, outcome.entries));
    if outcome.applied {
        Ok(())
    } else {
        Err(StepError::Waiting("the roles to be read again".into()))
    }
}

/// The workloads are scaled up by their mode; here is waited until they are ready and granted.
fn start(tools: &Tools<'_>, app: &App) -> Result<(), StepError> {
    let roles: Vec<RoleKey> = app.role_keys().collect();
    if !roles.is_empty() && tools.agent.granted(&roles, true).is_none() {
        return Err(StepError::Waiting("the lease to be renewed with the new roles".into()));
    }
    let workloads = workloads::find(tools.cache, app);
    if let Some(late) = workloads.iter().find(|w| w.replicas == 0 || w.ready < w.replicas) {
        return Err(StepError::Waiting(format!(
            "{} {} ({} of {} ready)",
            late.kind, late.name, late.ready, late.replicas
        )));
    }
    if let Some(traffic) = &app.traffic {
        let backends = workloads::backends(&tools.cache.services, &tools.cache.slices, &app.key.namespace, traffic);
        if backends.is_empty() {
            return Err(StepError::Waiting(format!(
                "a ready endpoint of Service {}",
                traffic.service
            )));
        }
    }
    Ok(())
}
