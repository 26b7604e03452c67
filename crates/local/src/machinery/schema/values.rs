//! Defaulting and pruning.

use serde_json::{Map, Value};

use super::structure::{Additional, ListKind, Schema};

/// Drops nulls where none may be and nothing takes their place, and fills in defaults, also inside of defaulted values.
pub(super) fn default(schema: &Schema, value: &mut Value) {
    let misplaced = |schema: &Schema, value: &Value| value.is_null() && !schema.nullable;
    match value {
        Value::Object(map) => {
            for (name, property) in schema.properties.iter() {
                if let Some(filler) = property.default.as_deref()
                    && map.get(name).is_none_or(|value| misplaced(property, value))
                {
                    map.insert(name.to_owned(), filler.clone());
                }
            }
            map.retain(|name, child| schema.field(name).is_none_or(|inner| !misplaced(inner, child)));
            for (name, child) in map.iter_mut() {
                if let Some(property) = schema.field(name) {
                    default(property, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for item in items {
                    if let Some(filler) = schema.default.as_deref().filter(|_| misplaced(schema, item)) {
                        *item = filler.clone();
                    }
                    default(schema, item);
                }
            }
        }
        _ => {}
    }
}

/// The item of the old list with the same keys.
pub(super) fn earlier<'a>(schema: &Schema, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let ListKind::Map(keys) = &schema.list else { return None };
    let same = |other: &&Value| keys.iter().all(|key| other.get(key) == item.get(key));
    old?.as_array()?.iter().find(same)
}

/// Prunes a whole object and returns the paths that were dropped.
pub(super) fn prune_object(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    prune(schema, object, true, "", &mut dropped);
    dropped.sort();
    dropped
}

/// Prunes a part of an object.
pub(super) fn prune_value(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    prune(schema, value, false, "", &mut dropped);
    dropped
}

fn prune(schema: &Schema, value: &mut Value, is_object: bool, at: &str, dropped: &mut Vec<String>) {
    match value {
        Value::Object(map) => prune_map(schema, map, is_object || schema.embedded, at, dropped),
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (i, item) in items.iter_mut().enumerate() {
                    prune(schema, item, false, &format!("{at}[{i}]"), dropped);
                }
            }
        }
        _ => {}
    }
}

fn prune_map(schema: &Schema, map: &mut Map<String, Value>, is_object: bool, at: &str, dropped: &mut Vec<String>) {
    let fixed = |name: &str| is_object && matches!(name, "apiVersion" | "kind" | "metadata");
    map.retain(|name, _| {
        let known = schema.keeps_unknown() || fixed(name) || schema.field(name).is_some();
        if !known {
            dropped.push(join(at, name));
        }
        known
    });
    for (name, child) in map.iter_mut().filter(|(name, _)| !fixed(name)) {
        match (schema.properties.get(name), &schema.additional) {
            (Some(property), _) => prune(property, child, false, &join(at, name), dropped),
            (None, Additional::Schema(inner)) => prune(inner, child, false, &join(at, name), dropped),
            _ => {}
        }
    }
}

/// The path of the field `name` of the object at `at`.
pub(super) fn join(at: &str, name: &str) -> String {
    if at.is_empty() {
        name.to_owned()
    } else {
        format!("{at}.{name}")
    }
}
