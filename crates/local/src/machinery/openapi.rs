//! OpenAPI v3 documents, as much as kubectl reads before it sends a patch.

use serde_json::{Value, json};

/// One served kind, as the documents name it.
#[derive(Debug, Clone, Copy)]
pub struct Kind<'a> {
    /// The API group, empty for the core group.
    pub group: &'a str,
    /// The version, such as `v1`.
    pub version: &'a str,
    /// The kind's name, such as `Deployment`.
    pub kind: &'a str,
    /// The plural resource name, such as `deployments`.
    pub plural: &'a str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The `openAPIV3Schema` of a custom resource.
    pub schema: Option<&'a Value>,
}

/// The document of `/openapi/v3`: where the document of each group and version is.
pub fn index(_kinds: &[Kind<'_>]) -> Value {
    json!({"paths": {}})
}

/// The document of one group and version, such as `apis/apps/v1` or `api/v1`.
pub fn document(_group_version: &str, _kinds: &[Kind<'_>]) -> Value {
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.33.0"}, "paths": {}})
}
