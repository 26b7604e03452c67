//! A schema in compiled form.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::rules::Rule;
use crate::machinery::members::Members;

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
    Map(Box<[String]>),
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

/// One node of a schema. There are thousands of them in some definitions, so what few have is apart.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub(super) kind: Option<Type>,
    pub(super) nullable: bool,
    pub(super) int_or_string: bool,
    pub(super) preserve_unknown: bool,
    pub(super) embedded: bool,
    pub(super) default: Option<Box<Value>>,
    pub(super) properties: Members<Schema>,
    pub(super) additional: Additional,
    pub(super) items: Option<Box<Schema>>,
    pub(super) list: ListKind,
    limits: Option<Box<Limits>>,
    alternatives: Option<Box<Alternatives>>,
    pub(super) rules: Box<[Rule]>,
}

/// What other schemas say of a value besides its own.
#[derive(Debug, Default)]
pub(super) struct Alternatives {
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Schema>,
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
        let properties = source.get("properties").and_then(Value::as_object);
        let mut schema = Self {
            kind: Type::parse(text(source, "type")),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: source
                .get("default")
                .filter(|default| !default.is_null())
                .cloned()
                .map(Box::new),
            list: list_kind(source),
            limits: limits(source).map(Box::new),
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
            alternatives: Alternatives::compile(source).map(Box::new),
            rules: Box::default(),
        };
        let rules = source.get("x-kubernetes-validations").and_then(Value::as_array);
        schema.rules = rules
            .into_iter()
            .flatten()
            .map(|rule| Rule::compile(rule, &schema))
            .collect();
        schema
    }

    /// What a value must satisfy besides its type.
    pub(super) fn limits(&self) -> &Limits {
        static NONE: LazyLock<Limits> = LazyLock::new(Limits::default);
        self.limits.as_deref().unwrap_or(&NONE)
    }

    /// What other schemas say of a value, if any do.
    pub(super) fn alternatives(&self) -> Option<&Alternatives> {
        self.alternatives.as_deref()
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

impl Alternatives {
    fn compile(source: &Value) -> Option<Self> {
        let list = |name: &str| -> Vec<Schema> {
            let list = source.get(name).and_then(Value::as_array);
            list.into_iter().flatten().map(Schema::compile).collect()
        };
        let found = Self {
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: source.get("not").filter(|inner| inner.is_object()).map(Schema::compile),
        };
        let some = [&found.all_of, &found.any_of, &found.one_of]
            .iter()
            .any(|list| !list.is_empty());
        (some || found.not.is_some()).then_some(found)
    }
}

fn list_kind(source: &Value) -> ListKind {
    match source.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(texts(source, "x-kubernetes-list-map-keys").into()),
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

/// The keywords that [`Limits`] come from.
const LIMITS: [&str; 15] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "pattern",
    "format",
    "enum",
    "required",
];

fn limits(source: &Value) -> Option<Limits> {
    if LIMITS.iter().all(|keyword| source.get(keyword).is_none()) {
        return None;
    }
    let number = |name: &str| source.get(name).and_then(Value::as_f64);
    let count = |name: &str| source.get(name).and_then(Value::as_u64);
    let flag = |name: &str| source.get(name) == Some(&Value::Bool(true));
    Some(Limits {
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
    })
}
