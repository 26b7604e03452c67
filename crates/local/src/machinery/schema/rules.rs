//! The CEL rules of a schema (`x-kubernetes-validations`).
//!
//! A rule sees its place's value as `self`, and as `oldSelf` what was there before; a rule that reads `oldSelf` is
//! asked only when there was something. Items of a list have a past only where the list has keys.

use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map, OptionalValue};
use cel::{Context, Env, Program};
use serde_json::Value;

use super::structure::{Additional, ListKind, Schema, Type};
use super::values::join;
use crate::machinery::{FieldError, Reason, shown};

mod check;

/// One compiled rule.
#[derive(Debug)]
pub(super) struct Rule {
    source: String,
    program: Program,
    reads_old: bool,
    optional_old: bool,
    message: Option<String>,
    message_program: Option<Program>,
    reason: Reason,
    field_path: String,
}

impl Rule {
    /// Compiles a rule of the node `schema`; the error names the rule.
    pub(super) fn compile(rule: &Value, schema: &Schema, at: &str) -> Result<Self, FieldError> {
        let text = |name: &str| {
            rule.get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.trim().is_empty())
        };
        let Some(source) = text("rule") else {
            return Err(FieldError::required(format!("{at}.rule"), "a validation needs a rule"));
        };
        let program = compile(source, schema).map_err(|detail| failed(&format!("{at}.rule"), source, &detail))?;
        let message_program = match text("messageExpression") {
            Some(source) => Some(
                compile(source, schema)
                    .map_err(|detail| failed(&format!("{at}.messageExpression"), source, &detail))?,
            ),
            None => None,
        };
        Ok(Self {
            source: source.to_owned(),
            reads_old: program.references().has_variable("oldSelf"),
            program,
            optional_old: rule.get("optionalOldSelf") == Some(&Value::Bool(true)),
            message: text("message").map(|text| text.trim().to_owned()),
            message_program,
            reason: match text("reason") {
                Some("FieldValueForbidden") => Reason::Forbidden,
                Some("FieldValueRequired") => Reason::Required,
                Some("FieldValueDuplicate") => Reason::Duplicate,
                _ => Reason::Invalid,
            },
            field_path: text("fieldPath").unwrap_or_default().to_owned(),
        })
    }

    fn check(&self, schema: &Schema, new: &Value, old: Option<&Value>, at: &str) -> Option<FieldError> {
        let mut context = Context::with_env(environment());
        context.add_variable_from_value("self", convert(Some(schema), new));
        if self.reads_old {
            let old = old.map(|old| convert(Some(schema), old));
            let old = match (old, self.optional_old) {
                (old, true) => cel::Value::Opaque(Arc::new(old.map_or_else(OptionalValue::none, OptionalValue::of))),
                (Some(old), false) => old,
                // A transition rule, and nothing was there before.
                (None, false) => return None,
            };
            context.add_variable_from_value("oldSelf", old);
        }
        let detail = match self.program.execute(&context) {
            Ok(cel::Value::Bool(true)) => return None,
            Ok(cel::Value::Bool(false)) => self.message(&context),
            Ok(_) => format!("rule does not say true or false: {}", self.source),
            Err(error) => format!("{error} evaluating rule: {}", self.source),
        };
        Some(self.error(at, new, &detail))
    }

    fn message(&self, context: &Context) -> String {
        let computed = self
            .message_program
            .as_ref()
            .and_then(|program| program.execute(context).ok());
        match computed {
            Some(cel::Value::String(text)) if !text.trim().is_empty() && !text.contains('\n') => text.to_string(),
            _ => self
                .message
                .clone()
                .unwrap_or_else(|| format!("failed rule: {}", self.source)),
        }
    }

    fn error(&self, at: &str, value: &Value, detail: &str) -> FieldError {
        let field = format!("{at}{}", self.field_path);
        let field = field.strip_prefix('.').map(str::to_owned).unwrap_or(field);
        match self.reason {
            Reason::Forbidden => FieldError::forbidden(field, detail),
            Reason::Required => FieldError::required(field, detail),
            Reason::Duplicate => FieldError::new(
                field,
                Reason::Duplicate,
                format!("Duplicate value: {}: {detail}", shown(value)),
            ),
            _ => FieldError::invalid(field, value, detail),
        }
    }
}

fn compile(source: &str, schema: &Schema) -> Result<Program, String> {
    let program = environment().compile(source).map_err(|errors| errors.to_string())?;
    check::check(program.expression(), schema)?;
    Ok(program)
}

fn failed(field: &str, source: &str, detail: &str) -> FieldError {
    FieldError::invalid(field, &Value::from(source), &format!("compilation failed: {detail}"))
}

/// The functions that rules may call.
fn environment() -> Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = Env::stdlib();
        let extensions = [cel::extensions::strings, cel::extensions::lists, cel::extensions::math];
        for extension in extensions {
            // An extension fails only on a name that is declared already; then the declared one stays.
            let _ = env.add_extension(extension);
        }
        Arc::new(env)
    });
    ENVIRONMENT.clone()
}

/// Whether `text` is a duration such as `1h30m`.
pub(super) fn is_duration(text: &str) -> bool {
    static PARSE: LazyLock<Option<Program>> = LazyLock::new(|| environment().compile("duration(x)").ok());
    parsed(&PARSE, text).is_some()
}

fn duration(text: &str) -> Option<cel::Value> {
    static PARSE: LazyLock<Option<Program>> = LazyLock::new(|| environment().compile("duration(x)").ok());
    parsed(&PARSE, text)
}

fn timestamp(text: &str) -> Option<cel::Value> {
    static PARSE: LazyLock<Option<Program>> = LazyLock::new(|| environment().compile("timestamp(x)").ok());
    parsed(&PARSE, text)
}

fn parsed(program: &Option<Program>, text: &str) -> Option<cel::Value> {
    let mut context = Context::with_env(environment());
    context.add_variable_from_value("x", text);
    program.as_ref()?.execute(&context).ok()
}

/// Every rule that `new` breaks, here and below.
pub(super) fn validate(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(schema, new, old, "", &mut errors);
    errors
}

fn walk(schema: &Schema, new: &Value, old: Option<&Value>, at: &str, errors: &mut Vec<FieldError>) {
    if new.is_null() {
        return;
    }
    let old = old.filter(|old| !old.is_null());
    errors.extend(schema.rules.iter().filter_map(|rule| rule.check(schema, new, old, at)));
    match new {
        Value::Object(map) => {
            for (name, child) in map {
                let inner = match (schema.properties.get(name), &schema.additional) {
                    (Some(property), _) => property,
                    (None, Additional::Schema(inner)) => inner,
                    _ => continue,
                };
                walk(inner, child, old.and_then(|old| old.get(name)), &join(at, name), errors);
            }
        }
        Value::Array(items) => {
            let Some(inner) = &schema.items else { return };
            for (i, item) in items.iter().enumerate() {
                walk(inner, item, earlier(schema, item, old), &format!("{at}[{i}]"), errors);
            }
        }
        _ => {}
    }
}

/// The item of the old list with the same keys.
fn earlier<'a>(schema: &Schema, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let ListKind::Map(keys) = &schema.list else { return None };
    let same = |other: &&Value| keys.iter().all(|key| other.get(key) == item.get(key));
    old?.as_array()?.iter().find(same)
}

/// A value as rules see it: integers signed, texts with a format as durations and times, names escaped.
fn convert(schema: Option<&Schema>, value: &Value) -> cel::Value {
    let kind = schema.and_then(|schema| schema.kind);
    let format = schema.and_then(|schema| schema.limits.format.as_deref());
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(value) => cel::Value::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) if kind != Some(Type::Number) => cel::Value::Int(integer),
            _ => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => {
            let special = match format {
                Some("duration") => duration(text),
                Some("date-time") => timestamp(text),
                _ => None,
            };
            special.unwrap_or_else(|| text.as_str().into())
        }
        Value::Array(items) => {
            let inner = schema.and_then(|schema| schema.items.as_deref());
            cel::Value::List(Arc::new(items.iter().map(|item| convert(inner, item)).collect()))
        }
        Value::Object(map) => {
            let entries = map.iter().map(|(name, child)| {
                let known = schema.is_some_and(|schema| schema.properties.contains_key(name));
                let key = if known { escape(name) } else { name.clone() };
                (
                    Key::from(key),
                    convert(schema.and_then(|schema| schema.field(name)), child),
                )
            });
            cel::Value::Map(Map {
                map: Arc::new(entries.collect()),
            })
        }
    }
}

/// A property's name as rules write it: CEL's own words and characters that it does not allow are escaped.
fn escape(name: &str) -> String {
    const WORDS: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if WORDS.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}
