//! OpenAPI v3 documents, as much as kubectl reads before it sends a request.
//!
//! `kubectl apply` looks for the PATCH operation of the kind and its query parameters, to know whether the server
//! validates fields. The operations do not name strategic merge as a body: kubectl then builds such patches from the
//! merge keys that it was compiled with.

use serde_json::{Map, Value, json};

use super::kinds;

mod builtin;
mod described;

/// One served kind, as the documents name it.
#[derive(Debug, Clone)]
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
    /// What changes with a custom resource's schema.
    pub fingerprint: &'a [u8],
    /// The `openAPIV3Schema` of a custom resource, for its document; the index does without.
    pub schema: Option<Value>,
}

impl<'a> From<&'a kinds::Kind> for Kind<'a> {
    fn from(kind: &'a kinds::Kind) -> Self {
        Self {
            group: &kind.group,
            version: &kind.version,
            kind: &kind.kind,
            plural: &kind.plural,
            namespaced: kind.namespaced,
            fingerprint: &[],
            schema: None,
        }
    }
}

impl Kind<'_> {
    /// The path of the document that describes it, such as `apis/apps/v1`.
    fn group_version(&self) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        format!("{root}/{}", self.api_version())
    }

    fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    fn identity(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }

    /// The name of its schema, such as `dev.leeward.v1alpha1.Cluster`.
    fn schema_name(&self) -> String {
        let group: Vec<&str> = self.group.rsplit('.').collect();
        format!("{}.{}.{}", group.join("."), self.version, self.kind)
    }
}

/// The document of `/openapi/v3`: where the document of each group and version is. The addresses change with the
/// documents, so that clients may keep what they read.
pub fn index(kinds: &[Kind<'_>]) -> Value {
    let mut paths = Map::new();
    for kind in kinds {
        let group_version = kind.group_version();
        if paths.contains_key(&group_version) {
            continue;
        }
        let mut hash = blake3::Hasher::new();
        // Built-in schemas change with the program only.
        hash.update(env!("CARGO_PKG_VERSION").as_bytes());
        for kind in kinds.iter().filter(|kind| kind.group_version() == group_version) {
            hash.update(format!("{} {} {}", kind.identity(), kind.plural, kind.namespaced).as_bytes());
            hash.update(kind.fingerprint);
        }
        let hash = hash.finalize().to_hex();
        let url = format!("/openapi/v3/{group_version}?hash={hash}");
        paths.insert(group_version, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// The document of one group and version, such as `apis/apps/v1` or `api/v1`; other groups' kinds are passed over.
pub fn document(group_version: &str, kinds: &[Kind<'_>]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let of_version: Vec<&Kind<'_>> = kinds
        .iter()
        .filter(|kind| kind.group_version() == group_version)
        .collect();
    for kind in &of_version {
        let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{group_version}{scope}/{}", kind.plural);
        paths.insert(format!("{collection}/{{name}}"), named(kind));
        paths.insert(
            collection,
            json!({"post": operation(kind, "post", &["dryRun", "fieldManager", "fieldValidation"])}),
        );
        if let Some(mut schema) = kind.schema.clone() {
            schema["x-kubernetes-group-version-kind"] = json!([kind.identity()]);
            schemas.insert(kind.schema_name(), schema);
        }
    }
    let builtin: Vec<(&str, String)> = of_version
        .iter()
        .filter(|kind| kind.schema.is_none())
        .map(|kind| (kind.kind, kind.api_version()))
        .collect();
    let builtin: Vec<(&str, &str)> = builtin
        .iter()
        .map(|(kind, version)| (*kind, version.as_str()))
        .collect();
    schemas.extend(builtin::schemas(&builtin));
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn named(kind: &Kind<'_>) -> Value {
    let written = ["dryRun", "fieldManager", "fieldValidation"];
    json!({
        "get": operation(kind, "get", &[]),
        "put": operation(kind, "put", &written),
        "patch": operation(kind, "patch", &["dryRun", "fieldManager", "fieldValidation", "force"]),
        "delete": operation(kind, "delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
    })
}

fn operation(kind: &Kind<'_>, action: &str, parameters: &[&str]) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| {
            let kind = match *name {
                "force" => "boolean",
                "gracePeriodSeconds" => "integer",
                _ => "string",
            };
            json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
        })
        .collect();
    json!({
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind.identity(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_leads_to_documents_whose_patch_operations_carry_what_kubectl_looks_for() {
        let kinds: Vec<Kind<'_>> = kinds::builtin().iter().map(Kind::from).collect();
        let index = index(&kinds);
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
        let document = document("apis/apps/v1", &kinds);
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        let gvk = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
        assert_eq!(patch["x-kubernetes-group-version-kind"], gvk);
        let names: Vec<&str> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        assert!(
            document["paths"]
                .get("/apis/apps/v1/namespaces/{namespace}/pods/{name}")
                .is_none()
        );
    }

    #[test]
    fn a_custom_resources_schema_is_in_its_document_and_changes_the_address() {
        let mut kind = Kind {
            group: "leeward.dev",
            version: "v1alpha1",
            kind: "Cluster",
            plural: "clusters",
            namespaced: false,
            fingerprint: b"one",
            schema: Some(json!({"type": "object", "properties": {"spec": {"type": "object"}}})),
        };
        let before = index(std::slice::from_ref(&kind));
        kind.fingerprint = b"other";
        assert_ne!(index(std::slice::from_ref(&kind)), before);
        let document = document("apis/leeward.dev/v1alpha1", &[kind]);
        assert_eq!(
            document["components"]["schemas"]["dev.leeward.v1alpha1.Cluster"]["properties"]["spec"]["type"],
            "object"
        );
        assert!(
            document["paths"]
                .get("/apis/leeward.dev/v1alpha1/clusters/{name}")
                .is_some()
        );
    }
}
