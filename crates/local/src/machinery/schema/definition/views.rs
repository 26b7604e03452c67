//! What a definition says of how its objects are seen: subresources, columns, fields to select by.

use std::collections::BTreeSet;

use serde_json::Value;

use super::list;
use crate::machinery::schema::keywords::field_at;
use crate::machinery::schema::structural::invalid;
use crate::machinery::schema::structure::text;
use crate::machinery::{FieldError, Reason};

/// The most fields that objects can be selected by.
const SELECTABLE: usize = 8;

/// What a path must be that is no JSONPath but a row of names.
fn simple_path(path: &str, field: &str, errors: &mut Vec<FieldError>) -> bool {
    if path.starts_with('.') {
        return true;
    }
    errors.push(invalid(
        field.into(),
        &path.into(),
        "must be a simple json path starting with .",
    ));
    false
}

pub(super) fn subresources(holder: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let Some(scale) = holder.pointer("/subresources/scale") else {
        return;
    };
    for (name, roots, words) in [
        ("specReplicasPath", &[".spec."][..], "under .spec"),
        ("statusReplicasPath", &[".status."][..], "under .status"),
        (
            "labelSelectorPath",
            &[".spec.", ".status."][..],
            "under either .spec or .status",
        ),
    ] {
        let field = format!("{at}.subresources.scale.{name}");
        let path = text(scale, name);
        if path.is_empty() {
            if name != "labelSelectorPath" {
                errors.push(FieldError::required(field, ""));
            }
        } else if simple_path(path, &field, errors) && !roots.iter().any(|root| path.starts_with(root)) {
            errors.push(invalid(field, &path.into(), &format!("should be a json path {words}")));
        }
    }
}

pub(super) fn columns(holder: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (i, column) in list(holder, "additionalPrinterColumns").iter().enumerate() {
        let at = format!("{at}.additionalPrinterColumns[{i}]");
        let (name, kind, format, path) = (
            text(column, "name"),
            text(column, "type"),
            text(column, "format"),
            text(column, "jsonPath"),
        );
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        }
        let detail = "must be one of boolean,date,integer,number,string";
        if kind.is_empty() {
            errors.push(FieldError::required(format!("{at}.type"), detail));
        } else if !["boolean", "date", "integer", "number", "string"].contains(&kind) {
            errors.push(invalid(format!("{at}.type"), &kind.into(), detail));
        }
        let formats = [
            "byte",
            "date",
            "date-time",
            "double",
            "float",
            "int32",
            "int64",
            "password",
        ];
        if !format.is_empty() && !formats.contains(&format) {
            let detail = format!("must be one of {}", formats.join(","));
            errors.push(invalid(format!("{at}.format"), &format.into(), &detail));
        }
        let field = format!("{at}.JSONPath");
        if path.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else {
            simple_path(path, &field, errors);
        }
    }
}

pub(super) fn selectable(holder: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let schema = holder.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
    let at = format!("{at}.selectableFields");
    let mut seen = BTreeSet::new();
    for (i, field) in list(holder, "selectableFields").iter().enumerate() {
        let (path, field) = (text(field, "jsonPath"), format!("{at}[{i}].jsonPath"));
        if path.is_empty() {
            errors.push(FieldError::required(field, ""));
            continue;
        }
        let found = match path.contains('[') {
            true => Err("array notation is not allowed"),
            false => field_at(schema, path),
        };
        let found = match found {
            Ok(found) => found,
            Err(why) => {
                errors.push(invalid(field, &path.into(), &format!("is an invalid path: {why}")));
                continue;
            }
        };
        if path.starts_with(".metadata") {
            errors.push(invalid(
                field.clone(),
                &path.into(),
                "must not point to fields in metadata",
            ));
        }
        if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                formats are allowed.";
            errors.push(invalid(field.clone(), &path.into(), detail));
        }
        if !seen.insert(path) {
            errors.push(FieldError::duplicate(field, &path.into()));
        }
    }
    if seen.len() > SELECTABLE {
        let message = format!("Too many: {}: must have at most {SELECTABLE} items", seen.len());
        errors.push(FieldError::new(at, Reason::TooMany, message));
    }
}
