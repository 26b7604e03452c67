//! The structural schema of a custom resource: defaults, pruning, validation, CEL rules.
//!
//! A definition is checked first (`definition`, `structural`, `keywords`, `defaults`), then each of its versions compiled
//! once (`structure`, `rules`). A request's object is pruned and defaulted (`values`), checked against the schema
//! (`validation`), and, unless that finds what hides more, against the rules.

use std::sync::Arc;

use serde_json::Value;

use super::list_types::ListTypes;
use super::{FieldError, Reason};

mod defaults;
mod definition;
mod formats;
mod keywords;
mod rules;
mod structural;
mod structure;
mod validation;
mod values;
mod whole;

pub use definition::{definition_errors, definition_warnings};
use structure::Schema;

/// What Kubernetes calls the object as a whole in an error.
const NIL: &str = "<nil>";

/// One compiled version of a CustomResourceDefinition. Clones share what was compiled.
#[derive(Debug, Clone)]
pub struct Crd(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    schema: Schema,
    lists: ListTypes,
    columns: Vec<Value>,
    scale: Value,
    defaults: bool,
}

impl Crd {
    /// Compiles one entry of a CRD's `spec.versions` in which [`definition_errors`] finds nothing wrong. A rule that does
    /// not compile all the same is an error of every object.
    pub fn compile(version: &Value) -> Self {
        let nothing = Value::Null;
        let source = version.pointer("/schema/openAPIV3Schema").unwrap_or(&nothing);
        let status = version.pointer("/subresources/status").is_some();
        let columns = version.get("additionalPrinterColumns").and_then(Value::as_array);
        let schema = Schema::compile(source);
        Self(Arc::new(Compiled {
            defaults: schema.has_defaults(),
            schema,
            lists: ListTypes::from_schema(source, status),
            columns: columns.cloned().unwrap_or_default(),
            scale: version.pointer("/subresources/scale").cloned().unwrap_or_default(),
        }))
    }

    /// Whether there is a default, or a null may have to go.
    pub fn has_defaults(&self) -> bool {
        self.0.defaults
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
        let compiled = &self.0;
        let mut errors = validation::validate(&compiled.schema, new, old);
        errors.extend(whole::scale(&compiled.scale, new));
        whole::embedded(&compiled.schema, new, "", &mut errors);
        let mut before = Vec::new();
        if let Some(old) = old {
            whole::repeated(&compiled.schema, old, "", &mut before);
        }
        if before.is_empty() {
            whole::repeated(&compiled.schema, new, "", &mut errors);
        }
        if !compiled.schema.has_rules() {
            return errors;
        }
        if errors.iter().any(hides_more) {
            let message = "Invalid value: null: some validation rules were not checked because the object was invalid; \
                correct the existing errors to complete validation";
            errors.push(FieldError::new(NIL, Reason::Invalid, message));
        } else {
            errors.extend(rules::validate(&compiled.schema, new, old));
        }
        errors
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

/// Whether rules may not rely on the object because of the error.
fn hides_more(error: &FieldError) -> bool {
    use Reason::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(error.reason, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

#[cfg(test)]
mod tests;
