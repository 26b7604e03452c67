//! What is wrong with an object of a built-in kind, after defaults.

use serde_json::Value;

use crate::machinery::{FieldError, metadata};

mod config;
mod container;
mod network;
mod pod;
mod policy;
pub(super) mod rule;
mod schedule;
mod selector;
mod storage;
mod volume;
pub(super) mod words;
mod workload;

use rule::{Errors, Node, Rule, check};

/// The rules of each kind.
const KINDS: &[(&str, &[Rule])] = &[
    ("APIService", config::API_SERVICE),
    ("ClusterRole", policy::CLUSTER_ROLE),
    ("ClusterRoleBinding", policy::CLUSTER_ROLE_BINDING),
    ("ConfigMap", config::CONFIG_MAP),
    ("CronJob", workload::CRON_JOB),
    ("DaemonSet", workload::DAEMON_SET),
    ("Deployment", workload::DEPLOYMENT),
    ("EndpointSlice", network::SLICE),
    ("Endpoints", network::ENDPOINTS),
    ("HorizontalPodAutoscaler", policy::AUTOSCALER),
    ("Ingress", network::INGRESS),
    ("IngressClass", network::INGRESS_CLASS),
    ("Job", workload::JOB),
    ("Lease", config::LEASE),
    ("LimitRange", config::LIMITS),
    ("MutatingWebhookConfiguration", policy::WEBHOOKS),
    ("NetworkPolicy", network::POLICY),
    ("Node", config::NODE),
    ("PersistentVolume", storage::VOLUME),
    ("PersistentVolumeClaim", storage::CLAIM),
    ("Pod", pod::POD),
    ("PodDisruptionBudget", policy::BUDGET),
    ("PriorityClass", config::PRIORITY),
    ("ReplicaSet", workload::REPLICA_SET),
    ("ResourceQuota", config::QUOTA),
    ("Role", policy::ROLE),
    ("RoleBinding", policy::ROLE_BINDING),
    ("RuntimeClass", config::RUNTIME),
    ("Secret", config::SECRET),
    ("Service", network::SERVICE),
    ("StatefulSet", workload::STATEFUL_SET),
    ("StorageClass", storage::CLASS),
    ("ValidatingWebhookConfiguration", policy::WEBHOOKS),
];

/// Everything that is wrong with a new or changed object.
pub(super) fn validate(kind: &str, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    for (_, rules) in KINDS.iter().filter(|(name, _)| *name == kind) {
        check(rules, &Node::root(object), &mut errors);
    }
    errors
}

fn labels(value: Option<&Value>, at: &str, errors: &mut Errors) {
    errors.extend(metadata::labels(value, at));
}

#[cfg(test)]
mod tests;
