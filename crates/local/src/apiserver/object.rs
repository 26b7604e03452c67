//! Reading and writing the parts of an object that every kind has.

use serde_json::{Map, Value};

/// The text at a JSON pointer, or nothing.
pub(crate) fn str_at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    str_at(object, "/metadata/name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    str_at(object, "/metadata/namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    str_at(object, "/metadata/uid")
}

pub(crate) fn resource_version(object: &Value) -> &str {
    str_at(object, "/metadata/resourceVersion")
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    !str_at(object, "/metadata/deletionTimestamp").is_empty()
}

/// The metadata, made when absent.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    child(object, "metadata")
}

/// The object under a key, made when it is absent or something else.
pub(crate) fn child<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let slot = &mut object[key];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("it was just made one"),
    }
}

/// The list under a key, made when it is absent or something else.
pub(crate) fn list<'a>(object: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let slot = &mut object[key];
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(list) => list,
        _ => unreachable!("it was just made one"),
    }
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

pub(crate) fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    finalizers(object).contains(&finalizer)
}

pub(crate) fn add_finalizer(object: &mut Value, finalizer: &str) {
    if has_finalizer(object, finalizer) {
        return;
    }
    let list = metadata(object)
        .entry("finalizers")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = list.as_array_mut() {
        list.push(finalizer.into());
    }
}

pub(crate) fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let metadata = metadata(object);
    if let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
        list.retain(|f| f.as_str() != Some(finalizer));
        if list.is_empty() {
            metadata.remove("finalizers");
        }
    }
}

/// Moves `key` of `from` into `to`, or removes it there where `from` has none.
pub(crate) fn copy_key(from: &Value, to: &mut Value, key: &str) {
    let Some(map) = to.as_object_mut() else { return };
    match from.get(key) {
        Some(value) => {
            map.insert(key.into(), value.clone());
        }
        None => {
            map.remove(key);
        }
    }
}

/// Takes a top-level field out.
pub(crate) fn take(object: &mut Value, key: &str) -> Option<Value> {
    object.as_object_mut()?.remove(key)
}

/// Whether everything besides metadata and status is the same.
pub(crate) fn same_spec(one: &Value, other: &Value) -> bool {
    let strip = |object: &Value| -> Map<String, Value> {
        let mut map = object.as_object().cloned().unwrap_or_default();
        for key in ["metadata", "status", "apiVersion", "kind"] {
            map.remove(key);
        }
        map
    };
    strip(one) == strip(other)
}

/// Whether the annotations are the same, but for one.
pub(crate) fn same_annotations(one: &Value, other: &Value, but: &str) -> bool {
    let all = |object: &Value| -> Map<String, Value> {
        let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
        let mut annotations = annotations.cloned().unwrap_or_default();
        annotations.remove(but);
        annotations
    };
    all(one) == all(other)
}

/// Whether two objects differ in nothing but the revision and the record of who set what when.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    let strip = |object: &Value| -> Value {
        let mut object = object.clone();
        let metadata = metadata(&mut object);
        metadata.remove("resourceVersion");
        if let Some(entries) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
            for entry in entries {
                if let Some(entry) = entry.as_object_mut() {
                    entry.remove("time");
                }
            }
        }
        object
    };
    strip(one) == strip(other)
}
