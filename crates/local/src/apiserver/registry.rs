//! Which resources are served now: the built-in kinds and those that the stored CRDs define.
//!
//! A table is immutable; a change of a CRD makes a new one. A request uses the table that it began with.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::definition::is_established;
use super::object;
use super::store::Object;
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

/// A schema, compiled when the first object needs it: of what an install defines, most is never used.
type Compiled = Arc<OnceLock<Crd>>;

/// What a CRD says about one of its versions.
#[derive(Debug)]
pub(crate) struct Custom {
    schema: Compiled,
    /// The schema of the version that objects are stored at.
    stored: Compiled,
    definition: Object,
    /// Which entry of its `spec.versions` it is.
    index: usize,
    /// Which entry is the one that objects are stored at.
    stored_index: Option<usize>,
    /// The API version that objects are stored at.
    pub(crate) storage_version: String,
}

impl Custom {
    /// The entry of `spec.versions`.
    pub(crate) fn version(&self) -> &Value {
        &self.definition["spec"]["versions"][self.index]
    }

    /// The schema of this version.
    pub(crate) fn schema(&self) -> &Crd {
        self.schema.get_or_init(|| Crd::compile(self.version()))
    }

    /// The schema of the version that objects are stored at.
    pub(crate) fn stored(&self) -> &Crd {
        let version = || {
            self.stored_index
                .map_or(&Value::Null, |index| &self.definition["spec"]["versions"][index])
        };
        self.stored.get_or_init(|| Crd::compile(version()))
    }

    /// What a user of a deprecated version is told.
    pub(crate) fn deprecation(&self, kind: &Kind) -> Option<String> {
        let version = self.version();
        if version.get("deprecated") != Some(&Value::Bool(true)) {
            return None;
        }
        if let Some(own) = version.get("deprecationWarning").and_then(Value::as_str) {
            return Some(own.to_owned());
        }
        let said = format!("{} {} is deprecated", kind.api_version(), kind.kind);
        let versions = self.definition["spec"]["versions"].as_array();
        let fresh = versions
            .into_iter()
            .flatten()
            .filter(|other| other["served"] == true && other["deprecated"] != true);
        let newer = fresh
            .filter_map(|other| other["name"].as_str())
            .filter(|other| version_rank(other) > version_rank(&kind.version))
            .max_by_key(|other| version_rank(other));
        Some(match newer {
            Some(newer) => format!("{said}; use {}/{newer} {}", kind.group, kind.kind),
            None => said,
        })
    }

    pub(crate) fn has_status(&self) -> bool {
        self.version().pointer("/subresources/status").is_some()
    }

    /// Whether its definition is to go, so that nothing new is made.
    pub(crate) fn is_terminating(&self) -> bool {
        object::is_deleting(&self.definition)
    }

    /// The JSON path of the scale subresource's field, such as `.spec.replicas`.
    pub(crate) fn scale_path(&self, field: &str) -> Option<&str> {
        self.version().pointer("/subresources/scale")?.get(field)?.as_str()
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
        match &self.custom {
            Some(custom) => custom.schema().list_types(),
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
    /// The built-in kinds and what `definitions` add. A schema that was compiled for the table `before` stays.
    pub(crate) fn build(revision: u64, definitions: &[Object], before: &Self) -> Self {
        let mut resources: Vec<Arc<Resource>> = kinds::builtin()
            .iter()
            .map(|kind| Arc::new(Resource::builtin(kind)))
            .collect();
        for definition in definitions {
            let custom = custom_resources(definition, before);
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

fn custom_resources(definition: &Object, before: &Table) -> Vec<Resource> {
    if !is_established(&definition["status"]) {
        return Vec::new();
    }
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
    let stored_index = versions.iter().position(|version| version["storage"] == true);
    let stored = stored_index.map_or(&Value::Null, |index| versions[index]);
    let storage_version = format!("{group}/{}", object::str_at(stored, "/name"));
    let table: Arc<str> = format!("{}.{group}", text("/status/acceptedNames/plural")).into();
    let compile = |version: &Value| {
        let compiled = before.all().iter().filter(|known| known.table == table);
        let mut compiled = compiled.filter_map(|known| known.custom.as_ref());
        let same = compiled.find(|known| known.version() == version);
        same.map_or_else(Compiled::default, |known| known.schema.clone())
    };
    let storage = compile(stored);
    versions
        .into_iter()
        .enumerate()
        .filter(|(_, version)| version["served"] == true)
        .map(|(index, version)| {
            let mut subresources = Vec::new();
            if version.pointer("/subresources/status").is_some() {
                subresources.push(Subresource::Status);
            }
            if version.pointer("/subresources/scale").is_some() {
                subresources.push(Subresource::Scale);
            }
            let schema = if version["storage"] == true {
                storage.clone()
            } else {
                compile(version)
            };
            Resource {
                kind: Kind {
                    group: group.clone(),
                    version: object::str_at(version, "/name").to_owned(),
                    plural: text("/status/acceptedNames/plural"),
                    singular: text("/status/acceptedNames/singular"),
                    kind: text("/status/acceptedNames/kind"),
                    short_names: words("/status/acceptedNames/shortNames"),
                    categories: words("/status/acceptedNames/categories"),
                    namespaced: text("/spec/scope") == "Namespaced",
                    subresources,
                    list_kind: match text("/spec/names/listKind") {
                        empty if empty.is_empty() => format!("{}List", text("/status/acceptedNames/kind")),
                        given => given,
                    },
                    // As the API server lists them for custom kinds.
                    verbs: [&Verb::ALL[1..6], &[Verb::Create, Verb::Update, Verb::Watch]].concat(),
                    counts_generations: true,
                    storage_version: storage_version.clone(),
                },
                table: table.clone(),
                custom: Some(Custom {
                    schema,
                    stored: storage.clone(),
                    definition: definition.clone(),
                    index,
                    stored_index,
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
        let definition = serde_json::json!({"status": {"acceptedNames": {"plural": "ys", "kind": "Y"},
            "conditions": [{"type": "Established", "status": "True"}]}, "spec": {"group": "x.dev", "scope": "Namespaced",
            "names": {"plural": "ys", "kind": "Y"},
            "versions": [{"name": "v1", "served": true, "storage": true}, {"name": "v2", "served": false}]}});
        let table = Table::build(1, &[definition.into()], &Table::default());
        assert!(table.find("x.dev", "v1", "ys").is_some());
        assert!(table.find("x.dev", "v2", "ys").is_none());
    }
}
