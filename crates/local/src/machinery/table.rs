//! `meta.k8s.io/v1` Tables: the columns that `kubectl get` shows.

use serde_json::{Value, json};

/// The table of objects of the built-in kind `kind`; `now` is RFC 3339.
pub fn builtin(_kind: &str, items: &[Value], now: &str) -> Value {
    crd(&[], items, now)
}

/// The table of custom resources with `additionalPrinterColumns` `columns`.
pub fn crd(_columns: &[Value], items: &[Value], _now: &str) -> Value {
    let rows: Vec<Value> = items
        .iter()
        .map(|item| {
            json!({
                "cells": [item.pointer("/metadata/name").cloned().unwrap_or(Value::Null)],
                "object": {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": item.get("metadata")},
            })
        })
        .collect();
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": {},
        "columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}],
        "rows": rows,
    })
}
