//! What an object of a built-in kind always has, though nobody set it.
//!
//! Kubernetes' types write some parts even when nothing is in them, such as a deployment's empty strategy. They are
//! there before and after every write, so that nobody comes to own them as such, only what is put into them.

use serde_json::{Map, Value, json};

use crate::machinery::builtin;

/// The object of a built-in kind in which nothing is set.
pub(super) fn nothing(kind: &str, api_version: &str) -> Value {
    let mut object = builtin::empty(kind, api_version);
    if object.get("metadata").is_none() {
        object["metadata"] = json!({});
    }
    object
}

/// `object` with what `nothing` has and it lacks.
pub(super) fn over(nothing: &Value, object: &Value) -> Value {
    match (nothing, object) {
        (Value::Object(parts), Value::Object(object)) => {
            let mut result: Map<String, Value> = object.clone();
            for (name, part) in parts {
                let whole = object.get(name).map_or_else(|| part.clone(), |child| over(part, child));
                result.insert(name.clone(), whole);
            }
            Value::Object(result)
        }
        _ => object.clone(),
    }
}
