//! The structural schema of a custom resource: defaults, pruning, validation, CEL rules.
//!
//! A version is compiled once (`structure`, `rules`), when its CustomResourceDefinition is created; what cannot be
//! compiled makes the definition invalid. A request's object is then pruned and defaulted (`values`), checked against
//! the schema (`validation`), and, if that finds nothing, against the rules.

use std::sync::Arc;

use serde_json::Value;

use super::FieldError;
use super::list_types::ListTypes;

mod rules;
mod structure;
mod validation;
mod values;

use structure::Schema;

/// Why a version of a CustomResourceDefinition cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The parts of the schema that are wrong, with their paths inside the version (422).
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
}

/// One compiled version of a CustomResourceDefinition. Clones share what was compiled.
#[derive(Debug, Clone)]
pub struct Crd(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    schema: Schema,
    lists: ListTypes,
    columns: Vec<Value>,
}

impl Crd {
    /// Compiles one entry of a CRD's `spec.versions`.
    ///
    /// # Errors
    /// When the schema is absent or not structural, or a CEL rule does not compile.
    pub fn compile(version: &Value) -> Result<Self, SchemaError> {
        let at = "schema.openAPIV3Schema";
        let Some(source) = version
            .pointer("/schema/openAPIV3Schema")
            .filter(|schema| schema.is_object())
        else {
            return Err(SchemaError::Invalid(vec![FieldError::required(
                at,
                "schemas are required",
            )]));
        };
        let mut errors = Vec::new();
        let schema = Schema::compile(source, at, &mut errors);
        if !errors.is_empty() {
            return Err(SchemaError::Invalid(errors));
        }
        let status = version.pointer("/subresources/status").is_some();
        let columns = version.get("additionalPrinterColumns").and_then(Value::as_array);
        Ok(Self(Arc::new(Compiled {
            schema,
            lists: ListTypes::from_schema(source, status),
            columns: columns.cloned().unwrap_or_default(),
        })))
    }

    /// Fills in the schema's defaults.
    pub fn default(&self, object: &mut Value) {
        values::default(&self.0.schema, object);
    }

    /// Drops what the schema does not know and returns the dropped paths. The object's own `apiVersion`, `kind` and
    /// `metadata` stay as they are.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        values::prune_object(&self.0.schema, object)
    }

    /// Checks `new`, and the transition from `old` where there is one.
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let errors = validation::validate(&self.0.schema, new);
        if errors.is_empty() {
            rules::validate(&self.0.schema, new, old)
        } else {
            errors
        }
    }

    /// How the lists and maps merge.
    pub fn list_types(&self) -> ListTypes {
        self.0.lists.clone()
    }

    /// The `additionalPrinterColumns`.
    pub fn columns(&self) -> &[Value] {
        &self.0.columns
    }
}

#[cfg(test)]
mod tests;
