//! Which resources are served now: the built-in kinds and those that the stored CRDs define.
//!
//! A table is immutable; a change of a CRD makes a new one. A request uses the table that it began with. Of a definition's schemas,
//! which are most of it, a table has the text alone until an object needs one.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use super::definition::is_established;
use super::object;
use super::store::{Held, Text};
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

/// A version with its schema, compiled when the first object needs it: of what an install defines, most is never used.
#[derive(Debug)]
struct Schema {
    /// The entry of `spec.versions`.
    version: Text,
    compiled: OnceLock<Crd>,
}

impl Schema {
    fn crd(&self) -> &Crd {
        self.compiled.get_or_init(|| Crd::compile(&self.version.value()))
    }
}

/// What a CRD says about one of its versions.
#[derive(Debug)]
pub(crate) struct Custom {
    schema: Arc<Schema>,
    /// The schema of the version that objects are stored at.
    stored: Arc<Schema>,
    /// The definition, less schemas.
    definition: Arc<Value>,
    /// Which entry of its `spec.versions` it is.
    index: usize,
    /// The API version that objects are stored at.
    pub(crate) storage_version: String,
}

impl Custom {
    /// The entry of `spec.versions`, less its schema.
    pub(crate) fn version(&self) -> &Value {
        &self.definition["spec"]["versions"][self.index]
    }

    /// The schema of this version.
    pub(crate) fn schema(&self) -> &Crd {
        self.schema.crd()
    }

    /// The schema of the version that objects are stored at.
    pub(crate) fn stored(&self) -> &Crd {
        self.stored.crd()
    }

    /// The `openAPIV3Schema` of this version as it was given, read anew each time.
    pub(crate) fn openapi(&self) -> Value {
        let mut version = self.schema.version.value();
        version
            .pointer_mut("/schema/openAPIV3Schema")
            .map(Value::take)
            .unwrap_or_default()
    }

    /// What is another for another schema.
    pub(crate) fn fingerprint(&self) -> &[u8] {
        self.schema.version.bytes()
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

/// A definition and what it adds.
#[derive(Debug)]
struct Definition {
    /// Less schemas, annotations and managed fields.
    slim: Arc<Value>,
    resources: Vec<Arc<Resource>>,
}

/// Every served resource, in the order of discovery.
#[derive(Debug, Default)]
pub(crate) struct Table {
    resources: Vec<Arc<Resource>>,
    definitions: Vec<Arc<Definition>>,
    /// The revision of the definitions that it was built from.
    pub(crate) revision: Option<u64>,
}

impl Table {
    /// The built-in kinds and what `definitions` add. What has not changed since the table `before` stays as it is there, and so does
    /// a schema that was compiled for it.
    pub(crate) fn build(revision: u64, definitions: &[Held], before: &Self) -> Self {
        let mut resources: Vec<Arc<Resource>> = kinds::builtin()
            .iter()
            .map(|kind| Arc::new(Resource::builtin(kind)))
            .collect();
        let definitions: Vec<Arc<Definition>> = definitions.iter().map(|held| before.definition(held)).collect();
        for definition in &definitions {
            let taken = |r: &Resource| {
                resources.iter().any(|have| {
                    have.kind.group == r.kind.group
                        && have.kind.version == r.kind.version
                        && have.kind.plural == r.kind.plural
                })
            };
            let custom = definition.resources.iter();
            let fresh: Vec<Arc<Resource>> = custom.filter(|r| !taken(r)).cloned().collect();
            resources.extend(fresh);
        }
        Self {
            resources,
            definitions,
            revision: Some(revision),
        }
    }

    /// What is known of a definition, or found out of what is held.
    fn definition(&self, held: &Held) -> Arc<Definition> {
        let (uid, revision) = (object::uid(held.head()), object::resource_version(held.head()));
        let known = self.definitions.iter().find(|known| {
            !uid.is_empty() && object::uid(&known.slim) == uid && object::resource_version(&known.slim) == revision
        });
        known.cloned().unwrap_or_else(|| {
            let whole = held.open();
            let slim = Arc::new(slim(held.head(), &whole));
            Arc::new(Definition {
                resources: custom_resources(&whole, &slim, self)
                    .into_iter()
                    .map(Arc::new)
                    .collect(),
                slim,
            })
        })
    }

    /// The stored definitions, less schemas, annotations and managed fields.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &Value> {
        self.definitions.iter().map(|definition| &*definition.slim)
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

/// A definition less schemas, annotations and managed fields.
fn slim(head: &Value, whole: &Value) -> Value {
    let without = |of: &Value, left_out: &[&str]| -> Map<String, Value> {
        let fields = of.as_object().into_iter().flatten();
        let kept = fields.filter(|(key, _)| !left_out.contains(&key.as_str()));
        kept.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let versions = whole.pointer("/spec/versions").and_then(Value::as_array);
    let versions = versions.into_iter().flatten();
    let mut spec = without(&whole["spec"], &["versions"]);
    spec.insert(
        "versions".into(),
        versions.map(|version| without(version, &["schema"])).collect(),
    );
    let metadata = without(&head["metadata"], &["annotations", "managedFields"]);
    json!({"metadata": metadata, "spec": spec, "status": whole["status"]})
}

fn custom_resources(definition: &Value, slim: &Arc<Value>, before: &Table) -> Vec<Resource> {
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
    let stored = versions.iter().find(|version| version["storage"] == true);
    let stored = stored.copied().unwrap_or(&Value::Null);
    let storage_version = format!("{group}/{}", object::str_at(stored, "/name"));
    let table: Arc<str> = format!("{}.{group}", text("/status/acceptedNames/plural")).into();
    let compile = |version: &Value| {
        let version = Text::new(version);
        let known = before.all().iter().filter(|known| known.table == table);
        let known = known.filter_map(|known| Some(&known.custom.as_ref()?.schema));
        let same = known.into_iter().find(|known| known.version == version).cloned();
        same.unwrap_or_else(|| {
            let compiled = OnceLock::new();
            Arc::new(Schema { version, compiled })
        })
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
                    definition: slim.clone(),
                    index,
                    storage_version: storage_version.clone(),
                }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{Held, Table, version_rank};

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = vec!["v1alpha1", "v10", "v2beta1", "v1", "v2", "v11alpha2", "foo"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v11alpha2", "v1alpha1", "foo"]);
    }

    #[test]
    fn a_definition_adds_the_versions_that_it_serves() {
        let definition = json!({"status": {"acceptedNames": {"plural": "ys", "kind": "Y"},
            "conditions": [{"type": "Established", "status": "True"}]}, "spec": {"group": "x.dev", "scope": "Namespaced",
            "names": {"plural": "ys", "kind": "Y"},
            "versions": [{"name": "v1", "served": true, "storage": true}, {"name": "v2", "served": false}]}});
        let table = Table::build(1, &[Held::Value(definition.into())], &Table::default());
        assert!(table.find("x.dev", "v1", "ys").is_some());
        assert!(table.find("x.dev", "v2", "ys").is_none());
    }

    #[test]
    fn a_definition_that_did_not_change_is_not_read_again_and_one_that_did_keeps_the_versions_that_are_the_same() {
        let definition = |revision: &str, other: &str| {
            let version = |name: &str, kind: &str| {
                json!({"name": name, "served": true, "storage": name == "v1",
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": kind}}}}})
            };
            Held::Value(Arc::new(
                json!({"metadata": {"name": "ys.x.dev", "uid": "u", "resourceVersion": revision},
                "status": {"acceptedNames": {"plural": "ys", "kind": "Y"},
                    "conditions": [{"type": "Established", "status": "True"}]},
                "spec": {"group": "x.dev", "scope": "Namespaced", "names": {"plural": "ys", "kind": "Y"},
                    "versions": [version("v1", "string"), version("v2", other)]}}),
            ))
        };
        let first = Table::build(1, &[definition("1", "string")], &Table::default());
        let again = Table::build(2, &[definition("1", "integer")], &first);
        let changed = Table::build(3, &[definition("2", "integer")], &first);
        let at = |table: &Table, version: &str| table.find("x.dev", version, "ys").unwrap().clone();
        let schema = |table: &Table, version: &str| at(table, version).custom.as_ref().unwrap().schema.clone();
        assert!(Arc::ptr_eq(&at(&first, "v2"), &at(&again, "v2")));
        assert!(Arc::ptr_eq(&schema(&first, "v1"), &schema(&changed, "v1")));
        assert!(!Arc::ptr_eq(&schema(&first, "v2"), &schema(&changed, "v2")));
        let v2 = at(&changed, "v2");
        let custom = v2.custom.as_ref().unwrap();
        assert_eq!(custom.openapi()["properties"]["a"]["type"], "integer");
        assert_eq!(
            *custom.version(),
            json!({"name": "v2", "served": true, "storage": false})
        );
    }
}
