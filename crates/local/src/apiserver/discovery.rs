//! What the server says that it serves: groups, versions, resources. Pure.

use serde_json::{Value, json};

use super::registry::{Resource, Table};
use crate::machinery::kinds::{Kind, Subresource};
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

fn verbs(kind: &Kind) -> Value {
    if kind.stored {
        json!([
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch"
        ])
    } else {
        json!(["create"])
    }
}

fn subresource_verbs(subresource: Subresource) -> Value {
    match subresource {
        Subresource::Status | Subresource::Scale => json!(["get", "patch", "update"]),
        Subresource::Log => json!(["get"]),
        Subresource::Finalize => json!(["update"]),
        Subresource::Eviction | Subresource::Binding => json!(["create"]),
    }
}

/// Group, version and kind of what a subresource carries.
fn subresource_kind(kind: &Kind, subresource: Subresource) -> (String, String, String) {
    let fixed = |g: &str, v: &str, k: &str| (g.into(), v.into(), k.into());
    match subresource {
        Subresource::Scale => fixed("autoscaling", "v1", "Scale"),
        Subresource::Eviction => fixed("policy", "v1", "Eviction"),
        Subresource::Binding => fixed("", "v1", "Binding"),
        Subresource::Status | Subresource::Log | Subresource::Finalize => {
            (kind.group.clone(), kind.version.clone(), kind.kind.clone())
        }
    }
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub(crate) fn resources(table: &Table, group: &str, version: &str) -> Option<Value> {
    let of_version: Vec<&Kind> = table
        .all()
        .iter()
        .map(|r| &r.kind)
        .filter(|k| k.group == group && k.version == version)
        .collect();
    let first = of_version.first()?;
    let mut list = Vec::new();
    for kind in &of_version {
        let mut entry = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": verbs(kind),
        });
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        list.push(entry);
        for subresource in &kind.subresources {
            let (g, v, k) = subresource_kind(kind, *subresource);
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, subresource.path()),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": k,
                "verbs": subresource_verbs(*subresource),
            });
            if (g.as_str(), v.as_str()) != (kind.group.as_str(), kind.version.as_str()) {
                entry["group"] = g.into();
                entry["version"] = v.into();
            }
            list.push(entry);
        }
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": list,
    }))
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = &resource.kind;
    let mut entry = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let (group, version, kind) = subresource_kind(kind, *subresource);
            json!({
                "subresource": subresource.path(),
                "responseKind": {"group": group, "version": version, "kind": kind},
                "verbs": subresource_verbs(*subresource),
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
            let metadata = if core {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn openapi_kinds(table: &Table) -> Vec<openapi::Kind<'_>> {
    let kinds = table.all().iter();
    kinds
        .map(|r| openapi::Kind {
            group: &r.kind.group,
            version: &r.kind.version,
            kind: &r.kind.kind,
            plural: &r.kind.plural,
            namespaced: r.kind.namespaced,
            schema: r
                .custom
                .as_ref()
                .and_then(|c| c.version.pointer("/schema/openAPIV3Schema")),
        })
        .collect()
}

/// `/openapi/v3`.
pub(crate) fn openapi_index(table: &Table) -> Value {
    openapi::index(&openapi_kinds(table))
}

/// `/openapi/v3/GROUP_VERSION`.
pub(crate) fn openapi_document(table: &Table, group_version: &str) -> Option<Value> {
    let known = table.all().iter().any(|r| {
        let root = if r.kind.group.is_empty() { "api" } else { "apis" };
        group_version == format!("{root}/{}", r.kind.api_version())
    });
    known.then(|| openapi::document(group_version, &openapi_kinds(table)))
}
