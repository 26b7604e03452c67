//! The schemas of the built-in kinds: what is known of the types, with the words that describe them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::described;
use crate::machinery::facts::{self, Field, Form, Merge, Type, TypeId};

/// The schemas of kinds, each a name and an API version, and of all that they use, by the types' full names.
pub(super) fn schemas(kinds: &[(&str, &str)]) -> Map<String, Value> {
    let words = described::schemas(kinds.iter().copied());
    let mut open: Vec<TypeId> = kinds
        .iter()
        .filter_map(|(kind, version)| facts::kind(kind, version))
        .collect();
    let mut used = BTreeSet::new();
    while let Some(id) = open.pop() {
        if used.insert(id) {
            open.extend(facts::get(id).fields.iter().filter_map(|field| refers_to(&field.form)));
        }
    }
    let schemas = used.into_iter().map(facts::get).map(|a_type| {
        let name = a_type.full_name();
        let schema = schema(a_type, words.get(&name).unwrap_or(&Value::Null));
        (name, schema)
    });
    schemas.collect()
}

fn refers_to(form: &Form) -> Option<TypeId> {
    match form {
        Form::Type(id) => Some(*id),
        Form::List(item) | Form::Map(item) => refers_to(item),
        _ => None,
    }
}

fn schema(a_type: &Type, words: &Value) -> Value {
    let mut schema = form(&a_type.itself.form);
    describe(&mut schema, words, &a_type.itself.values);
    merge(&mut schema, &a_type.itself.merge);
    let properties: Map<String, Value> = a_type
        .fields
        .iter()
        .map(|field| {
            let words = words.get("properties").and_then(|all| all.get(field.name));
            (field.name.to_owned(), property(field, words.unwrap_or(&Value::Null)))
        })
        .collect();
    let required: Vec<&str> = a_type.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    if !properties.is_empty() {
        schema["properties"] = properties.into();
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if let Some((version, kind)) = a_type.kind {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
    }
    schema
}

fn property(field: &Field, words: &Value) -> Value {
    let mut schema = form(&field.form);
    if let Some(default) = field.default.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        schema["default"] = default;
    }
    describe(&mut schema, words, &field.values);
    merge(&mut schema, &field.merge);
    // Nothing may stand beside a reference, so one with words of its own is wrapped.
    if let Some(map) = schema.as_object_mut().filter(|map| map.len() > 1)
        && let Some(target) = map.remove("$ref")
    {
        map.insert("allOf".into(), json!([{"$ref": target}]));
    }
    schema
}

fn describe(schema: &mut Value, words: &Value, values: &[String]) {
    let mut text = words
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if !values.is_empty() {
        let within = ["/items", "/additionalProperties"];
        let at = within.into_iter().find(|at| schema.pointer(at).is_some()).unwrap_or("");
        if at.is_empty() {
            let listed: Vec<String> = values.iter().map(|value| format!(" - `{value:?}`")).collect();
            text = format!("{text}\n\nPossible enum values:\n{}", listed.join("\n"));
        }
        if let Some(place) = schema.pointer_mut(at) {
            place["enum"] = json!(values);
        }
    }
    if !text.is_empty() {
        schema["description"] = text.into();
    }
}

fn merge(schema: &mut Value, merge: &Merge) {
    let mut say = |name: &str, value: Value| schema[format!("x-kubernetes-{name}")] = value;
    if let Some(strategy) = merge.strategy {
        say("patch-strategy", strategy.into());
    }
    if let Some(key) = merge.strategy_key {
        say("patch-merge-key", key.into());
    }
    if !merge.keys.is_empty() {
        say("list-map-keys", json!(merge.keys));
    }
    if let Some(kind) = merge.kind {
        // Bytes are a list to those who wrote the types.
        let list =
            schema.get("type").is_some_and(|kind| kind == "array") || schema.get("format") == Some(&json!("byte"));
        schema[if list {
            "x-kubernetes-list-type"
        } else {
            "x-kubernetes-map-type"
        }] = kind.into();
    }
}

fn form(form: &Form) -> Value {
    match form {
        Form::String => json!({"type": "string"}),
        Form::Boolean => json!({"type": "boolean"}),
        Form::Int32 => json!({"type": "integer", "format": "int32"}),
        Form::Int64 => json!({"type": "integer", "format": "int64"}),
        Form::Double => json!({"type": "number", "format": "double"}),
        Form::Bytes => json!({"type": "string", "format": "byte"}),
        Form::Time => json!({"type": "string", "format": "date-time"}),
        Form::IntOrString => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        Form::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Form::Object => json!({"type": "object"}),
        Form::Any => json!({}),
        Form::List(item) => json!({"type": "array", "items": self::form(item)}),
        Form::Map(item) => json!({"type": "object", "additionalProperties": self::form(item)}),
        Form::Type(id) => json!({"$ref": format!("#/components/schemas/{}", facts::get(*id).full_name())}),
    }
}
