//! What is done to move an application: its steps in order, who does each, and what the journal says of them.
//!
//! Invariant: each step is safe to run twice; the next one begins when the journal says that the one before is done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{ClusterName, Epoch};

/// A failover or switchover under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The name of the `Operation` resource, or one that Leeward chose.
    pub id: String,
    /// What is done.
    pub kind: Kind,
    /// The cluster that was active.
    pub from: ClusterName,
    /// The cluster that will be.
    pub to: ClusterName,
    /// The epoch that the application's roles get.
    pub epoch: Epoch,
    /// When the last sign of the old writer was seen (failover) or the request (switchover); wall clock, Unix ms.
    pub began_ms: u64,
    /// When this was decided; wall clock, Unix ms.
    pub decided_ms: u64,
    /// What has to be done, in order.
    pub steps: Vec<Step>,
    /// What a person accepted to lose for it, in ms, where the target was not in sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_loss_ms: Option<u64>,
}

/// An operation that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The operation.
    pub operation: Operation,
    /// When its last step ended, or when it was cancelled or failed; wall clock, Unix ms.
    pub ended_ms: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All of its steps were done.
    Succeeded,
    /// A person called it off, and nothing was moved.
    Cancelled,
    /// It ended before its last step without anybody calling it off: why.
    Failed(String),
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Unplanned: the active cluster is lost.
    Failover,
    /// Planned: the active cluster stops first.
    Switchover,
}

/// One step and who executes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub name: StepName,
    /// The cluster whose agent does it.
    pub cluster: ClusterName,
}

/// What a step does. Each is safe to run twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StepName {
    /// Writes are refused and the workloads stop.
    Quiesce,
    /// What the mirror still lacks is sent and confirmed.
    LastPoint,
    /// The roles are given back, after nothing can be answered any more.
    Release,
    /// The roles are taken at the new epoch.
    Take,
    /// The newest complete point becomes the volumes.
    Promote,
    /// The workloads start and become ready.
    Start,
}

impl StepName {
    /// The steps of an operation.
    pub(crate) fn of(kind: Kind, has_roles: bool) -> &'static [Self] {
        match (kind, has_roles) {
            (Kind::Failover, true) => &[Self::Promote, Self::Start],
            (Kind::Failover, false) => &[Self::Start],
            (Kind::Switchover, true) => &[
                Self::Quiesce,
                Self::LastPoint,
                Self::Release,
                Self::Take,
                Self::Promote,
                Self::Start,
            ],
            (Kind::Switchover, false) => &[Self::Start, Self::Quiesce],
        }
    }

    /// Whether the step is done in the cluster that stops.
    pub(crate) fn at_source(self) -> bool {
        matches!(self, Self::Quiesce | Self::LastPoint | Self::Release)
    }
}

/// What the journal says of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// When it began; wall clock, Unix ms.
    pub started_ms: u64,
    /// When it was done; wall clock, Unix ms.
    pub ended_ms: Option<u64>,
    /// The newest trouble, while it is not done.
    pub trouble: Option<String>,
    /// The source time of the point that was promoted, the oldest of the roles; wall clock, Unix ms.
    #[serde(default)]
    pub point_ms: Option<u64>,
}

/// The journal of one operation.
pub type Journal = BTreeMap<StepName, StepRecord>;

impl Operation {
    /// The first step that is not done, with its position.
    pub fn next_step(&self, journal: &Journal) -> Option<&Step> {
        self.steps.iter().find(|step| !is_done(journal, step.name))
    }
}

/// Whether the journal says that a step is done.
pub fn is_done(journal: &Journal, step: StepName) -> bool {
    journal.get(&step).is_some_and(|record| record.ended_ms.is_some())
}

/// Something that a person asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The name of the `Operation` resource.
    pub id: String,
    /// What.
    pub kind: Kind,
    /// The cluster that is to be active.
    pub to: ClusterName,
    /// When; wall clock, Unix ms.
    pub asked_ms: u64,
    /// The most that may be lost, in ms, should the target of a failover not be in sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_loss_ms: Option<u64>,
    /// Whether the operation of this name is to be called off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
    /// Why it was refused, once it was.
    pub refused: Option<String>,
}
