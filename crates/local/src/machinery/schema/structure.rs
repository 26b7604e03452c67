//! A schema in compiled form.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::rules::Rule;
use crate::machinery::{FieldError, Reason};

/// The JSON types that OpenAPI names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [
            Self::Object,
            Self::Array,
            Self::String,
            Self::Integer,
            Self::Number,
            Self::Boolean,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}

/// What an object may have besides its `properties`.
#[derive(Debug, Default)]
pub(super) enum Additional {
    /// Nothing: it is pruned.
    #[default]
    None,
    /// Anything.
    Any,
    /// Values of this schema.
    Schema(Box<Schema>),
}

/// How the items of a list are told apart.
#[derive(Debug, Default, PartialEq)]
pub(super) enum ListKind {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What a value must satisfy besides its type.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) exclusive_minimum: bool,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,
    pub(super) unique_items: bool,
    pub(super) pattern: Option<Regex>,
    pub(super) format: Option<String>,
    pub(super) allowed: Option<Vec<Value>>,
    pub(super) required: Vec<String>,
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub(super) kind: Option<Type>,
    pub(super) nullable: bool,
    pub(super) int_or_string: bool,
    pub(super) preserve_unknown: bool,
    pub(super) embedded: bool,
    pub(super) default: Option<Value>,
    pub(super) properties: BTreeMap<String, Schema>,
    pub(super) additional: Additional,
    pub(super) items: Option<Box<Schema>>,
    pub(super) list: ListKind,
    pub(super) limits: Limits,
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,
    pub(super) rules: Vec<Rule>,
}

impl Schema {
    /// Compiles a node and all below it; what is wrong with them goes to `errors`.
    pub(super) fn compile(source: &Value, at: &str, errors: &mut Vec<FieldError>) -> Self {
        let mut schema = Self::compile_node(source, at, true, errors);
        schema.compile_rules(source, at, errors);
        schema
    }

    /// `structural` is false inside `allOf`, `anyOf`, `oneOf` and `not`, whose nodes need no type.
    fn compile_node(source: &Value, at: &str, structural: bool, errors: &mut Vec<FieldError>) -> Self {
        let flag = |name: &str| source.get(name) == Some(&Value::Bool(true));
        let mut schema = Self {
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: source.get("default").cloned(),
            list: list_kind(source),
            limits: limits(source, at, errors),
            ..Self::default()
        };
        match source
            .get("type")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
        {
            Some(name) => {
                schema.kind = Type::parse(name);
                if schema.kind.is_none() {
                    let names = ["array", "boolean", "integer", "number", "object", "string"];
                    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
                    errors.push(FieldError::unsupported(
                        format!("{at}.type"),
                        &Value::from(name),
                        &names,
                    ));
                }
            }
            None if structural && !schema.int_or_string && !schema.preserve_unknown => errors.push(
                FieldError::required(format!("{at}.type"), "must not be empty for specified object fields"),
            ),
            None => {}
        }
        schema.compile_children(source, at, structural, errors);
        schema
    }

    fn compile_children(&mut self, source: &Value, at: &str, structural: bool, errors: &mut Vec<FieldError>) {
        let mut child = |source: &Value, at: String| {
            if structural {
                Self::compile(source, &at, errors)
            } else {
                Self::compile_node(source, &at, false, errors)
            }
        };
        for (name, property) in source
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            self.properties
                .insert(name.clone(), child(property, format!("{at}.properties[{name}]")));
        }
        self.additional = match source.get("additionalProperties") {
            Some(inner @ Value::Object(_)) => {
                Additional::Schema(Box::new(child(inner, format!("{at}.additionalProperties"))))
            }
            Some(Value::Bool(true)) => Additional::Any,
            _ => Additional::None,
        };
        if let Some(items) = source.get("items").filter(|items| items.is_object()) {
            self.items = Some(Box::new(child(items, format!("{at}.items"))));
        }
        let mut alternatives = |name: &str| -> Vec<Self> {
            let list = source.get(name).and_then(Value::as_array);
            list.into_iter()
                .flatten()
                .enumerate()
                .map(|(i, inner)| Self::compile_node(inner, &format!("{at}.{name}[{i}]"), false, errors))
                .collect()
        };
        self.all_of = alternatives("allOf");
        self.any_of = alternatives("anyOf");
        self.one_of = alternatives("oneOf");
        if let Some(not) = source.get("not").filter(|not| not.is_object()) {
            self.not = Some(Box::new(Self::compile_node(not, &format!("{at}.not"), false, errors)));
        }
    }

    fn compile_rules(&mut self, source: &Value, at: &str, errors: &mut Vec<FieldError>) {
        let list = source.get("x-kubernetes-validations").and_then(Value::as_array);
        for (i, rule) in list.into_iter().flatten().enumerate() {
            let at = format!("{at}.x-kubernetes-validations[{i}]");
            match Rule::compile(rule, self, &at) {
                Ok(rule) => self.rules.push(rule),
                Err(error) => errors.push(error),
            }
        }
    }

    /// The schema of the field `name`; `None` where the field is unknown or may be anything.
    pub(super) fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Whether fields that the schema does not name are kept.
    pub(super) fn keeps_unknown(&self) -> bool {
        self.preserve_unknown || matches!(self.additional, Additional::Any)
    }
}

fn list_kind(source: &Value) -> ListKind {
    match source.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(texts(source, "x-kubernetes-list-map-keys")),
        _ => ListKind::Atomic,
    }
}

fn texts(source: &Value, name: &str) -> Vec<String> {
    let list = source.get(name).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn limits(source: &Value, at: &str, errors: &mut Vec<FieldError>) -> Limits {
    let number = |name: &str| source.get(name).and_then(Value::as_f64);
    let count = |name: &str| source.get(name).and_then(Value::as_u64);
    let flag = |name: &str| source.get(name) == Some(&Value::Bool(true));
    let pattern = source
        .get("pattern")
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty());
    let pattern = pattern.and_then(|text| {
        Regex::new(text)
            .map_err(|_| {
                let detail = "must be a valid regular expression";
                errors.push(FieldError::invalid(format!("{at}.pattern"), &Value::from(text), detail));
            })
            .ok()
    });
    if source.get("x-kubernetes-list-type") == Some(&Value::from("map"))
        && texts(source, "x-kubernetes-list-map-keys").is_empty()
    {
        let field = format!("{at}.x-kubernetes-list-map-keys");
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::new(
            field,
            Reason::Required,
            format!("Required value: {detail}"),
        ));
    }
    Limits {
        minimum: number("minimum"),
        maximum: number("maximum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        multiple_of: number("multipleOf").filter(|divisor| *divisor > 0.0),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        unique_items: flag("uniqueItems"),
        pattern,
        format: source.get("format").and_then(Value::as_str).map(str::to_owned),
        allowed: source.get("enum").and_then(Value::as_array).cloned(),
        required: texts(source, "required"),
    }
}
