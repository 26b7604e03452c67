//! What a schema must be like itself: structural, so that pruning and defaults are certain.
//!
//! Every place says its type outside of the alternatives (`allOf`, `anyOf`, `oneOf`, `not`), which only narrow values.

use serde_json::{Map, Value};

use super::structure::text;
use crate::machinery::{FieldError, Reason};

/// Where a place is, which its messages depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Keywords of JSON Schema that make a schema none that could be structural, in the order in which they are said.
const UNSUPPORTED: &[&str] = &[
    "id",
    "$schema",
    "$ref",
    "patternProperties",
    "dependencies",
    "additionalItems",
    "definitions",
];

/// What an alternative must not have, why, and in which order that is said.
const NOT_IN_ALTERNATIVES: &[(&str, &str)] = &[
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

/// Whether a keyword says anything: null, false, and what is empty do not.
pub(super) fn says(node: &Value, keyword: &str) -> bool {
    match node.get(keyword) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty() || matches!(keyword, "default" | "additionalItems"),
        Some(_) => true,
    }
}

/// Whether a keyword is there, even if it says nothing.
pub(super) fn there<'v>(node: &'v Value, keyword: &str) -> Option<&'v Value> {
    node.get(keyword).filter(|value| !value.is_null())
}

pub(super) fn properties(node: &Value) -> impl Iterator<Item = (&String, &Value)> {
    node.get("properties").and_then(Value::as_object).into_iter().flatten()
}

pub(super) fn alternatives<'v>(node: &'v Value, keyword: &str) -> impl Iterator<Item = (usize, &'v Value)> {
    let list = node.get(keyword).and_then(Value::as_array);
    list.into_iter().flatten().enumerate()
}

/// An error that shows a value as JSON, as the errors of definitions do.
pub(super) fn invalid(field: String, value: &Value, detail: &str) -> FieldError {
    FieldError::new(field, Reason::Invalid, format!("Invalid value: {value}: {detail}"))
}

/// Why a schema cannot even be read as a structural one.
pub(super) fn unreadable(node: &Value) -> Option<String> {
    if let Some(keyword) = UNSUPPORTED.iter().find(|keyword| says(node, keyword)) {
        let keyword = keyword.strip_prefix("$s").map_or(*keyword, |_| "schema");
        return Some(format!("OpenAPIV3Schema '{keyword}' is not supported"));
    }
    if node.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        return Some("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".into());
    }
    children(node).find_map(unreadable)
}

/// Every schema inside of one.
pub(super) fn children(node: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["allOf", "anyOf", "oneOf"].into_iter();
    let inner = lists.flat_map(|keyword| alternatives(node, keyword).map(|(_, child)| child));
    let single = ["not", "items", "additionalProperties"]
        .into_iter()
        .filter_map(|keyword| node.get(keyword));
    inner.chain(single).chain(properties(node).map(|(_, child)| child))
}

/// What keeps a schema from being structural, in the order in which Kubernetes says it.
pub(super) fn check(schema: &Value, at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    place(schema, Level::Root, at, &mut errors);
    complete(schema, (schema, at), at, &mut errors);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

fn place(node: &Value, level: Level, at: &str, errors: &mut Vec<FieldError>) {
    let kind = text(node, "type");
    let embedded = says(node, "x-kubernetes-embedded-resource");
    match node.get("items").filter(|items| items.is_object()) {
        Some(items) => place(items, Level::Item, &format!("{at}.items"), errors),
        None if kind == "array" => errors.push(FieldError::required(format!("{at}.items"), "must be specified")),
        None => {}
    }
    for (name, child) in properties(node) {
        place(child, Level::Field, &format!("{at}.properties[{name}]"), errors);
    }
    if let Some(rest) = there(node, "additionalProperties") {
        let at = format!("{at}.additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(at.clone(), "must not be used at the root"));
        }
        if rest.is_object() {
            place(rest, Level::Field, &at, errors);
        }
        if embedded {
            errors.push(FieldError::forbidden(
                at,
                "must not be used if x-kubernetes-embedded-resource is set",
            ));
        }
    }
    extensions(node, at, errors);
    let either = is_int_or_string(node);
    let first = alternatives(node, "allOf")
        .next()
        .is_some_and(|(_, first)| is_int_or_string(first));
    values(node, (either, first), at, errors);
    place_type(node, level, at, errors);
    if level == Level::Root || embedded {
        identity(node, at, errors);
    }
    if level == Level::Root
        && let Some(metadata) = node.pointer("/properties/metadata")
    {
        only_names(metadata, &format!("{at}.properties[metadata]"), errors);
    }
    if embedded && !says(node, "x-kubernetes-preserve-unknown-fields") && !says(node, "properties") {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(format!("{at}.properties"), detail));
    }
}

fn place_type(node: &Value, level: Level, at: &str, errors: &mut Vec<FieldError>) {
    let (kind, field) = (text(node, "type"), format!("{at}.type"));
    let free = says(node, "x-kubernetes-int-or-string") || says(node, "x-kubernetes-preserve-unknown-fields");
    if says(node, "x-kubernetes-embedded-resource") && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() {
            FieldError::required(field.clone(), detail)
        } else {
            invalid(field.clone(), &kind.into(), detail)
        });
    } else if kind.is_empty() && !free {
        let place = match level {
            Level::Root => "at the root",
            Level::Item => "for specified array items",
            Level::Field => "for specified object fields",
        };
        errors.push(FieldError::required(
            field.clone(),
            &format!("must not be empty {place}"),
        ));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(invalid(field, &kind.into(), "must be object at the root"));
    }
}

fn extensions(node: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if says(node, "x-kubernetes-int-or-string") {
        for other in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if says(node, other) {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                errors.push(invalid(format!("{at}.{other}"), &true.into(), detail));
            }
        }
    }
}

/// The types of what every object has.
fn identity(node: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (name, wanted) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        if let Some(property) = node.pointer(&format!("/properties/{name}")) {
            let kind = text(property, "type");
            if kind != wanted {
                let field = format!("{at}.properties[{name}].type");
                errors.push(invalid(field, &kind.into(), &format!("must be {wanted}")));
            }
        }
    }
}

fn only_names(metadata: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let named = |name: &String| matches!(name.as_str(), "name" | "generateName");
    let fields = properties(metadata).all(|(name, _)| named(name));
    let empty = Map::new();
    let keywords = metadata.as_object().unwrap_or(&empty).keys();
    let bare = keywords.filter(|keyword| says(metadata, keyword));
    let bare = bare
        .into_iter()
        .all(|keyword| matches!(keyword.as_str(), "type" | "default" | "properties"));
    if !fields || !bare {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(at, detail));
    }
}

fn is_int_or_string(node: &Value) -> bool {
    let kinds: Vec<&Value> = alternatives(node, "anyOf").map(|(_, child)| child).collect();
    let only =
        |node: &Value, kind: &str| node.as_object().is_some_and(|map| map.len() == 1) && text(node, "type") == kind;
    kinds.len() == 2 && only(kinds[0], "integer") && only(kinds[1], "string")
}

/// The alternatives of a place; `skip` says which are the two spellings of int-or-string, whose types are allowed.
fn values(node: &Value, skip: (bool, bool), at: &str, errors: &mut Vec<FieldError>) {
    for keyword in ["anyOf", "allOf", "oneOf"] {
        if keyword == "anyOf" && skip.0 {
            continue;
        }
        for (i, child) in alternatives(node, keyword) {
            let skip = keyword == "allOf" && i == 0 && skip.1;
            nested(child, skip, &format!("{at}.{keyword}[{i}]"), errors);
        }
    }
    if let Some(not) = node.get("not").filter(|not| not.is_object()) {
        nested(not, false, &format!("{at}.not"), errors);
    }
    let pattern = text(node, "pattern");
    if let Err(error) = regex::Regex::new(pattern) {
        let why = go_regex_error(pattern, &error);
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(invalid(format!("{at}.pattern"), &pattern.into(), &detail));
    }
}

/// The commonest mistake in the words of Kubernetes, others in those of this program's own library.
fn go_regex_error(pattern: &str, error: &regex::Error) -> String {
    if error.to_string().contains("unclosed group") {
        return format!("error parsing regexp: missing closing ): `{pattern}`");
    }
    error.to_string().lines().last().unwrap_or_default().to_owned()
}

fn nested(node: &Value, skip_any_of: bool, at: &str, errors: &mut Vec<FieldError>) {
    values(node, (skip_any_of, false), at, errors);
    if let Some(items) = node.get("items").filter(|items| items.is_object()) {
        nested(items, false, &format!("{at}.items"), errors);
    }
    for (name, child) in properties(node) {
        nested(child, false, &format!("{at}.properties[{name}]"), errors);
    }
    for (keyword, detail) in NOT_IN_ALTERNATIVES {
        let present = match *keyword {
            "additionalProperties" => node
                .get(*keyword)
                .is_some_and(|v| v.is_object() || *v == Value::Bool(true)),
            _ => says(node, keyword),
        };
        if present {
            errors.push(FieldError::forbidden(format!("{at}.{keyword}"), detail));
        }
    }
    if node.pointer("/properties/metadata").is_some() {
        let detail = "must not be specified in a nested context";
        errors.push(FieldError::forbidden(format!("{at}.properties[metadata]"), detail));
    }
}

/// What the alternatives of the whole object speak of is declared outside of them, at the same place (`declared`).
fn complete(node: &Value, declared: (&Value, &str), at: &str, errors: &mut Vec<FieldError>) {
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for (i, child) in alternatives(node, keyword) {
            narrowed(child, declared, &format!("{at}.{keyword}[{i}]"), errors);
        }
    }
    if let Some(not) = node.get("not").filter(|not| not.is_object()) {
        narrowed(not, declared, &format!("{at}.not"), errors);
    }
}

fn narrowed(node: &Value, declared: (&Value, &str), at: &str, errors: &mut Vec<FieldError>) {
    complete(node, declared, at, errors);
    let items = node.get("items").filter(|items| items.is_object());
    let items = items.map(|child| (child, "/items".to_owned(), ".items".to_owned()));
    let fields = properties(node).map(|(name, child)| {
        let pointer = name.replace('~', "~0").replace('/', "~1");
        (child, format!("/properties/{pointer}"), format!(".properties[{name}]"))
    });
    for (child, pointer, step) in items.into_iter().chain(fields) {
        let (there, here) = (format!("{}{step}", declared.1), format!("{at}{step}"));
        match declared.0.pointer(&pointer) {
            Some(inner) => narrowed(child, (inner, &there), &here, errors),
            None => errors.push(FieldError::required(there, &format!("because it is defined in {here}"))),
        }
    }
}
