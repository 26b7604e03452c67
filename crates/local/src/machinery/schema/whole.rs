//! What is checked of an object besides its schema's limits: lists with keys, embedded resources, the amounts that scale.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::structure::{Additional, ListKind, Schema};
use super::values::join;
use crate::machinery::{FieldError, Reason, metadata};

/// The items that a list has more than once, though it tells them apart.
pub(super) fn repeated(schema: &Schema, value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if let Value::Array(items) = value {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            let identity = match &schema.list {
                ListKind::Map(keys) => {
                    let values = keys
                        .iter()
                        .filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                    Value::Object(values.collect())
                }
                ListKind::Set => item.clone(),
                ListKind::Atomic => break,
            };
            let times = seen.entry(identity.to_string()).or_default();
            *times += 1;
            if *times == 2 {
                let message = format!("Duplicate value: {identity}");
                errors.push(FieldError::new(format!("{at}[{i}]"), Reason::Duplicate, message));
            }
        }
    }
    children(schema, value, at, &mut |schema, value, at| {
        repeated(schema, value, at, errors)
    });
}

/// Resources inside of the object have a kind, and metadata as any object.
pub(super) fn embedded(schema: &Schema, value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if let (true, Value::Object(map)) = (schema.embedded, value) {
        for name in ["apiVersion", "kind"] {
            match map.get(name) {
                None => errors.push(FieldError::required(join(at, name), "")),
                Some(Value::String(text)) if text.is_empty() => {
                    errors.push(FieldError::invalid(join(at, name), &"".into(), "must not be empty"));
                }
                Some(Value::String(_)) => {}
                Some(other) => errors.push(FieldError::invalid(join(at, name), other, "must be a string")),
            }
        }
        let own = map.get("metadata").unwrap_or(&Value::Null);
        let at = join(at, "metadata");
        errors.extend(metadata::labels(own.get("labels"), &format!("{at}.labels")));
        errors.extend(metadata::annotations(
            own.get("annotations"),
            &format!("{at}.annotations"),
        ));
    }
    children(schema, value, at, &mut |schema, value, at| {
        embedded(schema, value, at, errors)
    });
}

fn children(schema: &Schema, value: &Value, at: &str, visit: &mut dyn FnMut(&Schema, &Value, &str)) {
    match value {
        Value::Object(map) => fields(schema, map, at, visit),
        Value::Array(items) => {
            if let Some(inner) = &schema.items {
                for (i, item) in items.iter().enumerate() {
                    visit(inner, item, &format!("{at}[{i}]"));
                }
            }
        }
        _ => {}
    }
}

fn fields(schema: &Schema, map: &Map<String, Value>, at: &str, visit: &mut dyn FnMut(&Schema, &Value, &str)) {
    for (name, child) in map {
        match (schema.properties.get(name), &schema.additional) {
            (Some(property), _) => visit(property, child, &join(at, name)),
            (None, Additional::Schema(inner)) => visit(inner, child, &format!("{at}[{name}]")),
            _ => {}
        }
    }
}

/// What is wrong with the numbers at the paths of the scale subresource.
pub(super) fn scale(paths: &Value, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for name in ["specReplicasPath", "statusReplicasPath"] {
        let Some(path) = paths.get(name).and_then(Value::as_str) else {
            continue;
        };
        let Some(count) = object.pointer(&path.replace('.', "/")).and_then(Value::as_i64) else {
            continue;
        };
        if count < 0 {
            errors.push(FieldError::invalid(
                path,
                &count.into(),
                "should be a non-negative integer",
            ));
        } else if count > i64::from(i32::MAX) {
            let detail = format!("should be less than or equal to {}", i32::MAX);
            errors.push(FieldError::invalid(path, &count.into(), &detail));
        }
    }
    errors
}
