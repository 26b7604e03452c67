//! A schema in compiled form.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::rules::Rule;

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
    /// Compiles a node and all below it. What is not valid, which is for `definition_errors` to say, counts as absent.
    pub(super) fn compile(source: &Value) -> Self {
        let flag = |name: &str| source.get(name) == Some(&Value::Bool(true));
        let node = |name: &str| {
            source
                .get(name)
                .filter(|inner| inner.is_object())
                .map(Self::compile)
                .map(Box::new)
        };
        let alternatives = |name: &str| -> Vec<Self> {
            let list = source.get(name).and_then(Value::as_array);
            list.into_iter().flatten().map(Self::compile).collect()
        };
        let properties = source.get("properties").and_then(Value::as_object);
        let mut schema = Self {
            kind: Type::parse(text(source, "type")),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: source.get("default").filter(|default| !default.is_null()).cloned(),
            list: list_kind(source),
            limits: limits(source),
            properties: properties
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.clone(), Self::compile(property)))
                .collect(),
            additional: match source.get("additionalProperties") {
                Some(Value::Bool(true)) => Additional::Any,
                _ => node("additionalProperties").map_or(Additional::None, Additional::Schema),
            },
            items: node("items"),
            all_of: alternatives("allOf"),
            any_of: alternatives("anyOf"),
            one_of: alternatives("oneOf"),
            not: node("not"),
            rules: Vec::new(),
        };
        let rules = source.get("x-kubernetes-validations").and_then(Value::as_array);
        schema.rules = rules
            .into_iter()
            .flatten()
            .map(|rule| Rule::compile(rule, &schema))
            .collect();
        schema
    }

    /// The schema of the field `name`; `None` where the field is unknown or may be anything.
    pub(super) fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Whether there is a rule here or below.
    pub(super) fn has_rules(&self) -> bool {
        !self.rules.is_empty() || self.below().any(Self::has_rules)
    }

    /// Whether there is a default here or below.
    pub(super) fn has_defaults(&self) -> bool {
        self.default.is_some() || self.below().any(Self::has_defaults)
    }

    fn below(&self) -> impl Iterator<Item = &Schema> {
        let rest = match &self.additional {
            Additional::Schema(schema) => Some(&**schema),
            _ => None,
        };
        self.properties.values().chain(self.items.as_deref()).chain(rest)
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

/// The text at a keyword; empty where there is none.
pub(super) fn text<'v>(source: &'v Value, name: &str) -> &'v str {
    source.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The texts in a list at a keyword.
pub(super) fn texts(source: &Value, name: &str) -> Vec<String> {
    let list = source.get(name).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn limits(source: &Value) -> Limits {
    let number = |name: &str| source.get(name).and_then(Value::as_f64);
    let count = |name: &str| source.get(name).and_then(Value::as_u64);
    let flag = |name: &str| source.get(name) == Some(&Value::Bool(true));
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
        pattern: Some(text(source, "pattern"))
            .filter(|pattern| !pattern.is_empty())
            .and_then(|pattern| Regex::new(pattern).ok()),
        format: Some(text(source, "format"))
            .filter(|format| !format.is_empty())
            .map(str::to_owned),
        allowed: source.get("enum").and_then(Value::as_array).cloned(),
        required: texts(source, "required"),
    }
}
