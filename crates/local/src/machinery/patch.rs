//! The patches of the Kubernetes API: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.
//!
//! The first two are the `json-patch` crate's. The third is Kubernetes' own: a merge patch in which lists of the
//! built-in kinds merge by key, with directives for what a merge cannot say.

use serde_json::Value;

mod strategic;

/// Why a patch could not be applied. None of these gets better by trying again with the same body.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The body is not a patch of its type (400).
    #[error("the patch is malformed: {0}")]
    Malformed(String),
    /// A well-formed patch that does not fit the object, such as a failed `test` (422).
    #[error("the patch does not apply to the object: {0}")]
    DoesNotApply(String),
}

/// Applies the JSON patch `patch` to `target`.
pub fn json(target: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let mut result = target.clone();
    json_patch::patch(&mut result, &operations).map_err(|error| PatchError::DoesNotApply(error.to_string()))?;
    Ok(result)
}

/// Applies the merge patch `patch` to `target`.
pub fn merge(target: &Value, patch: &Value) -> Value {
    let mut result = target.clone();
    json_patch::merge(&mut result, patch);
    result
}

/// Applies the strategic merge patch `patch` to `target`, an object of the built-in kind `kind`.
pub fn strategic(target: &Value, patch: &Value, kind: &str) -> Result<Value, PatchError> {
    strategic::apply(target, patch, kind)
}

#[cfg(test)]
mod tests;
