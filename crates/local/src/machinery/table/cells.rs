//! What is in the cells of a table: the words of `columns.txt`.

use serde_json::{Value, json};

use super::{age, plain, pod};

mod kinds;
mod selector;

/// The cell of a column; null for a word that is not known.
pub(super) fn cell(words: &[&str], object: &Value, now: &str) -> Value {
    let argument = |i: usize| words.get(i).copied().unwrap_or_default();
    let first = argument(1);
    match argument(0) {
        "text" => text_or(object, first, argument(2)).into(),
        "value" => match object.pointer(first).filter(|value| !value.is_null()) {
            Some(value) => value.clone(),
            None => argument(2).into(),
        },
        "count" => number(object, first).into(),
        "ratio" => format!("{}/{}", number(object, first), number(object, "/spec/replicas")).into(),
        "length" => words[1..].iter().map(|at| length(object, at)).sum::<usize>().into(),
        "flag" => flag(object, first).unwrap_or(argument(2) == "true").into(),
        "truth" => match flag(object, first) {
            Some(true) => json!("True"),
            Some(false) => json!("False"),
            None => json!("<unset>"),
        },
        "age" => since(object, &["/metadata/creationTimestamp"], now, "<unknown>").into(),
        "since" => since(object, words.get(2..).unwrap_or_default(), now, first).into(),
        "seconds" => match object.pointer(first).and_then(Value::as_i64) {
            Some(seconds) => age::seconds(seconds).into(),
            None => json!("<none>"),
        },
        "joined" => match joined(object, first, argument(2).trim_start_matches('-')) {
            empty if empty.is_empty() => argument(3).into(),
            texts => texts.into(),
        },
        "labels" => labels(object, first).into(),
        "selector" => selector::written(object.pointer(first)).into(),
        "condition" => kinds::condition(object, first).into(),
        "access-modes" => kinds::access_modes(object, first).into(),
        "default-name" => kinds::default_name(object, first).into(),
        "node-address" => kinds::node_address(object, first).into(),
        "subjects" => kinds::subjects(object, first).into(),
        "quota" => kinds::quota(object, first == "limits").into(),
        "pod-ready" => pod::ready(object).into(),
        "pod-status" => pod::status(object).into(),
        "pod-restarts" => pod::restarts(object, now).into(),
        "pod-gates" => pod::gates(object).into(),
        "job-duration" => kinds::job_duration(object, now).into(),
        "last-seen" => kinds::last_seen(object, now).into(),
        "event-count" => kinds::event_count(object).into(),
        other => kinds::of_object(other, object).map_or(Value::Null, Value::from),
    }
}

/// A text that is there and not empty.
fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// A value as text, or what stands for nothing.
fn text_or(object: &Value, pointer: &str, nothing: &str) -> String {
    let found = object.pointer(pointer).filter(|value| !value.is_null()).map(plain);
    found
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| nothing.to_owned())
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn flag(object: &Value, pointer: &str) -> Option<bool> {
    object.pointer(pointer).and_then(Value::as_bool)
}

fn length(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    }
}

/// How long ago the first of these times was.
fn since(object: &Value, pointers: &[&str], now: &str, nothing: &str) -> String {
    let time = pointers.iter().find_map(|pointer| text(object, pointer));
    time.map_or_else(|| nothing.to_owned(), |then| age::between(then, now))
}

fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn joined(object: &Value, list: &str, pointer: &str) -> String {
    let texts = items(object, list).filter_map(|item| item.pointer(pointer)).map(plain);
    texts.collect::<Vec<_>>().join(",")
}

fn labels(object: &Value, pointer: &str) -> String {
    let map = object.pointer(pointer).and_then(Value::as_object);
    let mut texts: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", plain(value)))
        .collect();
    texts.sort();
    if texts.is_empty() {
        "<none>".into()
    } else {
        texts.join(",")
    }
}

/// The first few of a list, and how many more there are.
fn few(texts: &[String], separator: &str, shown: usize, total: usize) -> String {
    match texts.get(..shown) {
        Some(first) if total > shown => format!("{} + {} more...", first.join(separator), total - shown),
        _ => texts.join(separator),
    }
}
