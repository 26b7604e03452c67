//! Merging a configuration into an object, and taking out what its manager no longer sets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::ApplyError;
use super::fields::{Children, Fields, children, field_key, item_is_scalar, item_key, set_key, shown};
use crate::machinery::list_types::{Shape, Topology};

/// Refuses a configuration with a keyed list or set whose items cannot be told apart.
pub(super) fn check_lists(config: &Value, shape: &Shape) -> Result<(), ApplyError> {
    check(config, Some(shape), "")
}

fn check(value: &Value, shape: Option<&Shape>, path: &str) -> Result<(), ApplyError> {
    if let Some(problem) = value.as_array().and_then(|items| problem(items, shape)) {
        return Err(ApplyError::Invalid(format!("{path}: {problem}")));
    }
    match children(value, shape) {
        Children::Fields(map) => map
            .iter()
            .try_for_each(|(name, child)| check(child, shape.and_then(|s| s.field(name)), &format!("{path}.{name}"))),
        Children::Items(items) => {
            let inner = shape.and_then(|s| s.items.as_deref());
            items
                .iter()
                .try_for_each(|(key, item)| check(item, inner, &format!("{path}{}", shown(key))))
        }
        Children::Atomic => Ok(()),
    }
}

/// Why the items of a list with keys, or of a set, cannot be told apart.
fn problem(items: &[Value], shape: Option<&Shape>) -> Option<String> {
    let topology = shape.map(|shape| &shape.topology);
    let mut seen = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let key = match topology {
            Some(Topology::Set) if item_is_scalar(item) => set_key(item),
            Some(Topology::Keys(_)) if !item.is_object() => {
                return Some(format!(
                    "element {i}: associative list with keys may not have non-map elements"
                ));
            }
            Some(Topology::Keys(keys)) => match item_key(item, keys) {
                Some(key) => key,
                None => {
                    let names: Vec<String> = keys.iter().map(|key| format!("{:?}", key.name)).collect();
                    return Some(format!(
                        "element {i}: associative list with keys has an element that omits all key fields [{}] (and \
                         doesn't have default values for any key fields)",
                        names.join(" ")
                    ));
                }
            },
            _ => return None,
        };
        if !seen.insert(key.clone()) {
            return Some(format!("duplicate entries for key {}", shown(&key)));
        }
    }
    None
}

/// `config` merged into `live` at a place of the given shape.
pub(super) fn merge(live: Option<&Value>, config: &Value, shape: Option<&Shape>) -> Value {
    let Some(live) = live else { return config.clone() };
    match (children(live, shape), children(config, shape)) {
        (Children::Fields(old), Children::Fields(new)) => {
            let mut merged = old.clone();
            for (name, child) in new {
                let inner = shape.and_then(|s| s.field(name));
                merged.insert(name.clone(), merge(old.get(name), child, inner));
            }
            Value::Object(merged)
        }
        (Children::Items(old), Children::Items(new)) => {
            Value::Array(merge_items(&old, &new, shape.and_then(|s| s.items.as_deref())))
        }
        _ => config.clone(),
    }
}

/// The items of both in the configuration's order; items that only `old` has keep their place after their predecessors.
fn merge_items(old: &[(String, &Value)], new: &[(String, &Value)], inner: Option<&Shape>) -> Vec<Value> {
    let by_key: BTreeMap<&str, &Value> = old.iter().map(|(key, item)| (key.as_str(), *item)).collect();
    let set_by_new: BTreeSet<&str> = new.iter().map(|(key, _)| key.as_str()).collect();
    let mut merged = Vec::with_capacity(old.len() + new.len());
    let (mut o, mut n) = (0, 0);
    while o < old.len() || n < new.len() {
        match (old.get(o), new.get(n)) {
            (Some((key, item)), _) if !set_by_new.contains(key.as_str()) => {
                merged.push((*item).clone());
                o += 1;
            }
            (left, Some((key, item))) => {
                merged.push(merge(by_key.get(key.as_str()).copied(), item, inner));
                n += 1;
                if left.is_some_and(|(left, _)| left == key) {
                    o += 1;
                }
            }
            // An item of `old` that the configuration has already placed.
            (Some(_), None) => o += 1,
            (None, None) => break,
        }
    }
    merged
}

/// Takes out of `object` what is in `last` and in nobody's set (`kept`).
pub(super) fn prune(object: Value, last: &Fields, kept: &Fields, shape: &Shape) -> Value {
    prune_children(object, last, kept, Some(shape), &[])
}

fn prune_children(value: Value, last: &Fields, kept: &Fields, shape: Option<&Shape>, fixed: &[String]) -> Value {
    match children(&value, shape) {
        Children::Atomic => value,
        Children::Fields(map) => {
            let mut result = Map::new();
            for (name, child) in map {
                let key = field_key(name);
                let inner = shape.and_then(|s| s.field(name));
                let child = match last.children.get(&key) {
                    Some(last) if !fixed.contains(name) => prune_one(child, last, kept.children.get(&key), inner, &[]),
                    _ => Some(child.clone()),
                };
                result.extend(child.map(|child| (name.clone(), child)));
            }
            Value::Object(result)
        }
        Children::Items(items) => {
            let inner = shape.and_then(|s| s.items.as_deref());
            let keys: Vec<String> = match shape.map(|s| &s.topology) {
                Some(Topology::Keys(keys)) => keys.iter().map(|key| key.name.clone()).collect(),
                _ => Vec::new(),
            };
            let items = items
                .into_iter()
                .filter_map(|(key, item)| match last.children.get(&key) {
                    Some(last) => prune_one(item, last, kept.children.get(&key), inner, &keys),
                    None => Some(item.clone()),
                });
            Value::Array(items.collect())
        }
    }
}

/// What is left of one child that was in `last`; `None` when nothing is.
fn prune_one(
    child: &Value,
    last: &Fields,
    kept: Option<&Fields>,
    shape: Option<&Shape>,
    fixed: &[String],
) -> Option<Value> {
    let nobody = Fields::default();
    match kept {
        None if last.owned => None,
        Some(kept) if kept.owned && kept.children.is_empty() && last.children.is_empty() => Some(child.clone()),
        _ => {
            let pruned = prune_children(child.clone(), last, kept.unwrap_or(&nobody), shape, fixed);
            let emptied = pruned != *child && is_empty(&pruned);
            (!emptied || kept.is_some_and(|kept| kept.owned)).then_some(pruned)
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
