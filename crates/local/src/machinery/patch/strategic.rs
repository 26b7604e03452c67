//! Strategic merge.

use super::PatchError;
use serde_json::Value;

pub(super) fn apply(target: &Value, patch: &Value, _kind: &str) -> Result<Value, PatchError> {
    Ok(super::merge(target, patch))
}
