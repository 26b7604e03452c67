//! A label selector as one text.

use serde_json::Value;

use super::super::plain;

/// The selector's requirements by key; `<none>` where it has none.
pub(super) fn written(selector: Option<&Value>) -> String {
    let labels = selector.and_then(|s| s.get("matchLabels")).and_then(Value::as_object);
    let labels = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), format!("{key}={}", plain(value))));
    let expressions = selector
        .and_then(|s| s.get("matchExpressions"))
        .and_then(Value::as_array);
    let expressions = expressions.into_iter().flatten().map(expression);
    let mut all: Vec<(String, String)> = labels.chain(expressions).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    if all.is_empty() {
        return "<none>".into();
    }
    let texts: Vec<String> = all.into_iter().map(|(_, text)| text).collect();
    texts.join(",")
}

fn expression(expression: &Value) -> (String, String) {
    let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
    let key = text("key");
    let values = expression.get("values").and_then(Value::as_array);
    let mut values: Vec<&str> = values.into_iter().flatten().filter_map(Value::as_str).collect();
    values.sort_unstable();
    let written = match text("operator") {
        "Exists" => key.to_owned(),
        "DoesNotExist" => format!("!{key}"),
        "NotIn" => format!("{key} notin ({})", values.join(",")),
        _ => format!("{key} in ({})", values.join(",")),
    };
    (key.to_owned(), written)
}
