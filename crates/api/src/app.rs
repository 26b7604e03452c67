//! `ProtectedApp`: what a person says about an application, and what is true of it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube_core::Duration;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::operation::OperationType;

/// An application that goes on when a region is lost.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "leeward.dev",
    version = "v1alpha1",
    kind = "ProtectedApp",
    plural = "protectedapps",
    shortname = "papp",
    category = "leeward",
    namespaced,
    status = "ProtectedAppStatus",
    derive = "PartialEq",
    doc = "An application that goes on when a region is lost.",
    printcolumn(json_path = ".spec.model", name = "Model", type_ = "string"),
    printcolumn(json_path = ".status.active", name = "Active", type_ = "string"),
    printcolumn(
        json_path = r#".status.conditions[?(@.type=="Protected")].status"#,
        name = "Protected",
        type_ = "string"
    ),
    printcolumn(
        json_path = r#".status.conditions[?(@.type=="Serving")].status"#,
        name = "Serving",
        type_ = "string"
    ),
    printcolumn(json_path = ".status.epoch", name = "Epoch", type_ = "integer"),
    printcolumn(json_path = ".status.waitingFor[0]", name = "Waiting for", type_ = "string"),
    printcolumn(
        json_path = r#".status.conditions[?(@.type=="Fenced")].status"#,
        name = "Fenced",
        type_ = "string",
        priority = 1
    ),
    printcolumn(
        json_path = ".status.operation.type",
        name = "Operation",
        type_ = "string",
        priority = 1
    ),
    printcolumn(json_path = ".spec.paused", name = "Paused", type_ = "boolean", priority = 1),
    printcolumn(json_path = ".status.generation", name = "Plan", type_ = "integer", priority = 1),
    printcolumn(json_path = ".status.lastRpo", name = "Last RPO", type_ = "string", priority = 1),
    printcolumn(json_path = ".status.lastRto", name = "Last RTO", type_ = "string", priority = 1),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    crates(kube_core = "::kube_core")
)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self.model != 'ActivePassive' || self.placements.size() >= 2").message("ActivePassive needs a second placement to stand by"),
    validation = Rule::new("self.model != 'ActiveActive' || self.roles.size() == 0").message("an ActiveActive application has no writer roles: every region serves"),
    validation = Rule::new("self.roles.all(r, duration(self.objectives.rpo) - duration(r.interval) >= duration(r.interval))").message("objectives.rpo must be at least twice each role's interval: a point is taken, then sent, before it counts"),
    validation = Rule::new("self.model == oldSelf.model").message("the model cannot be changed while the application is protected: delete the ProtectedApp and apply it anew"),
    validation = Rule::new("self.placements.all(p, self.placements.exists_one(q, q.cluster == p.cluster))").message("a cluster has one placement")
)]
#[serde(rename_all = "camelCase")]
pub struct ProtectedAppSpec {
    /// Which objects of the namespace belong to the application. What they refer to (Secrets, ConfigMaps, claims,
    /// service accounts) belongs to it too.
    pub selector: LabelSelector,

    /// What of these is carried to the clusters that stand by.
    #[serde(default, skip_serializing_if = "Configuration::is_default")]
    pub configuration: Configuration,

    /// What runs where.
    pub model: Model,

    /// The clusters that the application runs or stands by in.
    #[schemars(length(min = 1, max = 15))]
    pub placements: Vec<Placement>,

    /// What is promised.
    #[serde(default)]
    pub objectives: Objectives,

    /// When to fail over.
    #[serde(default)]
    pub failover: Failover,

    /// Whether Leeward moves nothing of the application by itself, whatever `failover.mode` says: no failover begins, also not in the place of a
    /// switchover whose source is lost. Its data is mirrored and fenced as ever, and what a person asks for with an `Operation` is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,

    /// The groups of volumes of which only one region may be the writer.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub roles: Vec<WriterRole>,

    /// How users reach the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

/// What of an application's objects is carried to the clusters that stand by: all but Secrets, which a person has to ask for.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("(self.secrets == 'Named') == (has(self.secretNames) && self.secretNames.size() > 0)").message("secretNames says which Secrets are carried with secrets: Named, and with nothing else")
)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// Which Secrets are carried. One that a workload needs and that is not carried has to be made in each cluster: without it nothing fails over there.
    #[serde(default)]
    pub secrets: Secrets,

    /// The Secrets to carry, with `secrets: Named`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub secret_names: Vec<String>,
}

impl Configuration {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which Secrets are carried.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Secrets {
    /// None: each cluster has its own.
    #[default]
    None,
    /// Those that `secretNames` names.
    Named,
    /// All that belong to the application.
    All,
}

/// What runs where.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Every region serves.
    ActiveActive,
    /// One region serves and writes; the others stand by.
    ActivePassive,
}

/// One cluster that the application runs or stands by in.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The name of a `Cluster`.
    #[schemars(length(min = 1, max = 63))]
    pub cluster: String,

    /// Lower is preferred: the first active cluster and the target of a failover are the lowest that can.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 1, max = 5))]
    pub priority: u8,

    /// The share of requests among clusters of the same priority.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u16,

    /// How many replicas of each workload run here while the cluster stands by.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub standby_replicas: i32,

    /// What is different here: merge patches (RFC 7386) on carried objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub overrides: Vec<Override>,
}

fn default_priority() -> u8 {
    1
}

fn default_weight() -> u16 {
    100
}

/// A change of one carried object in one placement.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// The object's kind.
    pub kind: String,
    /// The object's name.
    pub name: String,
    /// A merge patch (RFC 7386). It may not change `apiVersion`, `kind` or `metadata.name`.
    #[schemars(schema_with = "any_object")]
    pub patch: BTreeMap<String, serde_json::Value>,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// What is promised to the application's users.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("duration(self.rto) > duration('0s')").message("rto must be longer than 0s")
)]
#[serde(rename_all = "camelCase")]
pub struct Objectives {
    /// The most that may be lost, as time before the fault.
    #[serde(default = "default_rpo")]
    #[schemars(extend("pattern" = crate::DURATION_PATTERN))]
    pub rpo: Duration,

    /// What the active region does while a standby does not confirm its points in time, so that more than `rpo` could be lost.
    #[serde(default)]
    pub when_standby_away: WhenStandbyAway,

    /// The longest time until the application is back.
    #[serde(default = "default_rto")]
    #[schemars(extend("pattern" = crate::DURATION_PATTERN))]
    pub rto: Duration,
}

impl Default for Objectives {
    fn default() -> Self {
        Self {
            rpo: default_rpo(),
            when_standby_away: WhenStandbyAway::default(),
            rto: default_rto(),
        }
    }
}

/// What the active region does while a standby does not confirm its points in time.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenStandbyAway {
    /// It goes on, and nothing fails over to that standby by itself until it has caught up.
    #[default]
    Serve,
    /// It answers nothing until the standby confirms again: whatever is lost, no more than `rpo` is.
    Stop,
}

fn default_rpo() -> Duration {
    std::time::Duration::from_secs(60).into()
}

fn default_rto() -> Duration {
    std::time::Duration::from_secs(60).into()
}

/// When to fail over.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// Who decides on a failover.
    #[serde(default)]
    pub mode: FailoverMode,
}

/// Who decides on a failover.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FailoverMode {
    /// Leeward, as soon as the quorum agrees that the active region is lost and fenced.
    #[default]
    Automatic,
    /// A person, with an `Operation`.
    Manual,
}

/// A group of claims of which only one region may be the writer.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("duration(self.interval) >= duration('1s')").message("interval must be at least 1s")
)]
#[serde(rename_all = "camelCase")]
pub struct WriterRole {
    /// The role's name within the application.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// The PersistentVolumeClaims whose volumes make a point together.
    #[schemars(length(min = 1, max = 16))]
    pub claims: Vec<String>,

    /// How often a point is taken and sent, 1s at the least.
    #[serde(default = "default_interval")]
    #[schemars(extend("pattern" = crate::DURATION_PATTERN))]
    pub interval: Duration,
}

fn default_interval() -> Duration {
    std::time::Duration::from_secs(5).into()
}

/// How users reach the application.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// The names in the Host header that mean this application.
    #[schemars(length(min = 1, max = 16))]
    pub hosts: Vec<String>,

    /// The Service whose endpoints answer.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,

    /// The Service's port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// How a cluster's health is found.
    #[serde(default)]
    pub probe: Probe,
}

/// How a cluster's health is found.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("duration(self.interval) >= duration('1s')").message("interval must be at least 1s"),
    validation = Rule::new("duration(self.timeout) <= duration(self.interval)").message("timeout must not be longer than interval")
)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The path of a GET that is answered with 2xx or 3xx by a healthy cluster.
    #[serde(default = "default_path")]
    #[schemars(regex(pattern = r"^/\S*$"))]
    pub path: String,

    /// Time between probes, 1s at the least.
    #[serde(default = "default_probe_interval")]
    #[schemars(extend("pattern" = crate::DURATION_PATTERN))]
    pub interval: Duration,

    /// How long an answer may take.
    #[serde(default = "default_probe_timeout")]
    #[schemars(extend("pattern" = crate::DURATION_PATTERN))]
    pub timeout: Duration,

    /// How many failures in a row are tolerated before the cluster counts as unhealthy.
    #[serde(default = "default_tolerated")]
    #[schemars(range(min = 0, max = 9))]
    pub tolerated_failures: u8,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            path: default_path(),
            interval: default_probe_interval(),
            timeout: default_probe_timeout(),
            tolerated_failures: default_tolerated(),
        }
    }
}

fn default_path() -> String {
    "/".into()
}

fn default_probe_interval() -> Duration {
    std::time::Duration::from_secs(1).into()
}

fn default_probe_timeout() -> Duration {
    std::time::Duration::from_secs(1).into()
}

fn default_tolerated() -> u8 {
    1
}

/// What is true of an application.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Default, Clone, PartialEq)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct ProtectedAppStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The cluster that serves, or the only one that may (ActivePassive). While the application moves, it is the one that has the writer roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,

    /// The highest epoch of the application's writer roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,

    /// The generation of the newest committed plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,

    /// What is being done to move it, while something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<RunningOperation>,

    /// Each placement's state.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["cluster".into()]))]
    #[serde(default)]
    pub placements: Vec<PlacementStatus>,

    /// The age of the promoted point when the last sign of the old writer was seen, a renewal of its lease or a report: the fault came up to
    /// a sixth of the lease later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rpo: Option<Duration>,

    /// How long the last failover took, from the first sign of the fault to the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rto: Option<Duration>,

    /// What has to happen before the application is protected, most important first.
    #[serde(default)]
    pub waiting_for: Vec<String>,

    /// The newest state of each aspect.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// The operation that runs.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunningOperation {
    /// The name of its `Operation`.
    pub name: String,

    /// What it does.
    #[serde(rename = "type")]
    pub type_: OperationType,

    /// The cluster that was active.
    pub from: String,

    /// The cluster that is to be.
    pub to: String,

    /// The step that is being done, and where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,

    /// Whether it can still be called off.
    pub cancellable: bool,

    /// Why it cannot, and what to do instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_cancellable: Option<String>,
}

/// One placement's state.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Default, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PlacementStatus {
    /// The cluster.
    #[serde(default)]
    pub cluster: String,

    /// `Active`, `Standby`, `Fenced` or `Lost`.
    #[serde(default)]
    pub state: String,

    /// Whether everything that a start needs is there: configuration, verified images, data, room on the nodes.
    #[serde(default)]
    pub ready: bool,

    /// What is missing.
    #[serde(default)]
    pub missing: Vec<String>,

    /// What is there in part: it would serve from here, with fewer pods than it should have. Nothing is refused for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub short: Vec<String>,

    /// What could not be looked at, so that nobody knows whether it is missing. Nothing is refused for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,

    /// How far the copy of the data is behind: behind now, or, once the lease of the active cluster is over, behind its end, since nothing was
    /// written after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Duration>,

    /// Of a standby: whether it is in sync, that is, lacks no more than the rpo of any role. Only then does anything fail over to it by
    /// itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_sync: Option<bool>,

    /// The source time of the newest complete point here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_point: Option<Time>,

    /// What this cluster has mirrored since it became active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorStatus>,

    /// What only this cluster had when it returned, and where that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptStatus>,

    /// For each writer role, the pod that may write here, through its gate. A grant rests on this cluster's lease, and on the points that the
    /// standbys in sync confirm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<GrantStatus>,
}

/// What only a cluster had when it returned. Nothing deletes it.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Default, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KeptStatus {
    /// Files and links that differ from the new writer's, or that it does not have.
    #[serde(default)]
    pub files: u64,

    /// Their bytes that differ, or that the new writer does not have.
    #[serde(default)]
    pub bytes: u64,

    /// From when on it was written: when the point was taken that the new writer went on from; where that was not known, the oldest last change
    /// of these files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,

    /// The newest change of these files. Where it is before `from`, nothing was written after that point: it is what the new writer has changed or
    /// removed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Time>,

    /// The directory in which it is kept, on the disk of the cluster's agent.
    #[serde(default)]
    pub path: String,
}

/// What the gate of a pod is granted.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Default, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GrantStatus {
    /// The writer role.
    #[serde(default)]
    pub role: String,

    /// The UID of the pod.
    #[serde(default)]
    pub pod: String,

    /// The epoch at which it writes.
    #[serde(default)]
    pub epoch: u64,
}

/// What a cluster has mirrored since it became active.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Default, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MirrorStatus {
    /// Points that every standby confirmed.
    #[serde(default)]
    pub points: u64,

    /// Bytes sent for them.
    #[serde(default)]
    pub bytes_sent: u64,

    /// The longest time that the pods stood still for a point, in milliseconds.
    #[serde(default)]
    pub longest_pause_ms: u64,
}
