//! Whether what is here is what should be here.

use std::fmt;

use serde_json::Value;

use super::quantity;

/// Says on an object which carried content it has, so that a field that the active cluster dropped is seen to be missing.
pub(super) const CARRIED_HASH_ANNOTATION: &str = "leeward.dev/carried-hash";

/// BLAKE3 of objects, hexadecimal. Does not depend on the order of an object's keys.
pub(super) fn hash(objects: &[Value]) -> String {
    let mut hasher = blake3::Hasher::new();
    for object in objects {
        feed(&mut hasher, object);
    }
    hasher.finalize().to_hex().to_string()
}

fn feed(hasher: &mut blake3::Hasher, value: &Value) {
    // Each value begins with its type and carries its length, so that two different values never feed the same bytes.
    match value {
        Value::Null => drop(hasher.update(b"n")),
        Value::Bool(value) => drop(hasher.update(if *value { b"t" } else { b"f" })),
        Value::Number(number) => text(hasher, b'd', &number.to_string()),
        Value::String(string) => text(hasher, b's', string),
        Value::Array(items) => {
            hasher.update(b"a").update(&(items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| feed(hasher, item));
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            hasher.update(b"o").update(&(fields.len() as u64).to_le_bytes());
            for (key, value) in fields {
                text(hasher, b'k', key);
                feed(hasher, value);
            }
        }
    }
}

fn text(hasher: &mut blake3::Hasher, kind: u8, text: &str) {
    hasher
        .update(&[kind])
        .update(&(text.len() as u64).to_le_bytes())
        .update(text.as_bytes());
}

/// The first field of `desired` that `existing` does not have so, as a path and both values. What `existing` has beyond that (defaults,
/// status, what others added) is no difference.
pub(super) fn difference(desired: &Value, existing: &Value) -> Option<Difference> {
    walk(desired, Some(existing), String::new())
}

/// The first field below `spec`, `data` or `stringData` that another manager than `ours` put on an object and that `desired` does not have:
/// its path and who put it there. Server-side apply leaves such a field alone, so that only this sees it.
///
/// Reads `metadata.managedFields` in the form FieldsV1 of the Kubernetes API: `f:NAME` is a field, `k:{..}` an item of a list by its keys.
pub(super) fn added(desired: &Value, existing: &Value, ours: &str) -> Option<(String, String)> {
    let entries = existing["metadata"]["managedFields"].as_array()?;
    entries
        .iter()
        .filter(|entry| entry["manager"] != ours && entry["subresource"].as_str().is_none_or(str::is_empty))
        .find_map(|entry| {
            let parts = ["spec", "data", "stringData"];
            let found = parts.into_iter().find_map(|part| {
                let owned = entry["fieldsV1"].get(format!("f:{part}"))?;
                unwanted(owned, desired.get(part), existing.get(part)?, part.to_owned())
            });
            Some((found?, entry["manager"].as_str().unwrap_or("somebody").to_owned()))
        })
}

fn unwanted(owned: &Value, desired: Option<&Value>, existing: &Value, path: String) -> Option<String> {
    let Some(desired) = desired else { return Some(path) };
    owned.as_object()?.iter().find_map(|(key, below)| {
        if let Some(name) = key.strip_prefix("f:") {
            return unwanted(below, desired.get(name), existing.get(name)?, format!("{path}.{name}"));
        }
        let keys: Value = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
        let is_it = |item: &&Value| {
            let keys = keys.as_object();
            keys.is_some_and(|keys| keys.iter().all(|(key, value)| item.get(key) == Some(value)))
        };
        let item = |list: &'_ Value| list.as_array().and_then(|list| list.iter().find(is_it).cloned());
        unwanted(
            below,
            item(desired).as_ref(),
            &item(existing)?,
            format!("{path}[{keys}]"),
        )
    })
}

/// A field that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Where, such as `spec.replicas`.
    pub(super) path: String,
    /// What should be there.
    pub(super) desired: String,
    /// What is there.
    pub(super) existing: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, not {}", self.path, self.existing, self.desired)
    }
}

fn walk(desired: &Value, existing: Option<&Value>, path: String) -> Option<Difference> {
    match (desired, existing) {
        (Value::Object(fields), Some(Value::Object(found))) => fields.iter().find_map(|(key, value)| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            walk(value, found.get(key), path)
        }),
        (Value::Array(items), Some(Value::Array(found))) if items.len() == found.len() => {
            let mut pairs = items.iter().zip(found).enumerate();
            pairs.find_map(|(index, (item, found))| walk(item, Some(found), format!("{path}[{index}]")))
        }
        // An empty map or list, or nothing, is often not kept.
        (Value::Null, None) => None,
        (Value::Object(fields), None) if fields.is_empty() => None,
        (Value::Array(items), None) if items.is_empty() => None,
        (desired, Some(existing)) if desired == existing || quantity::same(&path, desired, existing) => None,
        _ => Some(Difference {
            path,
            desired: brief(Some(desired)),
            existing: brief(existing),
        }),
    }
}

/// A value for a person; long ones, and so most secrets, by their size only.
fn brief(value: Option<&Value>) -> String {
    match value {
        None => "absent".into(),
        Some(Value::Array(items)) => format!("{} items", items.len()),
        Some(Value::Object(fields)) => format!("{} fields", fields.len()),
        Some(value) => {
            let text = value.to_string();
            if text.len() > 40 {
                format!("{} bytes", text.len())
            } else {
                text
            }
        }
    }
}
