//! `meta.k8s.io/v1` Tables: the columns that `kubectl get` shows.
//!
//! A row's `object` is the object's PartialObjectMetadata; a server that is asked for the whole object, or for none,
//! replaces it.

use serde_json::{Value, json};

pub mod age;
mod cells;
mod columns;
mod json_path;
mod pod;

/// The table of objects of the built-in kind `kind`; `now` is RFC 3339.
pub fn builtin(kind: &str, items: impl IntoIterator<Item = Value>, now: &str) -> Value {
    let columns = columns::of(kind);
    let definitions = columns.iter().map(|column| {
        // Names of objects, of which an attachment's table has two.
        let format = if matches!(column.name, "Name" | "Attacher") {
            "name"
        } else {
            ""
        };
        definition(column.name, column.kind, format, "", column.priority.into())
    });
    let cells = |item: &Value| {
        columns
            .iter()
            .map(|column| cells::cell(&column.cell, item, now))
            .collect()
    };
    let rows = items.into_iter().map(|item| row(&item, cells(&item)));
    table(definitions.collect(), rows.collect())
}

/// The table of custom resources with `additionalPrinterColumns` `columns`; without any, their age is shown.
pub fn crd(columns: &[Value], items: &[Value], now: &str) -> Value {
    let by_default = [json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})];
    let columns = if columns.is_empty() { &by_default[..] } else { columns };
    let text = |column: &'_ Value, name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut definitions = vec![definition("Name", "string", "name", "", 0)];
    definitions.extend(columns.iter().map(|column| {
        let path = text(column, "jsonPath");
        let described = Some(text(column, "description")).filter(|own| !own.is_empty());
        let by_path = || format!("Custom resource definition column (in JSONPath format): {path}");
        let priority = column.get("priority").and_then(Value::as_i64).unwrap_or(0);
        definition(
            &text(column, "name"),
            &text(column, "type"),
            &text(column, "format"),
            &described.unwrap_or_else(by_path),
            priority,
        )
    }));
    let rows = items.iter().map(|item| {
        let mut cells = vec![item.pointer("/metadata/name").cloned().unwrap_or_default()];
        cells.extend(columns.iter().map(|column| {
            let found = json_path::find(item, &text(column, "jsonPath"));
            custom_cell(&found, &text(column, "type"), now)
        }));
        row(item, cells)
    });
    table(definitions, rows.collect())
}

/// The cell of what a column's path found.
fn custom_cell(found: &[&Value], kind: &str, now: &str) -> Value {
    let Some(first) = found.first() else { return Value::Null };
    match (kind, first) {
        ("date", Value::String(time)) => age::between(time, now).into(),
        ("date", _) => Value::Null,
        ("string", _) => {
            let texts: Vec<String> = found.iter().map(|value| plain(value)).collect();
            texts.join(" ").into()
        }
        (_, scalar) if scalar.is_number() || scalar.is_boolean() => (*scalar).clone(),
        _ => Value::Null,
    }
}

/// A value as text, without a string's quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

fn row(item: &Value, cells: Vec<Value>) -> Value {
    let metadata = item.get("metadata").cloned().unwrap_or_default();
    json!({
        "cells": cells,
        "object": {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata},
    })
}

fn table(definitions: Vec<Value>, rows: Vec<Value>) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1",
        "kind": "Table",
        "metadata": {},
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

#[cfg(test)]
mod tests;
