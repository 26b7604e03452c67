//! Defaults and validation of the built-in kinds.
//!
//! The order in which a server uses them: `decode_error` (400), `unknown_fields` (400 or a warning), `default`, the owners
//! of fields are noted, `prepare_create` or `prepare_update`, then `validate` or, with the object before, also
//! `validate_update` (422).

use serde_json::Value;

use super::FieldError;
pub use types::Wrong;

mod defaults;
mod forms;
mod prepare;
mod quantity;
mod types;
mod update;
mod validation;
mod warnings;

/// Where a DaemonSet counts the changes of its template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Fills in the defaults that an API server gives to an object of `kind`. Doing so twice changes nothing more.
pub fn default(kind: &str, object: &mut Value) {
    defaults::default(kind, object);
}

/// What is known of a new object besides itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// The kind keeps the status that a client gives.
    pub status: bool,
    /// The client gave labels.
    pub labels: bool,
}

/// Completes a new object once the owners of its fields are noted: what the server adds on its own behalf.
pub fn prepare_create(kind: &str, given: Given, object: &mut Value) {
    prepare::create(kind, given, object);
}

/// Keeps in a changed object what the server added on its own behalf when it was new.
pub fn prepare_update(kind: &str, old: &Value, new: &mut Value) {
    prepare::update(kind, old, new);
}

/// What is wrong with a new object of `kind`, besides its metadata.
pub fn validate(kind: &str, object: &Value) -> Vec<FieldError> {
    validation::validate(kind, object)
}

/// What a client is warned of that creates or changes an object of `kind`.
pub fn warnings(kind: &str, object: &Value) -> Vec<String> {
    warnings::warnings(kind, object)
}

/// What is wrong with replacing `old` by `new`: what `validate` finds and fields that may not change, in the order in which
/// the kind tells them.
pub fn validate_update(kind: &str, old: &Value, new: &Value) -> Vec<FieldError> {
    let (found, changed) = (validation::validate(kind, new), update::validate(kind, old, new));
    match kind {
        "ConfigMap" | "IngressClass" | "Secret" | "Service" => [changed, found].concat(),
        _ => [found, changed].concat(),
    }
}

/// The first value that a decoder of `kind` does not take; `None` when the object decodes.
pub fn decode_error(kind: &str, object: &Value) -> Option<Wrong> {
    types::examine(kind, &mut object.clone()).wrong.into_iter().next()
}

/// The object of `kind` in which nothing is set: what Kubernetes' types write all the same.
pub fn empty(kind: &str, api_version: &str) -> Value {
    types::definition_of(kind, api_version).map_or_else(|| serde_json::json!({}), forms::empty)
}

/// Paths of the fields that `kind` does not have.
pub fn unknown_fields(kind: &str, object: &Value) -> Vec<String> {
    types::examine(kind, &mut object.clone()).unknown
}

/// Drops the fields that `kind` does not have and returns their paths.
pub fn prune(kind: &str, object: &mut Value) -> Vec<String> {
    types::examine(kind, object).unknown
}
