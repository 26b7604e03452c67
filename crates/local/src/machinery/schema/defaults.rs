//! The defaults of a schema fit the schema that they are in, and have nothing that would be pruned.

use super::structure::Schema;
use super::{rules, validation, values};
use crate::machinery::FieldError;
use crate::machinery::schema::structural::invalid;

/// What is wrong with the defaults of a whole object's schema.
pub(super) fn check(schema: &Schema, at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(schema, at, &mut errors);
    errors
}

fn walk(schema: &Schema, at: &str, errors: &mut Vec<FieldError>) {
    if let Some(default) = schema.default.as_deref() {
        let field = format!("{at}.default");
        let mut pruned = default.clone();
        if !values::prune_value(schema, &mut pruned).is_empty() {
            errors.push(invalid(field.clone(), default, "must not have unknown fields"));
        }
        let mut found = validation::validate(schema, default, None);
        if found.is_empty() {
            found = rules::validate(schema, default, Some(default));
        }
        errors.extend(found.into_iter().map(|error| FieldError {
            field: values::join(&field, &error.field).trim_end_matches('.').to_owned(),
            ..error
        }));
    }
    if let Some(items) = &schema.items {
        walk(items, &format!("{at}.items"), errors);
    }
    for (name, property) in schema.properties.iter() {
        walk(property, &format!("{at}.properties[{name}]"), errors);
    }
}
