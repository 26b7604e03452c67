//! The keywords and extensions of a schema, place by place: which may be used where, and whether the CEL rules compile.

use serde_json::Value;

use super::structural::{alternatives, invalid, properties, says, there};
use super::structure::{Additional, Schema, text, texts};
use crate::machinery::FieldError;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const REASONS: &[&str] = &[
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];
const UNSUPPORTED: &[&str] = &[
    "id",
    "additionalItems",
    "patternProperties",
    "definitions",
    "dependencies",
    "$ref",
];

/// What the places above say about one.
#[derive(Clone)]
struct Above {
    /// Why there may be no default.
    no_default: Option<String>,
    in_metadata: bool,
    /// The nearest place above whose values before and after cannot be matched.
    unmatched: Option<String>,
    root: bool,
}

/// What is wrong: the schema first, then the rules.
#[derive(Default)]
struct Found {
    schema: Vec<FieldError>,
    rules: Vec<FieldError>,
}

/// Checks the whole schema; rules too where it was `compiled`.
pub(super) fn check(schema: &Value, compiled: Option<&Schema>, at: &str) -> Vec<FieldError> {
    let above = Above {
        no_default: None,
        in_metadata: false,
        unmatched: None,
        root: true,
    };
    let mut found = place(schema, compiled, &above, at);
    found.schema.append(&mut found.rules);
    found.schema
}

impl Found {
    fn add(&mut self, mut other: Self) {
        self.schema.append(&mut other.schema);
        self.rules.append(&mut other.rules);
    }
}

fn place(node: &Value, compiled: Option<&Schema>, above: &Above, at: &str) -> Found {
    let mut found = Found::default();
    keywords(node, above, at, &mut found.schema);
    if says(node, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        found
            .schema
            .push(FieldError::forbidden(format!("{at}.uniqueItems"), detail));
    }
    below(node, compiled, above, at, &mut found);
    types_of_extensions(node, at, &mut found.schema);
    lists(node, at, &mut found.schema);
    for (i, rule) in alternatives(node, "x-kubernetes-validations") {
        spelling(
            rule,
            node,
            &format!("{at}.x-kubernetes-validations[{i}]"),
            &mut found.schema,
        );
    }
    if found.schema.is_empty()
        && let Some(compiled) = compiled
    {
        for (i, rule) in compiled.rules.iter().enumerate() {
            let at = format!("{at}.x-kubernetes-validations[{i}]");
            rule.problems(&at, above.unmatched.as_deref(), &mut found.rules);
        }
    }
    found
}

fn keywords(node: &Value, above: &Above, at: &str, errors: &mut Vec<FieldError>) {
    let kind = text(node, "type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        let names: Vec<String> = TYPES.iter().map(|name| format!("{name:?}")).collect();
        errors.push(FieldError::unsupported(format!("{at}.type"), &kind.into(), &names));
    }
    if there(node, "default").is_some()
        && let Some(why) = &above.no_default
    {
        let detail = format!("must not be set {why}");
        errors.push(FieldError::forbidden(format!("{at}.default"), &detail));
    }
    for keyword in UNSUPPORTED.iter().filter(|keyword| says(node, keyword)) {
        let detail = format!("{keyword} is not supported");
        errors.push(FieldError::forbidden(format!("{at}.{keyword}"), &detail));
    }
    if kind == "null" {
        let detail = "type cannot be set to null, use nullable as an alternative";
        errors.push(FieldError::forbidden(format!("{at}.type"), detail));
    }
    if node.get("items").is_some_and(Value::is_array) {
        let detail = "items must be a schema object and not an array";
        errors.push(FieldError::forbidden(format!("{at}.items"), detail));
    }
    if above.in_metadata && says(node, "x-kubernetes-embedded-resource") {
        let detail = "must not be used inside of resource meta";
        errors.push(FieldError::forbidden(
            format!("{at}.x-kubernetes-embedded-resource"),
            detail,
        ));
    }
}

fn below(node: &Value, compiled: Option<&Schema>, above: &Above, at: &str, found: &mut Found) {
    let inner = Above {
        root: false,
        ..above.clone()
    };
    if let Some(rest) = there(node, "additionalProperties") {
        let at = format!("{at}.additionalProperties");
        if says(node, "properties") {
            let detail = "additionalProperties and properties are mutual exclusive";
            if *rest != Value::Bool(true) {
                found.schema.push(FieldError::forbidden(at.clone(), detail));
            }
        }
        let mut inner = inner.clone();
        if inner.in_metadata {
            inner.no_default = Some("inside additionalProperties applying to object metadata".into());
        }
        let compiled = compiled.and_then(|schema| match &schema.additional {
            Additional::Schema(schema) => Some(&**schema),
            _ => None,
        });
        if rest.is_object() {
            found.add(place(rest, compiled, &inner, &at));
        }
    }
    for (name, child) in properties(node) {
        let mut inner = inner.clone();
        let embedded = says(node, "x-kubernetes-embedded-resource");
        if (above.root || embedded) && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
            inner.in_metadata = true;
            if above.root {
                inner.no_default = Some(format!("in top-level {name}"));
            }
        }
        let compiled = compiled.and_then(|schema| schema.properties.get(name));
        found.add(place(child, compiled, &inner, &format!("{at}.properties[{name}]")));
    }
    if let Some(not) = node.get("not").filter(|not| not.is_object()) {
        found.add(place(not, None, &inner, &format!("{at}.not")));
    }
    for keyword in ["allOf", "oneOf", "anyOf"] {
        for (i, child) in alternatives(node, keyword) {
            found.add(place(child, None, &inner, &format!("{at}.{keyword}[{i}]")));
        }
    }
    if let Some(items) = node.get("items").filter(|items| items.is_object()) {
        let mut inner = inner.clone();
        if text(node, "x-kubernetes-list-type") != "map" {
            inner.unmatched.get_or_insert_with(|| at.to_owned());
        }
        let compiled = compiled.and_then(|schema| schema.items.as_deref());
        found.add(place(items, compiled, &inner, &format!("{at}.items")));
    }
}

fn quoted(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{name:?}")).collect()
}

fn types_of_extensions(node: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if node.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let field = format!("{at}.x-kubernetes-preserve-unknown-fields");
        errors.push(invalid(field, &false.into(), "must be true or undefined"));
    }
    let kind = text(node, "type");
    for (extension, wanted, known) in [
        ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
        ("x-kubernetes-list-type", "array", &["atomic", "set", "map"][..]),
    ] {
        let Some(given) = there(node, extension) else { continue };
        if kind != wanted {
            let detail = format!("must be {wanted} if {extension} is specified");
            errors.push(if kind.is_empty() {
                FieldError::required(format!("{at}.type"), &detail)
            } else {
                invalid(format!("{at}.type"), &kind.into(), &detail)
            });
        } else if extension == "x-kubernetes-list-type" && given == "set" {
            set_items(node, at, errors);
        }
        if !given.as_str().is_some_and(|given| known.contains(&given)) {
            errors.push(FieldError::unsupported(
                format!("{at}.{extension}"),
                given,
                &quoted(known),
            ));
        }
    }
}

fn set_items(node: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let Some(items) = node.get("items") else { return };
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let list = there(items, "x-kubernetes-list-type").unwrap_or(&Value::Null);
    match text(items, "type") {
        "array" if !list.is_null() && list != "atomic" => {
            errors.push(invalid(format!("{at}.items.x-kubernetes-list-type"), list, detail));
        }
        "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
            errors.push(invalid(format!("{at}.items.x-kubernetes-map-type"), list, detail));
        }
        _ => {}
    }
}

fn lists(node: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let keys = texts(node, "x-kubernetes-list-map-keys");
    let (type_at, keys_at) = (
        format!("{at}.x-kubernetes-list-type"),
        format!("{at}.x-kubernetes-list-map-keys"),
    );
    let list = text(node, "x-kubernetes-list-type");
    if !keys.is_empty() && list != "map" {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(if list.is_empty() {
            FieldError::required(type_at, detail)
        } else {
            invalid(type_at, &list.into(), detail)
        });
    }
    let items = node.get("items").unwrap_or(&Value::Null);
    if list == "map" {
        if keys.is_empty() {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            errors.push(FieldError::required(keys_at.clone(), detail));
        }
        if items.is_null() {
            let detail = "must have a schema if x-kubernetes-list-type is map";
            errors.push(FieldError::required(format!("{at}.items"), detail));
        } else if text(items, "type") != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            errors.push(invalid(format!("{at}.items.type"), &text(items, "type").into(), detail));
        } else {
            key_fields(items, &keys, (at, &keys_at), errors);
        }
    }
    if matches!(list, "map" | "set") && says(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list}");
        errors.push(FieldError::forbidden(format!("{at}.items.nullable"), &detail));
    }
    if list == "map" {
        required_keys(items, &keys, at, errors);
    }
}

fn key_fields(items: &Value, keys: &[String], (at, keys_at): (&str, &str), errors: &mut Vec<FieldError>) {
    let shown = Value::from(keys.to_vec());
    for (i, key) in keys.iter().enumerate() {
        match items.get("properties").and_then(|all| all.get(key)) {
            Some(field) if matches!(text(field, "type"), "array" | "object") => {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                let field = format!("{at}.items.properties[{key}].type");
                errors.push(invalid(field, &text(items, "type").into(), detail));
            }
            Some(_) => {}
            None => errors.push(invalid(
                keys_at.into(),
                &shown,
                "entries must all be names of item properties",
            )),
        }
        if keys[..i].contains(key) {
            errors.push(invalid(keys_at.into(), &shown, "must not contain duplicate entries"));
        }
    }
}

fn required_keys(items: &Value, keys: &[String], at: &str, errors: &mut Vec<FieldError>) {
    let required = texts(items, "required");
    for key in keys {
        let Some(field) = items.get("properties").and_then(|all| all.get(key)) else {
            continue;
        };
        let (at, said) = (
            format!("{at}.items.properties[{key}]"),
            "this property is in x-kubernetes-list-map-keys, so it",
        );
        if !required.contains(key) && there(field, "default").is_none() {
            let detail = format!("{said} must have a default or be a required property");
            errors.push(FieldError::required(format!("{at}.default"), &detail));
        }
        if says(field, "nullable") {
            let detail = format!("{said} cannot be nullable");
            errors.push(FieldError::forbidden(format!("{at}.nullable"), &detail));
        }
    }
}

/// How a rule is written, but for its expressions.
fn spelling(rule: &Value, node: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let given = |name: &str| text(rule, name).to_owned();
    let (source, message, path) = (given("rule"), given("message"), given("fieldPath"));
    let breaks = |text: &str| text.trim().contains(['\n', '\r']);
    if source.trim().is_empty() {
        errors.push(FieldError::required(format!("{at}.rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        let detail = "must be non-empty if specified";
        errors.push(invalid(format!("{at}.message"), &message.into(), detail));
    } else if breaks(&message) {
        errors.push(invalid(
            format!("{at}.message"),
            &message.into(),
            "must not contain line breaks",
        ));
    } else if breaks(&source) && message.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(format!("{at}.message"), detail));
    }
    let expression = given("messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(format!("{at}.messageExpression"), detail));
    }
    let reason = given("reason");
    if !reason.is_empty() && !REASONS.contains(&reason.as_str()) {
        let field = format!("{at}.reason");
        errors.push(FieldError::unsupported(field, &reason.into(), &quoted(REASONS)));
    }
    if !path.is_empty() {
        let field = format!("{at}.fieldPath");
        if path.trim().is_empty() {
            let detail = "must be non-empty if specified";
            errors.push(invalid(field.clone(), &path.clone().into(), detail));
        }
        if path.contains(['\n', '\r']) {
            let detail = "must not contain line breaks";
            errors.push(invalid(field.clone(), &path.clone().into(), detail));
        }
        if field_at(node, &path).is_err() {
            errors.push(invalid(field, &path.into(), "must be a valid path"));
        }
    }
}

/// The place that a path such as `.spec.a['b']` names, or why it names none.
pub(super) fn field_at<'v>(schema: &'v Value, path: &str) -> Result<&'v Value, &'static str> {
    let mut rest = path;
    let mut node = schema;
    while !rest.is_empty() {
        let (name, after) = if let Some(inner) = rest.strip_prefix("['") {
            inner.split_once("']").ok_or("unexpected end of JSON path")?
        } else {
            let inner = rest.strip_prefix('.').ok_or("expected [ or .")?;
            inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
        };
        let property = node.get("properties").and_then(|all| all.get(name));
        let rest_of_map = node.get("additionalProperties").filter(|inner| inner.is_object());
        node = property.or(rest_of_map).ok_or("does not refer to a valid field")?;
        rest = after;
    }
    Ok(node)
}
