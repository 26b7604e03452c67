//! Which resources are served now: the built-in kinds and those that the stored CRDs define.
//!
//! A table is immutable; a change of a CRD makes a new one. A request uses the table that it began with.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::object;
use crate::machinery::kinds::{self, Kind, Subresource, Verb};
use crate::machinery::list_types::ListTypes;
use crate::machinery::schema::Crd;

/// One served version of a resource.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    /// The store's table. Two versions, and both groups of events, share one.
    pub(crate) table: Arc<str>,
    /// For a kind that a CRD defines.
    pub(crate) custom: Option<Custom>,
}

/// What a CRD says about one of its versions.
#[derive(Debug)]
pub(crate) struct Custom {
    /// `None` when the schema does not compile: then its objects are only stored.
    pub(crate) schema: Option<Crd>,
    /// The entry of `spec.versions`.
    pub(crate) version: Value,
    /// The API version that objects are stored at.
    pub(crate) storage_version: String,
}

impl Custom {
    /// The JSON path of the scale subresource's field, such as `.spec.replicas`.
    pub(crate) fn scale_path(&self, field: &str) -> Option<&str> {
        self.version.pointer("/subresources/scale")?.get(field)?.as_str()
    }
}

impl Resource {
    fn builtin(kind: &Kind) -> Self {
        let table = match kind.storage_version.split_once('/') {
            Some((group, _)) => format!("{}.{group}", kind.plural),
            None => kind.plural.clone(),
        };
        Self {
            kind: kind.clone(),
            table: table.into(),
            custom: None,
        }
    }

    /// How the fields of objects merge.
    pub(crate) fn list_types(&self) -> ListTypes {
        match self.custom.as_ref().and_then(|c| c.schema.as_ref()) {
            Some(schema) => schema.list_types(),
            None => ListTypes::builtin(&self.kind.kind),
        }
    }

    /// Whether the server counts generations of the kind.
    pub(crate) fn counts_generations(&self) -> bool {
        self.kind.counts_generations
    }
}

/// Every served resource, in the order of discovery.
#[derive(Debug, Default)]
pub(crate) struct Table {
    resources: Vec<Arc<Resource>>,
    /// The revision of the definitions that it was built from.
    pub(crate) revision: Option<u64>,
}

impl Table {
    /// The built-in kinds and what `definitions` add.
    pub(crate) fn build<'a>(revision: u64, definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut resources: Vec<Arc<Resource>> = kinds::builtin()
            .iter()
            .map(|kind| Arc::new(Resource::builtin(kind)))
            .collect();
        for definition in definitions {
            let custom = custom_resources(definition);
            let taken = |r: &Resource| {
                resources.iter().any(|have| {
                    have.kind.group == r.kind.group
                        && have.kind.version == r.kind.version
                        && have.kind.plural == r.kind.plural
                })
            };
            let fresh: Vec<Arc<Resource>> = custom.into_iter().filter(|r| !taken(r)).map(Arc::new).collect();
            resources.extend(fresh);
        }
        Self {
            resources,
            revision: Some(revision),
        }
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources
            .iter()
            .find(|r| r.kind.group == group && r.kind.version == version && r.kind.plural == plural)
    }

    /// A resource whose objects are in the store's table.
    pub(crate) fn by_table(&self, table: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|r| *r.table == *table && r.kind.is_stored())
    }

    /// Whether the group has any resource.
    pub(crate) fn serves(&self, group: &str) -> bool {
        self.resources.iter().any(|r| r.kind.group == group)
    }

    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The groups but the core one, each with its versions, in the order of discovery.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut order: Vec<String> = Vec::new();
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for kind in self.resources.iter().map(|r| &r.kind).filter(|k| !k.group.is_empty()) {
            if !order.contains(&kind.group) {
                order.push(kind.group.clone());
            }
            let of_group = versions.entry(kind.group.clone()).or_default();
            if !of_group.contains(&kind.version) {
                of_group.push(kind.version.clone());
            }
        }
        order
            .into_iter()
            .map(|group| {
                let mut of_group = versions.remove(&group).unwrap_or_default();
                of_group.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
                (group, of_group)
            })
            .collect()
    }
}

/// Orders versions as Kubernetes does: stable ones above beta above alpha, each by number.
fn version_rank(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let major = rest[..digits].parse().unwrap_or(0);
    let tail = &rest[digits..];
    if tail.is_empty() {
        return (3, major, 0);
    }
    for (word, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some(minor) = tail.strip_prefix(word) {
            return (rank, major, minor.parse().unwrap_or(0));
        }
    }
    (0, 0, 0)
}

fn custom_resources(definition: &Value) -> Vec<Resource> {
    let text = |path: &str| {
        definition
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let words = |path: &str| -> Vec<String> {
        let list = definition.pointer(path).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let group = text("/spec/group");
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    let versions: Vec<&Value> = versions.into_iter().flatten().collect();
    let stored = versions.iter().find(|v| v.get("storage") == Some(&Value::Bool(true)));
    let storage_version = format!(
        "{group}/{}",
        object::str_at(stored.copied().unwrap_or(&Value::Null), "/name")
    );
    let table: Arc<str> = format!("{}.{group}", text("/spec/names/plural")).into();
    versions
        .into_iter()
        .filter(|v| v.get("served") == Some(&Value::Bool(true)))
        .map(|version| {
            let mut subresources = Vec::new();
            if version.pointer("/subresources/status").is_some() {
                subresources.push(Subresource::Status);
            }
            if version.pointer("/subresources/scale").is_some() {
                subresources.push(Subresource::Scale);
            }
            let schema = Crd::compile(version)
                .inspect_err(|error| tracing::warn!(%error, %table, "the schema does not compile; it is not applied"))
                .ok();
            Resource {
                kind: Kind {
                    group: group.clone(),
                    version: object::str_at(version, "/name").to_owned(),
                    plural: text("/spec/names/plural"),
                    singular: text("/spec/names/singular"),
                    kind: text("/spec/names/kind"),
                    short_names: words("/spec/names/shortNames"),
                    categories: words("/spec/names/categories"),
                    namespaced: text("/spec/scope") == "Namespaced",
                    subresources,
                    list_kind: match text("/spec/names/listKind") {
                        empty if empty.is_empty() => format!("{}List", text("/spec/names/kind")),
                        given => given,
                    },
                    verbs: Verb::ALL.to_vec(),
                    counts_generations: true,
                    storage_version: storage_version.clone(),
                },
                table: table.clone(),
                custom: Some(Custom {
                    schema,
                    version: version.clone(),
                    storage_version: storage_version.clone(),
                }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Table, version_rank};

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = vec!["v1alpha1", "v10", "v2beta1", "v1", "v2", "v11alpha2", "foo"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v11alpha2", "v1alpha1", "foo"]);
    }

    #[test]
    fn a_definition_adds_the_versions_that_it_serves() {
        let definition = serde_json::json!({"spec": {"group": "x.dev", "scope": "Namespaced",
            "names": {"plural": "ys", "kind": "Y"},
            "versions": [{"name": "v1", "served": true, "storage": true}, {"name": "v2", "served": false}]}});
        let table = Table::build(1, [&definition].into_iter());
        assert!(table.find("x.dev", "v1", "ys").is_some());
        assert!(table.find("x.dev", "v2", "ys").is_none());
    }
}
