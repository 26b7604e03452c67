//! Defaulting and pruning.

use serde_json::{Map, Value};

use super::structure::{Additional, Schema};

/// Fills in defaults, those inside of defaulted values too. A null where nulls are not allowed counts as absent when
/// there is a default.
pub(super) fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                if let Some(filler) = &property.default {
                    let absent = map.get(name).is_none_or(|value| value.is_null() && !property.nullable);
                    if absent {
                        map.insert(name.clone(), filler.clone());
                    }
                }
            }
            for (name, child) in map.iter_mut() {
                if let Some(property) = schema.field(name) {
                    default(property, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                items.iter_mut().for_each(|item| default(schema, item));
            }
        }
        _ => {}
    }
}

/// Prunes a whole object and returns the paths that were dropped.
pub(super) fn prune_object(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    prune(schema, object, true, "", &mut dropped);
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
