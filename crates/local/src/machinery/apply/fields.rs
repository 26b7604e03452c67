//! Sets of field paths in the form that managedFields keeps them in (FieldsV1).
//!
//! A set is a tree whose edges are FieldsV1 keys: `f:NAME` a field, `k:{...}` an item of a keyed list, `v:VALUE` an
//! item of a set. A node is a member of the set when it is `owned`; a node that is not owned only leads to members.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::machinery::list_types::{Key, Shape, Topology};

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) owned: bool,
    pub(super) children: BTreeMap<String, Fields>,
}

impl Fields {
    /// The set with only the root's path in it.
    pub(super) fn leaf() -> Self {
        Self {
            owned: true,
            children: BTreeMap::new(),
        }
    }

    /// Reads FieldsV1.
    pub(super) fn parse(value: &Value) -> Self {
        let mut set = Self::default();
        let Some(map) = value.as_object() else { return set };
        for (key, child) in map {
            if key == "." {
                set.owned = true;
                continue;
            }
            let mut parsed = Self::parse(child);
            if child.as_object().is_some_and(Map::is_empty) {
                parsed.owned = true;
            }
            set.children.insert(canonical(key), parsed);
        }
        set
    }

    /// Writes FieldsV1.
    pub(super) fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.owned && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (key, child) in &self.children {
            map.insert(key.clone(), child.to_value());
        }
        Value::Object(map)
    }

    /// Whether no path is in the set.
    pub(super) fn is_empty(&self) -> bool {
        !self.owned && self.children.is_empty()
    }

    /// The paths of either.
    pub(super) fn union(mut self, other: &Self) -> Self {
        self.owned |= other.owned;
        for (key, child) in &other.children {
            let mine = self.children.remove(key).unwrap_or_default();
            self.children.insert(key.clone(), mine.union(child));
        }
        self
    }

    /// The paths of `self` that `other` lacks.
    pub(super) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine && !theirs, true)
    }

    /// The paths of both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine && theirs, false)
    }

    fn combine(&self, other: &Self, owned: fn(bool, bool) -> bool, keep_alone: bool) -> Self {
        let children = self.children.iter().filter_map(|(key, child)| {
            let combined = match other.children.get(key) {
                Some(theirs) => child.combine(theirs, owned, keep_alone),
                None if keep_alone => child.clone(),
                None => return None,
            };
            (!combined.is_empty()).then(|| (key.clone(), combined))
        });
        Self {
            children: children.collect(),
            owned: owned(self.owned, other.owned),
        }
    }

    /// Drops the path and everything below it.
    pub(super) fn remove(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => drop(self.children.remove(*last)),
            [first, rest @ ..] => {
                if let Some(child) = self.children.get_mut(*first) {
                    child.remove(rest);
                    if child.is_empty() {
                        self.children.remove(*first);
                    }
                }
            }
        }
    }

    /// Every member as people write it, such as `.spec.containers[name="a"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(String::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: String, paths: &mut Vec<String>) {
        for (key, child) in &self.children {
            child.collect_paths(format!("{prefix}{}", shown(key)), paths);
        }
        if self.owned {
            paths.push(prefix);
        }
    }
}

/// The FieldsV1 key of a field.
pub(super) fn field_key(name: &str) -> String {
    format!("f:{name}")
}

/// A key in the one spelling that comparison relies on: the members of `k:{...}` sorted.
fn canonical(key: &str) -> String {
    let Some(body) = key.strip_prefix("k:") else {
        return key.to_owned();
    };
    match serde_json::from_str::<BTreeMap<String, Value>>(body) {
        Ok(map) => encode("k:", &map),
        Err(_) => key.to_owned(),
    }
}

fn encode(prefix: &str, value: &impl serde::Serialize) -> String {
    format!("{prefix}{}", serde_json::to_string(value).unwrap_or_default())
}

/// A FieldsV1 key as people write it.
pub(super) fn shown(key: &str) -> String {
    let Some((kind, body)) = key.split_once(':') else {
        return key.to_owned();
    };
    match kind {
        "k" => {
            let map: BTreeMap<String, Value> = serde_json::from_str(body).unwrap_or_default();
            let parts: Vec<String> = map.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", parts.join(","))
        }
        "v" => format!("[={body}]"),
        "i" => format!("[{body}]"),
        _ => format!(".{body}"),
    }
}

/// What a value's children are, under the topology of its place.
pub(super) enum Children<'a> {
    /// None: the value is owned and compared whole.
    Atomic,
    /// The fields of a map.
    Fields(&'a Map<String, Value>),
    /// The items of a list by their FieldsV1 keys, in the list's order.
    Items(Vec<(String, &'a Value)>),
}

/// The children of `value` at a place of the given shape. A list whose items lack their keys is atomic.
pub(super) fn children<'a>(value: &'a Value, shape: Option<&Shape>) -> Children<'a> {
    let topology = shape.map_or(&Topology::Unsaid, |shape| &shape.topology);
    match (value, topology) {
        (_, Topology::Atomic) => Children::Atomic,
        (Value::Object(map), _) => Children::Fields(map),
        (Value::Array(items), Topology::Set) => keyed(
            items
                .iter()
                .map(|item| item_is_scalar(item).then(|| (set_key(item), item))),
        ),
        (Value::Array(items), Topology::Keys(keys)) => {
            keyed(items.iter().map(|item| Some((item_key(item, keys)?, item))))
        }
        _ => Children::Atomic,
    }
}

/// The keyed items, or `Atomic` where one has no key. Keys may repeat: an update may do that, an apply may not.
fn keyed<'a>(items: impl Iterator<Item = Option<(String, &'a Value)>>) -> Children<'a> {
    items
        .collect::<Option<Vec<_>>>()
        .map_or(Children::Atomic, Children::Items)
}

/// The FieldsV1 key of an item of a set.
pub(super) fn set_key(item: &Value) -> String {
    encode("v:", item)
}

pub(super) fn item_is_scalar(item: &Value) -> bool {
    !item.is_object() && !item.is_array()
}

/// The FieldsV1 key of an item of a list with keys; `None` where it has none of them.
pub(super) fn item_key(item: &Value, keys: &[Key]) -> Option<String> {
    let map = item.as_object()?;
    let mut found = BTreeMap::new();
    for key in keys {
        let value = map
            .get(&key.name)
            .filter(|value| !value.is_null())
            .or(key.default.as_ref());
        if let Some(value) = value {
            found.insert(key.name.clone(), value.clone());
        }
    }
    (!found.is_empty()).then(|| encode("k:", &found))
}

/// The paths that a configuration sets: leaves, empty maps, items of lists.
pub(super) fn of_config(value: &Value, shape: Option<&Shape>) -> Fields {
    match children(value, shape) {
        Children::Atomic => Fields::leaf(),
        Children::Fields(map) if map.is_empty() => Fields::leaf(),
        Children::Fields(map) => Fields {
            owned: false,
            children: map
                .iter()
                .map(|(name, child)| (field_key(name), of_config(child, shape.and_then(|s| s.field(name)))))
                .filter(|(_, child)| !child.is_empty())
                .collect(),
        },
        Children::Items(items) => Fields {
            owned: false,
            children: items
                .into_iter()
                .map(|(key, item)| {
                    let inner = shape.and_then(|s| s.items.as_deref());
                    let mut child = if item_is_scalar(item) {
                        Fields::leaf()
                    } else {
                        of_config(item, inner)
                    };
                    child.owned = true;
                    (key, child)
                })
                .collect(),
        },
    }
}

/// What became different between two objects.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Paths that are new or have another value.
    pub(super) changed: Fields,
    /// Paths that are gone.
    pub(super) removed: Fields,
}

/// Compares the value of one place before and after.
pub(super) fn compare(before: Option<&Value>, after: Option<&Value>, shape: Option<&Shape>) -> Comparison {
    match (before, after) {
        (None, None) => Comparison::default(),
        (None, Some(after)) => Comparison {
            changed: every_path(after, shape),
            removed: Fields::default(),
        },
        (Some(before), None) => Comparison {
            changed: Fields::default(),
            removed: every_path(before, shape),
        },
        (Some(before), Some(after)) if before == after => Comparison::default(),
        (Some(Value::Null), Some(after)) => compare_present(&empty_like(after), after, shape),
        (Some(before), Some(Value::Null)) => compare_present(before, &empty_like(before), shape),
        (Some(before), Some(after)) => compare_present(before, after, shape),
    }
}

/// What null is beside a list or a map.
fn empty_like(value: &Value) -> Value {
    match value {
        Value::Array(_) => Value::Array(Vec::new()),
        Value::Object(_) => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// One child's key, value before, value after, and shape.
type Pair<'a> = (String, Option<&'a Value>, Option<&'a Value>, Option<&'a Shape>);

fn compare_present(before: &Value, after: &Value, shape: Option<&Shape>) -> Comparison {
    let pairs: Vec<Pair<'_>> = match (children(before, shape), children(after, shape)) {
        (Children::Fields(old), Children::Fields(new)) => {
            let gone = old.keys().filter(|name| !new.contains_key(*name));
            new.keys()
                .chain(gone)
                .map(|name| {
                    (
                        field_key(name),
                        old.get(name),
                        new.get(name),
                        shape.and_then(|s| s.field(name)),
                    )
                })
                .collect()
        }
        (Children::Items(old), Children::Items(new)) => {
            let old: BTreeMap<String, &Value> = old.into_iter().collect();
            let new: BTreeMap<String, &Value> = new.into_iter().collect();
            let gone = old.keys().filter(|key| !new.contains_key(*key));
            let inner = shape.and_then(|s| s.items.as_deref());
            new.keys()
                .chain(gone)
                .map(|key| (key.clone(), old.get(key).copied(), new.get(key).copied(), inner))
                .collect()
        }
        _ => {
            let mut changed = every_path(after, shape);
            changed.owned = true;
            let removed = every_path(before, shape).difference(&changed);
            return Comparison { changed, removed };
        }
    };
    let mut result = Comparison::default();
    for (key, old, new, shape) in pairs {
        let child = compare(old, new, shape);
        if !child.changed.is_empty() {
            result.changed.children.insert(key.clone(), child.changed);
        }
        if !child.removed.is_empty() {
            result.removed.children.insert(key, child.removed);
        }
    }
    result
}

/// Every path of a value, maps and lists included.
fn every_path(value: &Value, shape: Option<&Shape>) -> Fields {
    let children = match children(value, shape) {
        Children::Atomic => BTreeMap::new(),
        Children::Fields(map) => map
            .iter()
            .map(|(name, child)| (field_key(name), every_path(child, shape.and_then(|s| s.field(name)))))
            .collect(),
        Children::Items(items) => {
            let inner = shape.and_then(|s| s.items.as_deref());
            items
                .into_iter()
                .map(|(key, item)| (key, every_path(item, inner)))
                .collect()
        }
    };
    Fields { owned: true, children }
}
