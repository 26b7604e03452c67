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

mod always;
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

/// A write whose fields are recorded: who writes what, and how the kind's fields merge.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// Who writes.
    pub manager: &'a str,
    /// The version of the API that is used.
    pub api_version: &'a str,
    /// The subresource that is written, such as `status`.
    pub subresource: Option<&'a str>,
    /// The time, RFC 3339.
    pub now: &'a str,
    /// How the fields merge.
    pub lists: &'a ListTypes,
    /// The kind, where it is a built-in one.
    pub builtin: Option<&'a str>,
}

/// The manager of what was there before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

impl Writer<'_> {
    /// Applies `applied`, which has passed [`Self::check`], onto `live`: what it sets is owned by the manager, what that alone owned and left out goes away.
    ///
    /// The result has its managedFields; defaults, validation and the server's own metadata are the caller's.
    ///
    /// # Errors
    /// Others own fields that would change, and `force` is not given.
    pub fn apply(&self, live: Option<&Value>, applied: &Value, force: bool) -> Result<Value, ApplyError> {
        let config = self.configuration(applied);
        let mut base = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
        let mut managers = Managers::parse(take_list(&mut base).as_ref()).unwrap_or_default();
        if managers.entries.is_empty() && live.is_some() {
            managers.put(self.before_first_apply(&base));
        }

        let mut set = fields::of_config(&config, Some(self.lists.root()));
        self.leave_to_others(&mut set);
        strip_server_fields(&mut set);
        let id = Entry::id(self.manager, Operation::Apply, self.api_version, self.subresource);
        let previous = managers
            .position_of_applier(self.manager, self.subresource)
            .map(|i| managers.entries.remove(i));

        let merged = merge::merge(Some(&base), &config, Some(self.lists.root()));
        let result = match &previous {
            Some(previous) => {
                let kept = managers
                    .entries
                    .iter()
                    .fold(set.clone(), |all, entry| all.union(&entry.fields));
                merge::prune(merged, &previous.fields, &kept, self.lists.root())
            }
            None => merged,
        };

        let mut comparison = compare(Some(&base), Some(&result), Some(self.lists.root()));
        self.leave_to_others(&mut comparison.changed);
        self.leave_to_others(&mut comparison.removed);
        let conflicts = managers.conflicts(&comparison.changed);
        if !conflicts.is_empty() && !force {
            return Err(ApplyError::Conflicts(conflicts));
        }
        managers.release(&comparison.changed);
        managers.release(&comparison.removed);

        let unchanged = live.is_some() && result == base;
        let time = if unchanged {
            previous.and_then(|entry| entry.time)
        } else {
            Some(self.now.to_owned())
        };
        managers.put(Entry {
            fields: set,
            time,
            ..id
        });
        Ok(managers.put_into(result))
    }

    /// Refuses a configuration with lists whose items cannot be told apart.
    ///
    /// # Errors
    /// Says which list it is.
    pub fn check(&self, applied: &Value) -> Result<(), ApplyError> {
        merge::check_lists(applied, self.lists.root())
    }

    /// Records in `after`'s managedFields what a create, update or patch changed against `before`.
    ///
    /// `after` may bring managedFields of its own, as a client that rewrites them does; where it brings none that can
    /// be read, `before`'s are the start, and an empty list or one empty entry clears them all. An object without
    /// managedFields stays without: only a create or an apply begins them.
    pub fn track(&self, before: Option<&Value>, after: Value) -> Value {
        let mut old = before.cloned().unwrap_or_else(|| self.nothing());
        let mut new = after;
        let kept = take_list(&mut old);
        let brought = take_list(&mut new);
        let known = || Managers::parse(kept.as_ref()).unwrap_or_default();
        let mut managers = match brought {
            _ if self.subresource.is_some() => known(),
            Some(list) if managers::is_reset(&list) => Managers::default(),
            list => Managers::parse(list.as_ref())
                .filter(|brought| !brought.entries.is_empty())
                .unwrap_or_else(known),
        };
        if managers.entries.is_empty() && before.is_some() {
            return new;
        }

        let (mut changed, removed) = self.changes(&old, &new);
        managers.release(&changed);
        managers.release(&removed);
        strip_server_fields(&mut changed);

        if !changed.is_empty() {
            let id = Entry::id(self.manager, Operation::Update, self.api_version, self.subresource);
            let mine = managers
                .position(&id)
                .map(|i| managers.entries.remove(i).fields)
                .unwrap_or_default();
            managers.put(Entry {
                fields: mine.union(&changed),
                time: Some(self.now.to_owned()),
                ..id
            });
        }
        managers.limit_updaters();
        managers.put_into(new)
    }

    /// What became different, less what the place that is written does not set.
    fn changes(&self, old: &Value, new: &Value) -> (Fields, Fields) {
        let nothing = self.nothing();
        let root = Some(self.lists.root());
        let mut found = compare(
            Some(&always::over(&nothing, old)),
            Some(&always::over(&nothing, new)),
            root,
        );
        self.leave_to_others(&mut found.changed);
        self.leave_to_others(&mut found.removed);
        (found.changed, found.removed)
    }

    /// The object in which nothing is set.
    fn nothing(&self) -> Value {
        self.builtin
            .map_or_else(|| json!({}), |kind| always::nothing(kind, self.api_version))
    }

    fn before_first_apply(&self, live: &Value) -> Entry {
        let (mut fields, _) = self.changes(&self.nothing(), live);
        strip_server_fields(&mut fields);
        let id = Entry::id(
            BEFORE_FIRST_APPLY,
            Operation::Update,
            self.api_version,
            self.subresource,
        );
        Entry {
            fields,
            time: Some(self.now.to_owned()),
            ..id
        }
    }

    /// Takes out what a write of the object or of its subresource does not set.
    fn leave_to_others(&self, set: &mut Fields) {
        match (self.subresource, self.builtin) {
            (Some("status"), None) => set.children.retain(|key, _| key == "f:status"),
            (Some("status"), Some(_)) => set.remove(&["f:spec"]),
            _ if self.lists.has_status() => set.remove(&["f:status"]),
            _ => {}
        }
    }

    /// What of the request's body counts: only the side of the object that the subresource writes.
    fn configuration(&self, applied: &Value) -> Value {
        let mut config = applied.clone();
        let Some(map) = config.as_object_mut() else {
            return config;
        };
        match (self.subresource, self.builtin) {
            (Some("status"), None) => map.retain(|name, _| name == "status"),
            (Some("status"), Some(_)) => drop(map.remove("spec")),
            _ if self.lists.has_status() => drop(map.remove("status")),
            _ => {}
        }
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            // Another uid is a mistake that is to be seen.
            for name in SERVER_METADATA.iter().filter(|name| **name != "uid") {
                metadata.remove(*name);
            }
        }
        config
    }
}

/// Takes the managedFields out of an object.
fn take_list(object: &mut Value) -> Option<Value> {
    object
        .get_mut("metadata")?
        .as_object_mut()?
        .remove("managedFields")
        .filter(|list| !list.is_null())
}

/// Metadata that the server sets: an apply that carries it over from a read does not mean to set it.
const SERVER_METADATA: &[&str] = &[
    "creationTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Takes out the fields that nobody owns.
fn strip_server_fields(set: &mut Fields) {
    set.owned = false;
    for name in ["apiVersion", "kind"] {
        set.remove(&[&fields::field_key(name)]);
    }
    let Some(metadata) = set.children.get_mut("f:metadata") else {
        return;
    };
    metadata.owned = false;
    for name in SERVER_METADATA.iter().chain(&["name", "namespace"]) {
        metadata.remove(&[&fields::field_key(name)]);
    }
    if metadata.is_empty() {
        set.children.remove("f:metadata");
    }
}

#[cfg(test)]
mod tests;
