//! The CEL rules of a schema (`x-kubernetes-validations`).
//!
//! A rule sees its place's value as `self`, and as `oldSelf` what was there before; a rule that reads `oldSelf` is
//! asked only when there was something. Items of a list have a past only where the list has keys.

use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map, OptionalValue};
use cel::{Context, Env, ExecutionError, Program};
use serde_json::{Value, json};

use super::NIL;
use super::structural::invalid;
use super::structure::{Additional, Schema, Type, text};
use super::values::{earlier, join};
use crate::machinery::{FieldError, Reason};

mod check;
mod cost;

use cost::Budget;

/// One compiled rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// As the definition has it.
    given: Value,
    source: String,
    program: Result<Program, String>,
    /// Loops inside one another.
    depth: u32,
    reads_old: bool,
    optional_old: bool,
    message: Option<String>,
    message_program: Option<Result<Program, String>>,
    reason: Reason,
    field_path: String,
}

impl Rule {
    /// Compiles a rule of the node `schema`.
    pub(super) fn compile(rule: &Value, schema: &Schema) -> Self {
        let text = |name: &str| text(rule, name).trim();
        let source = text("rule");
        let program = compile(source, schema);
        Self {
            given: rule.clone(),
            source: source.to_owned(),
            reads_old: program
                .as_ref()
                .is_ok_and(|program| program.references().has_variable("oldSelf")),
            depth: program.as_ref().map_or(0, |program| cost::depth(program.expression())),
            program,
            optional_old: rule.get("optionalOldSelf") == Some(&Value::Bool(true)),
            message: Some(text("message")).filter(|text| !text.is_empty()).map(str::to_owned),
            message_program: Some(text("messageExpression"))
                .filter(|text| !text.is_empty())
                .map(|source| compile(source, schema)),
            reason: match text("reason") {
                "FieldValueForbidden" => Reason::Forbidden,
                "FieldValueRequired" => Reason::Required,
                "FieldValueDuplicate" => Reason::Duplicate,
                _ => Reason::Invalid,
            },
            field_path: text("fieldPath").to_owned(),
        }
    }

    /// Why the rule at `at` cannot work; `unmatched` is the place above whose values before and after are not matched.
    pub(super) fn problems(&self, at: &str, unmatched: Option<&str>, errors: &mut Vec<FieldError>) {
        let mut compiled = |program: &Result<Program, String>, name: &str| {
            if let Err(why) = program {
                let detail = format!("compilation failed: {why}");
                errors.push(invalid(format!("{at}.{name}"), &shown_rule(&self.given), &detail));
            }
        };
        compiled(&self.program, "rule");
        if let Some(program) = &self.message_program {
            compiled(program, "messageExpression");
        }
        if self.reads_old
            && let Some(place) = unmatched
        {
            let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {place}");
            errors.push(invalid(
                format!("{at}.rule"),
                &text(&self.given, "rule").into(),
                &detail,
            ));
        }
        if !self.reads_old
            && self.program.is_ok()
            && let Some(optional) = self.given.get("optionalOldSelf")
        {
            let detail = "may not be set if oldSelf is not used in rule";
            errors.push(invalid(format!("{at}.optionalOldSelf"), optional, detail));
        }
    }

    fn check(
        &self,
        schema: &Schema,
        new: &Value,
        old: Option<&Value>,
        at: &str,
        budget: &mut Budget,
    ) -> Option<FieldError> {
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
        let broken = |detail: String| {
            let kind = if schema.int_or_string {
                ""
            } else {
                schema.kind.map_or("", Type::name)
            };
            Some(FieldError::invalid(named(at), &kind.into(), &detail))
        };
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return broken(format!("rule compile error: {why}")),
        };
        let width = if self.depth == 0 {
            1
        } else {
            let texts = self.source.contains("split(");
            let width = |value| cost::width(value, texts);
            width(new).max(old.map_or(0, width))
        };
        if !budget.takes(width, self.depth) {
            let detail = format!("call cost exceeds limit for rule: {}", self.source);
            return broken(detail);
        }
        match program.execute(&context) {
            Ok(cel::Value::Bool(true)) => None,
            Ok(cel::Value::Bool(false)) => Some(self.error(schema, at, new, &self.message(&context))),
            Ok(_) => broken(format!("rule does not say true or false: {}", self.source)),
            Err(error) => broken(format!("{} evaluating rule: {}", said(&error), self.source)),
        }
    }

    fn message(&self, context: &Context) -> String {
        let computed = self
            .message_program
            .as_ref()
            .and_then(|program| program.as_ref().ok())
            .and_then(|program| program.execute(context).ok());
        match computed {
            Some(cel::Value::String(text)) if !text.trim().is_empty() && !text.contains('\n') => text.to_string(),
            _ => self
                .message
                .clone()
                .unwrap_or_else(|| format!("failed rule: {}", self.source)),
        }
    }

    fn error(&self, schema: &Schema, at: &str, value: &Value, detail: &str) -> FieldError {
        let field = format!("{at}{}", self.field_path);
        let field = named(field.strip_prefix('.').unwrap_or(&field));
        // What is large is not shown.
        let whole = matches!(schema.kind, Some(Type::Object | Type::Array));
        match self.reason {
            Reason::Forbidden => FieldError::forbidden(field, detail),
            Reason::Required => FieldError::required(field, detail),
            Reason::Duplicate if whole => FieldError::new(field, Reason::Duplicate, "Duplicate value"),
            Reason::Duplicate => FieldError::duplicate(field, value),
            _ if whole => FieldError::new(field, Reason::Invalid, format!("Invalid value: {detail}")),
            _ => FieldError::invalid(field, value, detail),
        }
    }
}

/// How errors name a place; the object as a whole has a name of its own.
fn named(at: &str) -> String {
    if at.is_empty() { NIL.into() } else { at.into() }
}

/// A failure in the words of Kubernetes' evaluator.
fn said(error: &ExecutionError) -> String {
    match error {
        ExecutionError::DivisionByZero(_) => "division by zero".into(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".into(),
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::IndexOutOfBounds(cel::Value::Int(index)) => format!("index out of bounds: {index}"),
        ExecutionError::Overflow(..) => "integer overflow".into(),
        other => other.to_string(),
    }
}

fn compile(source: &str, schema: &Schema) -> Result<Program, String> {
    let program = environment().compile(source).map_err(|errors| errors.to_string())?;
    check::check(program.expression(), schema)?;
    Ok(program)
}

/// A rule as errors show it.
fn shown_rule(rule: &Value) -> Value {
    let given = |name: &str| text(rule, name);
    json!({"Rule": given("rule"), "Message": given("message"), "MessageExpression": given("messageExpression"),
        "Reason": rule.get("reason"), "FieldPath": given("fieldPath"), "OptionalOldSelf": rule.get("optionalOldSelf")})
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

/// Every rule that `new` breaks, here and below. One that a value broke before, and breaks unchanged, is no error.
pub(super) fn validate(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(schema, new, old, false, "", &mut Budget::new(), &mut errors);
    errors
}

fn walk(
    schema: &Schema,
    new: &Value,
    old: Option<&Value>,
    same: bool,
    at: &str,
    budget: &mut Budget,
    errors: &mut Vec<FieldError>,
) {
    if new.is_null() || !schema.has_rules() {
        return;
    }
    let old = old.filter(|old| !old.is_null());
    let same = same || old == Some(new);
    let rules = schema.rules.iter().filter(|rule| rule.reads_old || !same);
    errors.extend(rules.filter_map(|rule| rule.check(schema, new, old, at, budget)));
    match new {
        Value::Object(map) => {
            for (name, child) in map {
                let (inner, at) = match (schema.properties.get(name), &schema.additional) {
                    (Some(property), _) => (property, join(at, name)),
                    (None, Additional::Schema(inner)) => (&**inner, format!("{at}[{name}]")),
                    _ => continue,
                };
                walk(
                    inner,
                    child,
                    old.and_then(|old| old.get(name)),
                    same,
                    &at,
                    budget,
                    errors,
                );
            }
        }
        Value::Array(items) => {
            let Some(inner) = &schema.items else { return };
            for (i, item) in items.iter().enumerate() {
                walk(
                    inner,
                    item,
                    earlier(schema, item, old),
                    same,
                    &format!("{at}[{i}]"),
                    budget,
                    errors,
                );
            }
        }
        _ => {}
    }
}

/// A value as rules see it: integers signed, texts with a format as durations and times, names escaped.
fn convert(schema: Option<&Schema>, value: &Value) -> cel::Value {
    let kind = schema.and_then(|schema| schema.kind);
    let format = schema.and_then(|schema| schema.limits().format.as_deref());
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
                let known = schema.is_some_and(|schema| schema.properties.get(name).is_some());
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
