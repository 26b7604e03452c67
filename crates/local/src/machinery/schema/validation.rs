//! Checking a value against a schema, in the words of a Kubernetes API server.

use std::collections::BTreeSet;

use serde_json::Value;

use super::structure::{Additional, Limits, ListKind, Schema, Type};
use super::values::join;
use crate::machinery::{FieldError, Reason};

/// Everything that is wrong with a whole object.
pub(super) fn validate(schema: &Schema, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(schema, object, "", &mut errors);
    errors
}

fn check(schema: &Schema, value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() && schema.nullable {
        return;
    }
    if !has_type(schema, value) {
        errors.push(wrong_type(schema, value, at));
        return;
    }
    check_scalar(&schema.limits, value, at, errors);
    match value {
        Value::Object(map) => {
            check_count(
                map.len(),
                (schema.limits.min_properties, schema.limits.max_properties),
                "properties",
                at,
                errors,
            );
            for name in schema.limits.required.iter().filter(|name| !map.contains_key(*name)) {
                errors.push(FieldError::required(join(at, name), ""));
            }
            for (name, child) in map {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(property), _) => check(property, child, &join(at, name), errors),
                    (None, Additional::Schema(inner)) => check(inner, child, &join(at, name), errors),
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            check_count(
                items.len(),
                (schema.limits.min_items, schema.limits.max_items),
                "items",
                at,
                errors,
            );
            check_distinct(schema, items, at, errors);
            for (i, item) in items.iter().enumerate() {
                if let Some(schema) = &schema.items {
                    check(schema, item, &format!("{at}[{i}]"), errors);
                }
            }
        }
        _ => {}
    }
    check_alternatives(schema, value, at, errors);
}

fn has_type(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || is_integer(value);
    }
    match schema.kind {
        None => true,
        Some(Type::Object) => value.is_object(),
        Some(Type::Array) => value.is_array(),
        Some(Type::String) => value.is_string(),
        Some(Type::Integer) => is_integer(value),
        Some(Type::Number) => value.is_number(),
        Some(Type::Boolean) => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn wrong_type(schema: &Schema, value: &Value, at: &str) -> FieldError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = if schema.int_or_string {
        "integer,string"
    } else {
        schema.kind.map_or("", Type::name)
    };
    let message = format!(
        "Invalid value: {found:?}: {} must be of type {wanted}: {found:?}",
        in_body(at)
    );
    FieldError::new(at, Reason::TypeInvalid, message)
}

/// How messages name a place inside the request's body.
fn in_body(at: &str) -> String {
    if at.is_empty() {
        "the object".into()
    } else {
        format!("{at} in body")
    }
}

fn check_scalar(limits: &Limits, value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let mut invalid = |detail: String| {
        errors.push(FieldError::invalid(at, value, &format!("{} {detail}", in_body(at))));
    };
    if let Some(number) = value.as_f64() {
        if let Some(bound) = limits.minimum {
            if limits.exclusive_minimum && number <= bound {
                invalid(format!("should be greater than {bound}"));
            } else if number < bound {
                invalid(format!("should be greater than or equal to {bound}"));
            }
        }
        if let Some(bound) = limits.maximum {
            if limits.exclusive_maximum && number >= bound {
                invalid(format!("should be less than {bound}"));
            } else if number > bound {
                invalid(format!("should be less than or equal to {bound}"));
            }
        }
        if let Some(divisor) = limits.multiple_of
            && (number / divisor).fract() != 0.0
        {
            invalid(format!("should be a multiple of {divisor}"));
        }
        if limits.format.as_deref() == Some("int32") && i32::try_from(value.as_i64().unwrap_or(0)).is_err() {
            invalid("must be of type int32".into());
        }
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if limits.min_length.is_some_and(|least| length < least) {
            invalid(format!(
                "should be at least {} chars long",
                limits.min_length.unwrap_or(0)
            ));
        }
        if let Some(pattern) = limits.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            invalid(format!("should match '{pattern}'"));
        }
        if let Some(format) = limits.format.as_deref().filter(|format| !has_format(text, format)) {
            invalid(format!("must be of type {format}: {text:?}"));
        }
        if let Some(most) = limits.max_length.filter(|most| length > *most) {
            let message = format!("Too long: may not be more than {most} characters");
            errors.push(FieldError::new(at, Reason::TooLong, message));
        }
    }
    if let Some(allowed) = limits.allowed.as_ref().filter(|allowed| !allowed.contains(value)) {
        let names: Vec<String> = allowed.iter().map(Value::to_string).collect();
        errors.push(FieldError::unsupported(at, value, &names));
    }
}

/// Whether a text has a format; formats that are not known say nothing.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "uuid" => text.parse::<uuid::Uuid>().is_ok(),
        "duration" => super::rules::is_duration(text),
        _ => true,
    }
}

fn check_count(
    count: usize,
    (least, most): (Option<u64>, Option<u64>),
    what: &str,
    at: &str,
    errors: &mut Vec<FieldError>,
) {
    let count = count as u64;
    if let Some(least) = least.filter(|least| count < *least) {
        let detail = format!("{} should have at least {least} {what}", in_body(at));
        errors.push(FieldError::invalid(at, &Value::from(count), &detail));
    }
    if let Some(most) = most.filter(|most| count > *most) {
        let message = format!("Too many: {count}: must have at most {most} {what}");
        errors.push(FieldError::new(at, Reason::TooMany, message));
    }
}

fn check_distinct(schema: &Schema, items: &[Value], at: &str, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let identity = match &schema.list {
            ListKind::Map(keys) => {
                let values = keys
                    .iter()
                    .map(|key| (key.clone(), item.get(key).cloned().unwrap_or_default()));
                Value::Object(values.collect())
            }
            ListKind::Set => item.clone(),
            ListKind::Atomic if schema.limits.unique_items => item.clone(),
            ListKind::Atomic => return,
        };
        let text = identity.to_string();
        if !seen.insert(text.clone()) {
            let message = format!("Duplicate value: {text}");
            errors.push(FieldError::new(format!("{at}[{i}]"), Reason::Duplicate, message));
        }
    }
}

fn check_alternatives(schema: &Schema, value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let matches = |inner: &Schema| {
        let mut errors = Vec::new();
        check(inner, value, at, &mut errors);
        errors.is_empty()
    };
    for inner in &schema.all_of {
        check(inner, value, at, errors);
    }
    let mut invalid = |detail: &str| {
        errors.push(FieldError::invalid(at, value, &format!("{} {detail}", in_body(at))));
    };
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(matches) {
        invalid("must validate at least one schema (anyOf)");
    }
    if !schema.one_of.is_empty() && schema.one_of.iter().filter(|inner| matches(inner)).count() != 1 {
        invalid("must validate one and only one schema (oneOf)");
    }
    if schema.not.as_deref().is_some_and(matches) {
        invalid("must not validate the schema (not)");
    }
}
