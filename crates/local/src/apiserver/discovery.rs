//! What the server says that it serves: groups, versions, resources. Pure.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::registry::{Custom, Resource, Table};
use crate::machinery::kinds::{Kind, Verb};
use crate::machinery::openapi;

/// The media type of aggregated discovery.
pub(crate) const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether a client asks for aggregated discovery.
pub(crate) fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').any(|entry| {
        let parts: Vec<&str> = entry.split(';').map(str::trim).collect();
        ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"]
            .iter()
            .all(|p| parts.contains(p))
    })
}

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": "v1.36.0+leeward",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// `/api`.
pub(crate) fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

fn group_value(name: &str, versions: &[String]) -> Value {
    let listed: Vec<Value> = versions
        .iter()
        .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
        .collect();
    json!({"name": name, "versions": listed, "preferredVersion": listed.first()})
}

/// `/apis`.
pub(crate) fn groups(table: &Table) -> Value {
    let groups: Vec<Value> = table
        .groups()
        .iter()
        .map(|(name, versions)| group_value(name, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(crate) fn group(table: &Table, wanted: &str) -> Option<Value> {
    let groups = table.groups();
    let (name, versions) = groups.iter().find(|(name, _)| name == wanted)?;
    let mut value = group_value(name, versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

fn names(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.name()).collect()
}

/// What discovery says of the version that objects are stored at; equal texts mean equal versions, and that is all.
fn storage_hash(kind: &Kind) -> String {
    use base64::Engine;
    let (group, version) = kind
        .storage_version
        .split_once('/')
        .unwrap_or(("", &kind.storage_version));
    let hash = Sha256::digest(format!("{group}/{version}/{}", kind.kind));
    base64::engine::general_purpose::STANDARD.encode(&hash[..8])
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub(crate) fn resources(table: &Table, group: &str, version: &str) -> Option<Value> {
    let kinds = || {
        let all = table.all().iter().map(|r| &r.kind);
        all.filter(|k| k.group == group && k.version == version)
    };
    let list: Vec<Value> = kinds().flat_map(listed).collect();
    let mut resources = json!({
        "kind": "APIResourceList",
        "groupVersion": kinds().next()?.api_version(),
        "resources": list,
    });
    // The core group's list is older than the rule that objects say their version.
    if !group.is_empty() {
        resources["apiVersion"] = "v1".into();
    }
    Some(resources)
}

/// A kind and its subresources, as a list of resources has them.
fn listed(kind: &Kind) -> Vec<Value> {
    let mut entry = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": names(&kind.verbs),
    });
    say_names(&mut entry, kind);
    if kind.allows(Verb::Watch) {
        entry["storageVersionHash"] = storage_hash(kind).into();
    }
    let subresources = kind.subresources.iter().map(|subresource| {
        let (version, carried) = subresource.carried(kind);
        let mut entry = json!({
            "name": format!("{}/{}", kind.plural, subresource.path()),
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": carried,
            "verbs": names(subresource.verbs()),
        });
        if let Some((group, version)) = version {
            entry["group"] = group.into();
            entry["version"] = version.into();
        }
        entry
    });
    std::iter::once(entry).chain(subresources).collect()
}

fn say_names(entry: &mut Value, kind: &Kind) {
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
}

/// A kind as aggregated discovery has it. Group and version are left empty where they are those that it stands under,
/// but not for custom resources.
fn aggregated_resource(resource: &Resource) -> Value {
    let kind = &resource.kind;
    let (group, version) = match resource.custom {
        Some(_) => (kind.group.as_str(), kind.version.as_str()),
        None => ("", ""),
    };
    let mut entry = json!({
        "resource": kind.plural,
        "responseKind": {"group": group, "version": version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": names(&kind.verbs),
    });
    say_names(&mut entry, kind);
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let (other, kind) = subresource.carried(kind);
            let (group, version) = other.unwrap_or((group, version));
            json!({
                "subresource": subresource.path(),
                "responseKind": {"group": group, "version": version, "kind": kind},
                "verbs": names(subresource.verbs()),
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

/// `/api` (`core`) or `/apis` as one document with everything.
pub(crate) fn aggregated(table: &Table, core: bool) -> Value {
    let groups = if core {
        vec![(String::new(), vec!["v1".to_owned()])]
    } else {
        table.groups()
    };
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let of_version = |r: &Resource| r.kind.group == *group && r.kind.version == *version;
                    let resources: Vec<Value> = table
                        .all()
                        .iter()
                        .filter(|r| of_version(r))
                        .map(|r| aggregated_resource(r))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn openapi_kind(resource: &Resource, schema: Option<Value>) -> openapi::Kind<'_> {
    let kind = &resource.kind;
    openapi::Kind {
        group: &kind.group,
        version: &kind.version,
        kind: &kind.kind,
        plural: &kind.plural,
        namespaced: kind.namespaced,
        fingerprint: resource.custom.as_ref().map_or(&[], Custom::fingerprint),
        schema,
    }
}

/// `/openapi/v3`.
pub(crate) fn openapi_index(table: &Table) -> Value {
    let kinds: Vec<_> = table.all().iter().map(|r| openapi_kind(r, None)).collect();
    openapi::index(&kinds)
}

/// `/openapi/v3/GROUP_VERSION`.
pub(crate) fn openapi_document(table: &Table, group_version: &str) -> Option<Value> {
    let described = table.all().iter().filter(|r| {
        let root = if r.kind.group.is_empty() { "api" } else { "apis" };
        group_version == format!("{root}/{}", r.kind.api_version())
    });
    let kinds: Vec<_> = described
        .map(|r| openapi_kind(r, r.custom.as_ref().map(Custom::openapi)))
        .collect();
    (!kinds.is_empty()).then(|| openapi::document(group_version, &kinds))
}
