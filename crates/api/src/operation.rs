//! `Operation`: a failover or a switchover of an application, asked for by a person or decided by Leeward, with each
//! step's start, end and outcome: what an auditor reads.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube_core::Duration;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A failover or a switchover of an application.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "leeward.dev",
    version = "v1alpha1",
    kind = "Operation",
    plural = "operations",
    shortname = "lwop",
    category = "leeward",
    namespaced,
    status = "OperationStatus",
    derive = "PartialEq",
    doc = "A failover or a switchover of an application, with what was done and when.",
    printcolumn(json_path = ".spec.type", name = "Type", type_ = "string"),
    printcolumn(json_path = ".spec.app", name = "App", type_ = "string"),
    printcolumn(json_path = ".spec.to", name = "To", type_ = "string"),
    printcolumn(json_path = ".status.phase", name = "Phase", type_ = "string"),
    printcolumn(
        json_path = ".status.cancellable",
        name = "Cancellable",
        type_ = "boolean",
        priority = 1
    ),
    printcolumn(json_path = ".status.epoch", name = "Epoch", type_ = "integer"),
    printcolumn(json_path = ".status.rto", name = "RTO", type_ = "string", priority = 1),
    printcolumn(json_path = ".status.rpo", name = "RPO", type_ = "string", priority = 1),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    crates(kube_core = "::kube_core")
)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self.type == oldSelf.type && self.app == oldSelf.app && self.to == oldSelf.to && has(self.acceptDataLoss) == has(oldSelf.acceptDataLoss) && (!has(self.acceptDataLoss) || self.acceptDataLoss == oldSelf.acceptDataLoss)").message("an Operation cannot be changed: create another one"),
    validation = Rule::new("!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)").message("an Operation that was called off stays so: create another one"),
    validation = Rule::new("self.type != 'Failover' || !(has(self.cancel) && self.cancel)").message("a failover cannot be called off: it is past its point of no return when it begins; switch over back once it has ended"),
    validation = Rule::new("self.type == 'Failover' || !has(self.acceptDataLoss)").message("a switchover loses nothing, so there is nothing to accept: leave acceptDataLoss out, or ask for a Failover")
)]
#[serde(rename_all = "camelCase")]
pub struct OperationSpec {
    /// What to do.
    #[serde(rename = "type")]
    pub type_: OperationType,

    /// The `ProtectedApp` in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub app: String,

    /// The cluster that is to be the active one.
    #[schemars(length(min = 1, max = 63))]
    pub to: String,

    /// The most that may be lost by a failover, as time before the last sign of the old cluster. Where more could be, it is refused; without
    /// this, one to a cluster that is not in sync is. It is kept in the operation's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = crate::DURATION_PATTERN))]
    pub accept_data_loss: Option<Duration>,

    /// Calls a switchover off, up to its point of no return: until the new cluster has taken the writer roles, or, without roles, until it
    /// serves. It is the only thing that can be changed, from `false` to `true`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
}

/// What to do.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationType {
    /// Unplanned: the active region is lost; what was not mirrored yet is lost too.
    Failover,
    /// Planned: the active region stops first, and nothing is lost.
    Switchover,
}

/// How far an operation is.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Default, Clone, PartialEq)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct OperationStatus {
    /// `Pending`, `Running`, `Succeeded`, `Cancelled`, `Refused` or `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,

    /// Why it is in this phase, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// While it runs: whether it can still be called off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancellable: Option<bool>,

    /// The cluster that was active before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,

    /// The epoch that it raised the writer roles to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,

    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<MicroTime>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<MicroTime>,

    /// The age of the promoted point when the last sign of the old writer was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Duration>,

    /// The source time of the point that was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_point: Option<MicroTime>,

    /// From the last sign of the old writer to the end of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Duration>,

    /// What was done, in order.
    #[serde(default)]
    pub steps: Vec<StepStatus>,

    /// The newest state of each aspect.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// One step of an operation.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Default, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// The step's name.
    #[serde(default)]
    pub name: String,
    /// The cluster whose agent executed it.
    #[serde(default)]
    pub cluster: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<MicroTime>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<MicroTime>,
    /// `Done` or the error that it ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}
