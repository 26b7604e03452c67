//! Server-side apply and the managedFields that it rests on.
//!
//! Every manager's entry is a set of field paths (`fields`). An apply merges the configuration into the live object
//! (`merge`), takes out what the manager alone owned and no longer sets (`merge`), and is refused when it would change
//! a field that another manager owns, unless forced. An update takes what it changed from the others.
//!
//! Invariants: applying the same configuration twice changes nothing, not even a time; an entry without fields does not
//! exist; what no manager owns is never removed.

use serde_json::{Map, Value, json};

use super::list_types::ListTypes;

mod fields;
mod managers;
mod merge;

use fields::{Fields, compare};
use managers::{Entry, Managers, Operation};

/// One field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The manager that owns the field.
    pub manager: String,
    /// How it came to own it: `Apply` or `Update`.
    pub operation: String,
    /// The manager's subresource, such as `status`, where it has one.
    pub subresource: Option<String>,
    /// The version of the API that it used.
    pub api_version: String,
    /// The field's path, such as `.spec.replicas`.
    pub field: String,
}

impl Conflict {
    /// The message of the cause in the 409: who the conflict is with.
    pub fn cause(&self) -> String {
        let mut text = format!("conflict with {:?}", self.manager);
        if let Some(subresource) = &self.subresource {
            text.push_str(&format!(" with subresource {subresource:?}"));
        }
        if self.operation == "Update" {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// Why an apply was refused.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields that the request sets to other values (409). With `force` it would take them over.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The request is not an object that can be applied (400).
    #[error("{0}")]
    Invalid(String),
}

/// The message of the 409, as kubectl shows it.
fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", only.cause(), only.field);
    }
    let mut message = format!("Apply failed with {} conflicts:", conflicts.len());
    let mut last = String::new();
    for conflict in conflicts {
        let cause = conflict.cause().replacen("conflict ", "conflicts ", 1);
        if cause != last {
            let separator = if last.is_empty() { " " } else { "\n" };
            message.push_str(&format!("{separator}{cause}:"));
            last = cause;
        }
        message.push_str(&format!("\n- {}", conflict.field));
    }
    message
}

/// Applies `applied` for `manager` onto `live`: what it sets is owned by it, what it alone owned and left out goes away.
///
/// `now` is RFC 3339. The result has its managedFields; defaults, validation and the server's own metadata are the
/// caller's. On the main resource a `status` is left out where the kind has the subresource, and on the status
/// subresource everything else.
#[expect(
    clippy::too_many_arguments,
    reason = "the parameters of the request, each of another meaning"
)]
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    api_version: &str,
    subresource: Option<&str>,
    now: &str,
    lists: &ListTypes,
) -> Result<Value, ApplyError> {
    check_request(applied, manager)?;
    let config = configuration(applied, subresource, lists);
    merge::check_lists(&config, lists.root())?;
    let empty = Value::Object(Map::new());
    let mut base = live.unwrap_or(&empty).clone();
    let mut managers = Managers::take(&mut base);

    let mut set = fields::of_config(&config, Some(lists.root()));
    strip_ignored(&mut set);
    let id = Entry::id(manager, Operation::Apply, api_version, subresource);
    let previous = managers
        .position_of_applier(manager, subresource)
        .map(|i| managers.entries.remove(i));

    let merged = merge::merge(Some(&base), &config, Some(lists.root()));
    let result = match &previous {
        Some(previous) => {
            let kept = managers
                .entries
                .iter()
                .fold(set.clone(), |all, entry| all.union(&entry.fields));
            merge::prune(merged, &previous.fields, &kept, lists.root())
        }
        None => merged,
    };

    let comparison = compare(Some(&base), Some(&result), Some(lists.root()));
    let conflicts = managers.conflicts(&comparison.changed);
    if !conflicts.is_empty() && !force {
        return Err(ApplyError::Conflicts(conflicts));
    }
    managers.release(&comparison.changed);
    managers.release(&comparison.removed);

    let unchanged = live.is_some() && result == base;
    let time = match previous {
        Some(previous) if unchanged && previous.fields == set => previous.time,
        _ => Some(now.to_owned()),
    };
    managers.put(Entry {
        fields: set,
        time,
        ..id
    });
    Ok(managers.put_into(result))
}

/// Records in `after`'s managedFields what `manager`'s create, update or patch changed against `before`.
///
/// `after` may bring managedFields of its own, as a client that rewrites them does; without them `before`'s are the
/// start, and a list of one empty entry clears them all.
pub fn track_update(
    before: Option<&Value>,
    after: Value,
    manager: &str,
    api_version: &str,
    subresource: Option<&str>,
    now: &str,
    lists: &ListTypes,
) -> Value {
    let empty = Value::Object(Map::new());
    let mut old = before.unwrap_or(&empty).clone();
    let mut new = after;
    let mut managers = Managers::take(&mut old);
    if new.pointer("/metadata/managedFields") == Some(&json!([{}])) {
        Managers::take(&mut new);
        return new;
    }
    let brought = Managers::take(&mut new);
    if !brought.entries.is_empty() {
        managers = brought;
    }

    let comparison = compare(Some(&old), Some(&new), Some(lists.root()));
    let mut changed = comparison.changed;
    strip_ignored(&mut changed);
    if lists.has_status() && subresource != Some("status") {
        changed.remove(&["f:status"]);
    }
    managers.release(&changed);
    managers.release(&comparison.removed);

    let id = Entry::id(manager, Operation::Update, api_version, subresource);
    if !changed.is_empty() {
        let mine = managers
            .position(&id)
            .map(|i| managers.entries.remove(i).fields)
            .unwrap_or_default();
        managers.put(Entry {
            fields: mine.union(&changed),
            time: Some(now.to_owned()),
            ..id
        });
    }
    managers.put_into(new)
}

fn check_request(applied: &Value, manager: &str) -> Result<(), ApplyError> {
    if !applied.is_object() {
        return Err(ApplyError::Invalid("the body of an apply must be an object".into()));
    }
    if manager.is_empty() {
        return Err(ApplyError::Invalid("fieldManager is required for apply patch".into()));
    }
    if applied
        .pointer("/metadata/managedFields")
        .is_some_and(|fields| !fields.is_null())
    {
        return Err(ApplyError::Invalid("metadata.managedFields must be nil".into()));
    }
    Ok(())
}

/// What of the request's body counts: no nulls, and only the side of the object that the subresource writes.
fn configuration(applied: &Value, subresource: Option<&str>, lists: &ListTypes) -> Value {
    let mut config = without_nulls(applied);
    let Some(map) = config.as_object_mut() else {
        return config;
    };
    match subresource {
        Some("status") => map.retain(|name, _| name == "status"),
        _ if lists.has_status() => drop(map.remove("status")),
        _ => {}
    }
    if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in SERVER_METADATA {
            metadata.remove(*name);
        }
    }
    config
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, child)| !child.is_null())
                .map(|(name, child)| (name.clone(), without_nulls(child)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// Metadata that the server sets: an apply that carries it over from a read does not mean to set it.
const SERVER_METADATA: &[&str] = &[
    "creationTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
    "deletionTimestamp",
];

/// Takes out the fields that nobody owns.
fn strip_ignored(set: &mut Fields) {
    set.owned = false;
    for name in ["apiVersion", "kind"] {
        set.remove(&[&fields::field_key(name)]);
    }
    for name in SERVER_METADATA
        .iter()
        .chain(&["name", "namespace", "deletionGracePeriodSeconds", "generateName"])
    {
        set.remove(&["f:metadata", &fields::field_key(name)]);
    }
    for top in ["f:metadata", "f:spec", "f:status"] {
        let Some(child) = set.children.get_mut(top) else {
            continue;
        };
        if child.owned && (!child.children.is_empty() || top == "f:metadata") {
            child.owned = false;
        }
        if child.is_empty() {
            set.children.remove(top);
        }
    }
}

#[cfg(test)]
mod tests;
