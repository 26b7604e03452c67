//! How the lists and maps of an object merge: by keys, as sets, or whole.
//!
//! One tree of [`Shape`]s a kind, for server-side apply (`x-kubernetes-list-type` and its relatives) and for strategic
//! merge (`x-kubernetes-patch-merge-key`), which do not always agree: a container's ports merge by number and protocol
//! in the one, by number in the other. Those of the built-in kinds are made of the [`facts`]; a custom resource's come from
//! its schema. A list of which nothing is said is atomic, a map is granular.

use std::sync::Arc;

use serde_json::Value;

use super::facts::{self, TypeId};
use super::kinds::{self, Subresource};
use super::members::Members;

mod builtin;

/// How the children of a list or map are owned and merged.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Topology {
    /// Lists whole, maps by field: what holds where nothing is said.
    #[default]
    Unsaid,
    /// As one value.
    Atomic,
    /// A list of distinct scalars.
    Set,
    /// A list of objects told apart by these fields.
    Keys(Vec<Key>),
}

/// A field that tells the items of a list apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The field's name.
    pub name: String,
    /// What an item without the field means.
    pub default: Option<Value>,
}

/// What a strategic merge does with a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PatchStrategy {
    /// The patch's list takes the place of the object's.
    #[default]
    Replace,
    /// Items with the same value of the field are merged.
    MergeBy(String),
    /// A list of scalars: the patch's are added.
    MergeScalars,
}

/// The merge topology at one place of an object, and below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shape {
    pub(super) topology: Topology,
    pub(super) patch: PatchStrategy,
    fields: Fields,
    /// Items of a list, values of a map without fixed fields.
    pub(super) items: Option<Box<Shape>>,
}

/// The fields below a place, as far as something is to be said of them.
#[derive(Debug, Clone, PartialEq)]
enum Fields {
    /// These.
    Own(Members<Shape>),
    /// Those of a built-in type, which may have itself below it.
    Of(TypeId),
}

impl Default for Fields {
    fn default() -> Self {
        Self::Own(Members::default())
    }
}

impl Shape {
    /// The shape of the field `name`; `None` where nothing is known of it.
    pub(super) fn field(&self, name: &str) -> Option<&Shape> {
        let own = match &self.fields {
            Fields::Own(fields) => fields.get(name),
            Fields::Of(id) => builtin::fields(*id).get(name),
        };
        own.or(self.items.as_deref())
    }
}

/// The merge topology of one kind's fields.
#[derive(Debug, Clone)]
pub struct ListTypes {
    root: Arc<Shape>,
    status: bool,
}

impl ListTypes {
    /// The topology of a built-in kind.
    pub fn builtin(kind: &str) -> Self {
        let id = facts::kind(kind, "");
        let known = kinds::builtin().iter().find(|k| k.kind == kind);
        Self {
            root: Arc::new(id.map(builtin::of_type).unwrap_or_default()),
            status: known.is_some_and(|k| k.has(Subresource::Status)),
        }
    }

    /// The topology that a custom resource's `openAPIV3Schema` describes; `status` says whether the version has the
    /// status subresource.
    pub fn from_schema(schema: &Value, status: bool) -> Self {
        // Every kind's metadata are of one type.
        let any_kind = facts::kind("Pod", "v1").map(builtin::of_type);
        let metadata = any_kind.and_then(|pod| Some(("metadata".to_owned(), pod.field("metadata")?.clone())));
        let root = Shape {
            fields: Fields::Own(fields(schema).chain(metadata).collect()),
            ..from_schema(schema)
        };
        Self {
            root: Arc::new(root),
            status,
        }
    }

    /// The shape of the whole object.
    pub(super) fn root(&self) -> &Shape {
        &self.root
    }

    /// Whether `status` is written through a subresource only.
    pub(super) fn has_status(&self) -> bool {
        self.status
    }
}

fn from_schema(schema: &Value) -> Shape {
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    let topology = match (text("x-kubernetes-list-type"), text("x-kubernetes-map-type")) {
        (Some("set"), _) => Topology::Set,
        (Some("map"), _) => Topology::Keys(keys(schema)),
        (Some("atomic"), _) | (_, Some("atomic")) => Topology::Atomic,
        _ => Topology::Unsaid,
    };
    let items = schema
        .get("items")
        .or_else(|| schema.get("additionalProperties"))
        .filter(|inner| inner.is_object())
        .map(|inner| Box::new(from_schema(inner)));
    Shape {
        topology,
        patch: PatchStrategy::Replace,
        fields: Fields::Own(fields(schema).collect()),
        items,
    }
}

fn fields(schema: &Value) -> impl Iterator<Item = (String, Shape)> {
    let all = schema.get("properties").and_then(Value::as_object);
    all.into_iter()
        .flatten()
        .map(|(name, field)| (name.clone(), from_schema(field)))
}

fn keys(schema: &Value) -> Vec<Key> {
    let names = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|name| Key {
            name: name.to_owned(),
            default: schema.pointer(&format!("/items/properties/{name}/default")).cloned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at<'a>(lists: &'a ListTypes, path: &str) -> Option<&'a Shape> {
        path.split('.').try_fold(lists.root(), |shape, name| shape.field(name))
    }

    #[test]
    fn a_deployments_containers_merge_by_name_and_their_ports_by_number_and_protocol() {
        let lists = ListTypes::builtin("Deployment");
        let key = |name: &str, default: Option<Value>| Key {
            name: name.into(),
            default,
        };
        let containers = at(&lists, "spec.template.spec.containers").unwrap();
        assert_eq!(containers.topology, Topology::Keys(vec![key("name", Some(json!("")))]));
        let ports = at(&lists, "spec.template.spec.initContainers.[].ports").unwrap();
        assert_eq!(
            ports.topology,
            Topology::Keys(vec![
                key("containerPort", Some(json!(0))),
                key("protocol", Some(json!("TCP")))
            ])
        );
        assert_eq!(ports.patch, PatchStrategy::MergeBy("containerPort".into()));
        assert_eq!(at(&lists, "spec.selector").unwrap().topology, Topology::Atomic);
        assert_eq!(at(&lists, "metadata.finalizers").unwrap().topology, Topology::Set);
    }

    #[test]
    fn a_custom_resources_topology_comes_from_its_schema() {
        let schema = json!({"properties": {"spec": {"properties": {
            "ports": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"properties": {"port": {"default": 80}}}},
            "tags": {"x-kubernetes-list-type": "set"},
            "ref": {"x-kubernetes-map-type": "atomic"}}}}});
        let lists = ListTypes::from_schema(&schema, true);
        let key = Key {
            name: "port".into(),
            default: Some(json!(80)),
        };
        assert_eq!(at(&lists, "spec.ports").unwrap().topology, Topology::Keys(vec![key]));
        assert_eq!(at(&lists, "spec.tags").unwrap().topology, Topology::Set);
        assert_eq!(at(&lists, "spec.ref").unwrap().topology, Topology::Atomic);
        assert_eq!(
            at(&lists, "metadata.ownerReferences").unwrap().patch,
            PatchStrategy::MergeBy("uid".into())
        );
    }
}
