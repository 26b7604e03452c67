//! The patches of the Kubernetes API: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.
//!
//! JSON patches are done here (`operations`), as Kubernetes is more lenient than the RFC; merge patches by the
//! `json-patch` crate. Strategic merge is Kubernetes' own: a merge patch in which lists of the built-in kinds merge by
//! key, with directives for what a merge cannot say.

use serde_json::Value;

use super::json::type_name;

mod operations;
mod strategic;

/// Why a patch could not be applied. None of these gets better by trying again with the same body.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The body is not a patch of its type (400).
    #[error("{0}")]
    Malformed(String),
    /// A JSON patch that does not fit the object, such as a failed `test` (422).
    #[error("the server rejected our request due to an error in our request")]
    DoesNotApply,
    /// A JSON patch with too many operations (413).
    #[error("The allowed maximum operations in a JSON patch is {most}, got {0}", most = operations::MOST)]
    TooMany(usize),
    /// A strategic merge patch whose directives cannot be followed (500, as in Kubernetes).
    #[error("{0}")]
    CannotMerge(String),
}

fn undecodable(value: &Value, wanted: &str) -> PatchError {
    PatchError::Malformed(format!(
        "error decoding patch: json: cannot unmarshal {} into Go value of type {wanted}",
        type_name(value)
    ))
}

/// Applies the JSON patch `patch` to `target`.
///
/// # Errors
/// The patch is no list of operations, or one of them does not fit.
pub fn json(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = match patch {
        Value::Array(operations) => operations.as_slice(),
        Value::Null => &[],
        other => return Err(undecodable(other, "[]handlers.jsonPatchOp")),
    };
    if let Some(other) = operations.iter().find(|o| !o.is_object()) {
        return Err(undecodable(other, "handlers.jsonPatchOp"));
    }
    if operations.len() > operations::MOST {
        return Err(PatchError::TooMany(operations.len()));
    }
    operations::apply(target, operations)
}

/// Applies the merge patch `patch` to `target`.
///
/// # Errors
/// The patch is no object.
pub fn merge(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    match patch {
        Value::Object(_) => {
            let mut result = target.clone();
            json_patch::merge(&mut result, patch);
            Ok(result)
        }
        Value::Null => Err(PatchError::Malformed("Invalid JSON Patch".into())),
        other => Err(undecodable(other, "map[string]interface {}")),
    }
}

/// Applies the strategic merge patch `patch` to `target`, an object of the built-in kind `kind`.
///
/// # Errors
/// The patch is no object, or says something about a list that cannot be done.
pub fn strategic(target: &Value, patch: &Value, kind: &str) -> Result<Value, PatchError> {
    strategic::apply(target, patch, kind)
}

/// A value as a Go program prints a map: `map[a:1 b:[x y]]`. Messages about strategic merge patches show them so.
pub fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let fields: Vec<String> = map
                .iter()
                .map(|(name, value)| format!("{name}:{}", go_text(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
