//! Resource kinds, conditions, reasons and wire types of Leeward: data only.
//!
//! The group is `leeward.dev`, the version `v1alpha1`. A field or a value of an enum is here only together with the code
//! that acts on it. Nothing here performs IO; the types derive their schema, so that the custom resource definitions and
//! the reference page are generated from them.

// The schema derive makes a private copy of each type; the attribute derive's equal column types look like slips.
#![allow(unreachable_pub, clippy::duplicated_attributes)]

pub mod access;
pub mod app;
pub mod cluster;
pub mod condition;
pub mod gate;
pub mod install;
pub mod metrics;
pub mod operation;

pub use app::{ProtectedApp, ProtectedAppSpec, ProtectedAppStatus};
pub use cluster::{Cluster, ClusterSpec, ClusterStatus};
pub use kube_core::Duration;
pub use operation::{Operation, OperationSpec, OperationStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube_core::CustomResourceExt as _;

/// The API group of every kind.
pub const GROUP: &str = "leeward.dev";

/// How a duration is written: Go's `time.ParseDuration` without a sign, and no longer than what every reader can hold.
const DURATION_PATTERN: &str = r"^([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|µs|ms|s|m|h)){1,7}$";

/// The field manager of everything that Leeward applies.
pub const FIELD_MANAGER: &str = "leeward";

/// The label of an object that was carried to a standby; its value is [`carried_label`].
pub const APP_LABEL: &str = "leeward.dev/app";

/// The annotation that keeps the number of replicas which a workload has where it is active.
pub const REPLICAS_ANNOTATION: &str = "leeward.dev/replicas";

/// The annotation of an autoscaler whose bounds Leeward has set for a while: what they were, and when a raised minimum ends.
pub const AUTOSCALER_ANNOTATION: &str = "leeward.dev/autoscaler";

/// The annotation of a carried object: the cluster that it came from.
pub const CARRIED_FROM_ANNOTATION: &str = "leeward.dev/carried-from";

/// The value of [`APP_LABEL`] for an application: `NAMESPACE.NAME`, since `/` is not allowed in a label's value.
pub fn carried_label(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

/// The name of the per-cluster ConfigMap that tells an application's pods where they run and at which epoch (keys
/// `cluster` and `epoch`; with several roles also `epoch.ROLE`).
pub fn writer_config_map(app: &str) -> String {
    format!("leeward-{app}")
}

/// The name of the per-cluster Secret that the gate of an application's writer is given: `agent`, the `HOST:PORT` where it asks; `ca.crt`;
/// `token`.
pub fn gate_secret(app: &str) -> String {
    format!("leeward-{app}-gate")
}

/// The definitions of all kinds, in the order in which they are applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![Cluster::crd(), ProtectedApp::crd(), Operation::crd()];
    for version in definitions.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|all| all.open_api_v3_schema.as_mut()) {
            forget_unsigned(schema);
        }
    }
    definitions
}

/// Takes out what an API server does not know, and warns whoever applies it of: formats without a sign. Their limits are said besides.
fn forget_unsigned(schema: &mut JSONSchemaProps) {
    if schema.format.as_ref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    schema
        .properties
        .iter_mut()
        .flat_map(|all| all.values_mut())
        .for_each(forget_unsigned);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => forget_unsigned(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(forget_unsigned),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        forget_unsigned(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_knows_every_format() {
        for crd in crds() {
            let text = format!("{crd:?}");
            assert!(
                text.contains("int64") && !text.contains("uint"),
                "{}",
                crd.spec.names.kind
            );
        }
    }

    #[test]
    fn every_kind_has_a_status_and_columns() {
        for crd in crds() {
            let version = &crd.spec.versions[0];
            assert_eq!(crd.spec.group, GROUP);
            assert!(
                version.subresources.as_ref().is_some_and(|s| s.status.is_some()),
                "{}",
                crd.spec.names.kind
            );
            assert!(
                version.additional_printer_columns.as_ref().is_some_and(|c| c.len() > 2),
                "{}",
                crd.spec.names.kind
            );
        }
    }
}
