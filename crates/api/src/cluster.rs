//! `Cluster`: a Kubernetes cluster in a region, and where its agent, edge and registry are reached.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Kubernetes cluster that takes part. Every cluster holds one `Cluster` for itself and for each of the others.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "leeward.dev",
    version = "v1alpha1",
    kind = "Cluster",
    plural = "clusters",
    shortname = "lwc",
    category = "leeward",
    status = "ClusterStatus",
    derive = "PartialEq",
    doc = "A Kubernetes cluster that takes part, and where its agent, edge and registry are reached.",
    printcolumn(json_path = ".spec.region", name = "Region", type_ = "string"),
    printcolumn(
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        name = "Ready",
        type_ = "string"
    ),
    printcolumn(json_path = ".status.lease", name = "Lease", type_ = "string"),
    printcolumn(json_path = ".status.active", name = "Active", type_ = "integer"),
    printcolumn(json_path = ".status.maintenance", name = "Maintenance", type_ = "string"),
    printcolumn(json_path = ".spec.ingress", name = "Ingress", type_ = "string", priority = 1),
    printcolumn(json_path = ".spec.peer", name = "Peer", type_ = "string", priority = 1),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    crates(kube_core = "::kube_core")
)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self.region == oldSelf.region").message("a cluster does not move to another region: delete it and make a new one"),
    validation = Rule::new("[self.ingress, self.registry, self.peer].all(one, !one.startsWith('0.0.0.0:') && !one.startsWith('[::]:'))").message("0.0.0.0 and [::] are where one listens, and not where one is reached: say where others reach it")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// The failure domain that the cluster is in.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub region: String,

    /// The zones that the cluster's nodes are in, for the reader's eye and for spreading.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,

    /// Where users' requests enter, `HOST:PORT`: the cluster's edge. A name is looked up by every agent, and again every quarter of a minute.
    #[schemars(regex(pattern = r"^\S+:[0-9]+$"))]
    pub ingress: String,

    /// The region's image registry, `HOST:PORT`.
    #[schemars(regex(pattern = r"^\S+:[0-9]+$"))]
    pub registry: String,

    /// Where the other agents reach this one with mutual TLS, `HOST:PORT`.
    #[schemars(regex(pattern = r"^\S+:[0-9]+$"))]
    pub peer: String,

    /// Takes the cluster out of service for a while. It counts in the cluster itself only, not in the others' copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
}

/// How a cluster is out of service.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maintenance {
    /// Nothing moves to it.
    Cordon,
    /// Nothing moves to it, and what is active in it moves away, a few applications at a time; users of ActiveActive applications are led
    /// to the other clusters.
    Drain,
}

/// What is known of a cluster.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Default, Clone, PartialEq)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Whether the region holds its lease: `Held`, `Waiting` or `Lost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,

    /// The agent that wrote this, as it signs its lease: the cluster's name, its process and when it began. What an agent that is no
    /// more has written stays until its successor writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,

    /// How many ActivePassive applications are active in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<u32>,

    /// How it is out of service, as every cluster knows it: `Cordon` or `Drain`; nothing while it is in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,

    /// The newest state of each aspect.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
