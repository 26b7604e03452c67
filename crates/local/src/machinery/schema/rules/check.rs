//! What of a rule can be known to be wrong without a value: names that nothing declares, fields that the schema lacks.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, SelectExpr};

use super::escape;
use crate::machinery::schema::structure::{Additional, Schema, Type};

/// What is known of an expression's value: the node that describes it, or nothing.
type Place<'s> = Option<&'s Schema>;

/// Names that are not variables: types, and namespaces of functions.
const TYPES: &[&str] = &[
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "list",
    "map",
    "type",
    "null_type",
    "optional_type",
    "google",
];
const NAMESPACES: &[&str] = &["math", "lists", "strings", "optional"];

/// The functions of the environment, by the names that rules call them.
const FUNCTIONS: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "dyn",
    "type",
    "duration",
    "timestamp",
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "lowerAscii",
    "upperAscii",
    "trim",
    "replace",
    "split",
    "substring",
    "format",
    "quote",
    "reverse",
    "distinct",
    "flatten",
    "sort",
    "sortBy",
    "slice",
    "range",
    "of",
    "ofNonZeroValue",
    "none",
    "hasValue",
    "value",
    "or",
    "orValue",
    "optMap",
    "optFlatMap",
    "abs",
    "ceil",
    "floor",
    "round",
    "trunc",
    "sign",
    "sqrt",
    "isNaN",
    "isInf",
    "isFinite",
    "greatest",
    "least",
    "bitAnd",
    "bitOr",
    "bitXor",
    "bitNot",
    "bitShiftLeft",
    "bitShiftRight",
    "max",
    "min",
    "unwrap",
    "unwrapOpt",
    "first",
    "last",
];

/// Checks a rule of the node `schema`; the error says which name is wrong.
pub(super) fn check(rule: &IdedExpr, schema: &Schema) -> Result<(), String> {
    let mut scope = vec![("self".to_owned(), Some(schema)), ("oldSelf".to_owned(), Some(schema))];
    infer(&rule.expr, &mut scope).map(drop)
}

fn infer<'s>(expr: &Expr, scope: &mut Vec<(String, Place<'s>)>) -> Result<Place<'s>, String> {
    match expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(None),
        Expr::Ident(name) => ident(name, scope),
        Expr::Select(select) => selected(select, scope),
        Expr::Call(call) => called(call, scope),
        Expr::Comprehension(comprehension) => folded(comprehension, scope),
        Expr::List(list) => all(list.elements.iter(), scope),
        Expr::Map(map) => entries(map.entries.iter().map(|entry| &entry.expr), scope),
        Expr::Struct(object) => entries(object.entries.iter().map(|entry| &entry.expr), scope),
    }
}

fn all<'e, 's>(
    exprs: impl Iterator<Item = &'e IdedExpr>,
    scope: &mut Vec<(String, Place<'s>)>,
) -> Result<Place<'s>, String> {
    for expr in exprs {
        infer(&expr.expr, scope)?;
    }
    Ok(None)
}

fn entries<'e, 's>(
    entries: impl Iterator<Item = &'e EntryExpr>,
    scope: &mut Vec<(String, Place<'s>)>,
) -> Result<Place<'s>, String> {
    for entry in entries {
        match entry {
            EntryExpr::StructField(field) => infer(&field.value.expr, scope)?,
            EntryExpr::MapEntry(entry) => {
                infer(&entry.key.expr, scope)?;
                infer(&entry.value.expr, scope)?
            }
        };
    }
    Ok(None)
}

fn ident<'s>(name: &str, scope: &[(String, Place<'s>)]) -> Result<Place<'s>, String> {
    match scope.iter().rev().find(|(known, _)| known == name) {
        Some((_, place)) => Ok(*place),
        None if name.starts_with('@') || TYPES.contains(&name) => Ok(None),
        None => Err(format!("undeclared reference to '{name}'")),
    }
}

fn selected<'s>(select: &SelectExpr, scope: &mut Vec<(String, Place<'s>)>) -> Result<Place<'s>, String> {
    let Some(schema) = infer(&select.operand.expr, scope)? else {
        return Ok(None);
    };
    if let Some((_, property)) = schema.properties.iter().find(|(name, _)| escape(name) == select.field) {
        return Ok(Some(property));
    }
    match (&schema.additional, schema.kind) {
        (Additional::Schema(inner), _) => Ok(Some(inner)),
        _ if schema.keeps_unknown() || schema.int_or_string => Ok(None),
        (_, Some(Type::Object)) if matches!(select.field.as_str(), "apiVersion" | "kind" | "metadata") => Ok(None),
        (_, Some(Type::Object)) => Err(format!("undefined field '{}'", select.field)),
        (_, Some(kind)) => Err(format!("type '{}' does not support field selection", kind.name())),
        (_, None) => Ok(None),
    }
}

fn called<'s>(call: &CallExpr, scope: &mut Vec<(String, Place<'s>)>) -> Result<Place<'s>, String> {
    let operator = !call.func_name.chars().all(|c| c.is_ascii_alphanumeric());
    let name = call.func_name.rsplit('.').next().unwrap_or_default();
    if !operator && !FUNCTIONS.contains(&name) {
        return Err(format!("undeclared reference to '{}'", call.func_name));
    }
    if let Some(target) = &call.target {
        let is_namespace = matches!(&target.expr, Expr::Ident(name)
            if NAMESPACES.contains(&name.as_str()) && !scope.iter().any(|(known, _)| known == name));
        if !is_namespace {
            infer(&target.expr, scope)?;
        }
    }
    let places = call
        .args
        .iter()
        .map(|arg| infer(&arg.expr, scope))
        .collect::<Result<Vec<_>, _>>()?;
    let indexed = (call.func_name == "_[_]")
        .then(|| places.first().copied().flatten())
        .flatten();
    Ok(indexed.and_then(element))
}

/// The node of what a list or map holds.
fn element(schema: &Schema) -> Place<'_> {
    match (&schema.items, &schema.additional) {
        (Some(items), _) => Some(items),
        (None, Additional::Schema(inner)) => Some(inner),
        _ => None,
    }
}

fn folded<'s>(comprehension: &ComprehensionExpr, scope: &mut Vec<(String, Place<'s>)>) -> Result<Place<'s>, String> {
    let range = infer(&comprehension.iter_range.expr, scope)?;
    infer(&comprehension.accu_init.expr, scope)?;
    let depth = scope.len();
    // The one variable of a list is its item, of a map its key; of two the second is item or value.
    let item = range
        .filter(|schema| schema.items.is_some() || comprehension.iter_var2.is_some())
        .and_then(element);
    match &comprehension.iter_var2 {
        None => scope.push((comprehension.iter_var.clone(), item)),
        Some(second) => {
            scope.push((comprehension.iter_var.clone(), None));
            scope.push((second.clone(), item));
        }
    }
    scope.push((comprehension.accu_var.clone(), None));
    let inside = [
        &comprehension.loop_cond,
        &comprehension.loop_step,
        &comprehension.result,
    ];
    let result = all(inside.into_iter(), scope);
    scope.truncate(depth);
    result
}
