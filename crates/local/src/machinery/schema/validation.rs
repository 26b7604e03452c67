//! Checking a value against a schema, in the words of a Kubernetes API server.
//!
//! What was not valid before, and did not change, stays valid (Kubernetes calls it ratcheting).

use serde_json::Value;

use super::structure::{Additional, Limits, Schema, Type};
use super::values::{earlier, join};
use super::{NIL, formats};
use crate::machinery::{FieldError, Reason};

/// Everything that is wrong with a whole object that takes the place of `old`.
pub(super) fn validate(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    check(schema, object, old, "").errors
}

/// What is wrong with a value, and how much of it was looked at: of several alternatives none of which holds, the errors of
/// the one that went furthest are said.
#[derive(Default)]
struct Checked {
    errors: Vec<FieldError>,
    looked: usize,
}

impl Checked {
    fn add(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.looked += other.looked;
    }

    fn invalid(&mut self, at: &str, value: &Value, detail: &str) {
        let detail = format!("{} {detail}", in_body(at));
        self.errors.push(FieldError::invalid(at, value, &detail));
    }

    /// An error that does not say its place but in words.
    fn says(&mut self, message: &str) {
        let message = format!("Invalid value: \"\": {message}");
        self.errors.push(FieldError::new(NIL, Reason::Invalid, message));
    }
}

/// A place whose value before is known as `old`.
fn check(schema: &Schema, value: &Value, old: Option<&Value>, at: &str) -> Checked {
    let mut checked = check_new(schema, value, old, at);
    if !checked.errors.is_empty() && old == Some(value) {
        checked.errors.clear();
    }
    checked
}

fn check_new(schema: &Schema, value: &Value, old: Option<&Value>, at: &str) -> Checked {
    let mut checked = Checked {
        errors: Vec::new(),
        looked: 3,
    };
    let typed = schema.kind.is_some() || schema.int_or_string;
    match wrong_type(schema, value, at) {
        Some(error) => checked.errors.push(error),
        None => checked.looked += 2 * usize::from(typed),
    }
    if value.is_null() {
        enumerated(schema.limits(), value, at, &mut checked);
        return checked;
    }
    alternatives(schema, value, old, at, &mut checked);
    match value {
        Value::String(text) => check_text(schema, text, value, at, &mut checked),
        Value::Number(_) => check_number(schema, value, at, &mut checked),
        Value::Array(items) => check_items(schema, items, old, at, &mut checked),
        _ => {}
    }
    enumerated(schema.limits(), value, at, &mut checked);
    if value.is_object() {
        check_fields(schema, value, old, at, &mut checked);
    }
    checked
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn wrong_type(schema: &Schema, value: &Value, at: &str) -> Option<FieldError> {
    let (found, format) = match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    };
    let wanted = if schema.int_or_string {
        "integer,string"
    } else {
        schema.kind.map_or("", Type::name)
    };
    let numeric = matches!(schema.kind, Some(Type::Integer | Type::Number)) || schema.int_or_string;
    let fits = match value {
        Value::Null => schema.nullable || wanted.is_empty(),
        Value::String(_) | Value::Array(_) if !numeric && formats::is_known(&schema.limits().format) => true,
        Value::Number(_) if is_integer(value) && wanted == "integer,string" => true,
        Value::Number(_) if is_integer(value) => matches!(schema.kind, None | Some(Type::Integer | Type::Number)),
        Value::String(_) if wanted == "integer,string" => true,
        _ => wanted.is_empty() || wanted == found,
    };
    if fits {
        return None;
    }
    let (wanted, found) = match value {
        Value::Bool(_) | Value::Number(_) | Value::Object(_) if formats::is_known(&schema.limits().format) => {
            (schema.limits().format.as_deref().unwrap_or_default(), format)
        }
        _ => (wanted, found),
    };
    let message = format!(
        "Invalid value: {found:?}: {} must be of type {wanted}: {found:?}",
        in_body(at)
    );
    Some(FieldError::new(at, Reason::TypeInvalid, message))
}

/// How messages name a place inside the request's body.
fn in_body(at: &str) -> String {
    format!("{at} in body")
}

fn check_text(schema: &Schema, text: &str, value: &Value, at: &str, checked: &mut Checked) {
    checked.looked += 1;
    let limits = schema.limits();
    let length = text.chars().count() as u64;
    if let Some(most) = limits.max_length.filter(|most| length > *most) {
        let message = format!("Too long: may not be more than {most} bytes");
        checked.errors.push(FieldError::new(at, Reason::TooLong, message));
    } else if let Some(least) = limits.min_length.filter(|least| length < *least) {
        checked.invalid(at, value, &format!("should be at least {least} chars long"));
    } else if let Some(pattern) = limits.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        checked.invalid(at, value, &format!("should match '{pattern}'"));
    }
    if let Some(format) = limits.format.as_deref().filter(|format| !formats::fits(text, format)) {
        let message = format!(
            "Invalid value: {value}: {} must be of type {format}: {value}",
            in_body(at)
        );
        checked.errors.push(FieldError::new(at, Reason::TypeInvalid, message));
    }
}

fn check_number(schema: &Schema, value: &Value, at: &str, checked: &mut Checked) {
    checked.looked += 2;
    let limits = schema.limits();
    let format = limits.format.as_deref().unwrap_or_default();
    if schema.kind == Some(Type::Integer) {
        let fits = match format {
            "int32" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            _ => is_integer(value),
        };
        if !fits {
            let words = match format {
                "int32" | "int64" => format!("with format {format}"),
                _ => "(default format)".into(),
            };
            checked.says(&format!("Checked value must be of type integer {words} in {at}"));
        }
    }
    let number = value.as_f64().unwrap_or(f64::NAN);
    // Bounds of whole numbers are whole.
    let bound = |bound: f64| if value.is_f64() { bound } else { bound.trunc() };
    if let Some(factor) = limits.multiple_of.map(bound) {
        let times = if factor < 1.0 {
            1.0 / factor * number
        } else {
            number / factor
        };
        if factor <= 0.0 {
            let detail = format!("factor MultipleOf declared for {at} must be positive: {factor}");
            checked.errors.push(FieldError::new(
                at,
                Reason::Invalid,
                format!("Invalid value: {factor}: {detail}"),
            ));
        } else if (times - times.round()).abs() > 1e-9 {
            checked.invalid(at, value, &format!("should be a multiple of {factor}"));
        }
    }
    if let Some(least) = limits.minimum.map(bound) {
        if limits.exclusive_minimum && number <= least {
            checked.invalid(at, value, &format!("should be greater than {least}"));
        } else if number < least {
            checked.invalid(at, value, &format!("should be greater than or equal to {least}"));
        }
    }
    if let Some(most) = limits.maximum.map(bound) {
        if limits.exclusive_maximum && number >= most {
            checked.invalid(at, value, &format!("should be less than {most}"));
        } else if number > most {
            checked.invalid(at, value, &format!("should be less than or equal to {most}"));
        }
    }
}

fn enumerated(limits: &Limits, value: &Value, at: &str, checked: &mut Checked) {
    if let Some(allowed) = limits.allowed.as_ref().filter(|allowed| !allowed.contains(value)) {
        let name = |allowed: &Value| match allowed {
            Value::String(text) => format!("{text:?}"),
            other => format!("{:?}", other.to_string()),
        };
        let names: Vec<String> = allowed.iter().map(name).collect();
        checked.errors.push(FieldError::unsupported(at, value, &names));
    }
}

fn too_many(count: u64, most: u64, at: &str) -> FieldError {
    let message = format!("Too many: {count}: must have at most {most} items");
    FieldError::new(at, Reason::TooMany, message)
}

fn check_items(schema: &Schema, items: &[Value], old: Option<&Value>, at: &str, checked: &mut Checked) {
    checked.looked += 1;
    for (i, item) in items.iter().enumerate() {
        if let Some(inner) = &schema.items {
            checked.add(check(inner, item, earlier(schema, item, old), &format!("{at}[{i}]")));
        }
    }
    let count = items.len() as u64;
    if let Some(least) = schema.limits().min_items.filter(|least| count < *least) {
        checked.invalid(at, &count.into(), &format!("should have at least {least} items"));
    }
    if let Some(most) = schema.limits().max_items.filter(|most| count > *most) {
        checked.errors.push(too_many(count, most, at));
    }
}

fn check_fields(schema: &Schema, value: &Value, old: Option<&Value>, at: &str, checked: &mut Checked) {
    checked.looked += 1;
    let Some(map) = value.as_object() else { return };
    let count = map.len() as u64;
    if let Some(least) = schema.limits().min_properties.filter(|least| count < *least) {
        checked.invalid(at, &count.into(), &format!("should have at least {least} properties"));
    }
    if let Some(most) = schema.limits().max_properties.filter(|most| count > *most) {
        checked.errors.push(too_many(count, most, at));
    }
    for (name, child) in map {
        let inner = match (schema.properties.get(name), &schema.additional) {
            (Some(property), _) => property,
            (None, Additional::Schema(inner)) => inner,
            _ => continue,
        };
        let old = old.and_then(|old| old.get(name));
        checked.add(check(inner, child, old, &join(at, name)));
    }
    for name in schema.limits().required.iter().filter(|name| !map.contains_key(*name)) {
        checked.errors.push(FieldError::required(join(at, name), ""));
    }
}

fn alternatives(schema: &Schema, value: &Value, old: Option<&Value>, at: &str, checked: &mut Checked) {
    let Some(schema) = schema.alternatives() else { return };
    let all =
        |inner: &[Schema]| -> Vec<Checked> { inner.iter().map(|inner| check_new(inner, value, old, at)).collect() };
    let holds = |inner: &Checked| inner.errors.is_empty();
    // Of equals the first.
    let furthest = |tried: Vec<Checked>| tried.into_iter().rev().max_by_key(|inner| inner.looked);
    let tried = all(&schema.any_of);
    if let Some(good) = tried.iter().find(|inner| holds(inner)) {
        checked.looked += good.looked;
    } else if !tried.is_empty() {
        checked.says(&format!("{at:?} must validate at least one schema (anyOf)"));
        checked.add(furthest(tried).unwrap_or_default());
    }
    let tried = all(&schema.one_of);
    let good = tried.iter().filter(|inner| holds(inner)).count();
    if good != 1 && !tried.is_empty() {
        let found = match good {
            0 => "Found none valid".to_owned(),
            many => format!("Found {many} valid alternatives"),
        };
        checked.says(&format!(
            "{at:?} must validate one and only one schema (oneOf). {found}"
        ));
        if good == 0 {
            checked.add(furthest(tried).unwrap_or_default());
        }
    }
    let tried = all(&schema.all_of);
    let (count, good) = (tried.len(), tried.iter().filter(|inner| holds(inner)).count());
    tried.into_iter().for_each(|inner| checked.add(inner));
    if good != count {
        let none = if good == 0 { ". None validated" } else { "" };
        checked.says(&format!("{at:?} must validate all the schemas (allOf){none}"));
    }
    let not = schema.not.as_ref();
    if not.is_some_and(|inner| holds(&check_new(inner, value, old, at))) {
        checked.says(&format!("{at:?} must not validate the schema (not)"));
    }
}
