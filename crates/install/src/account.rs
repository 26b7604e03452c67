//! Where an installation is, and who it is there: the namespace, the account of the agents, and their rights.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use leeward_api::access::{RULES, Rule};
use leeward_api::install::NAME;
use serde_json::{Value, to_value};

use crate::{InstallError, Values, meta};

/// What the API server is told of a namespace's pods: which rules they keep, and which version of the rules.
const POD_SECURITY: &[(&str, &str)] = &[
    ("pod-security.kubernetes.io/enforce", "restricted"),
    ("pod-security.kubernetes.io/audit", "restricted"),
    ("pod-security.kubernetes.io/warn", "restricted"),
];

/// The namespace. Not in the chart: Helm keeps its own record in it, so it is there before.
pub(crate) fn namespace(values: &Values) -> Result<Value, InstallError> {
    let mut metadata = meta::of_cluster(&values.namespace);
    let labels = POD_SECURITY.iter().map(|(key, value)| ((*key).into(), (*value).into()));
    metadata.labels.get_or_insert_default().extend(labels);
    Ok(to_value(Namespace {
        metadata,
        ..Namespace::default()
    })?)
}

/// The account and its rights. A right is in `leeward_api::access`, with what needs it; there is none besides, also not in the agents' own
/// namespace: what they keep is on their disks and in the quorum.
pub(crate) fn objects(values: &Values) -> Result<Vec<Value>, InstallError> {
    let account = ServiceAccount {
        metadata: meta::of_namespace(values, NAME),
        // The agents' pods ask for it; no other pod gets it.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let role = ClusterRole {
        metadata: meta::of_cluster(NAME),
        rules: Some(RULES.iter().map(rule).collect()),
        ..ClusterRole::default()
    };
    let binding = ClusterRoleBinding {
        metadata: meta::of_cluster(NAME),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "ClusterRole".into(),
            name: NAME.into(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: NAME.into(),
            namespace: Some(values.namespace.clone()),
            ..Subject::default()
        }]),
    };
    Ok(vec![to_value(account)?, to_value(role)?, to_value(binding)?])
}

fn rule(rule: &Rule) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![rule.group.to_owned()]),
        resources: Some(owned(rule.resources)),
        verbs: owned(rule.verbs),
        ..PolicyRule::default()
    }
}
