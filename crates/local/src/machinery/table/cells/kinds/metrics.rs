//! What an autoscaler aims at, and where it is.

use serde_json::Value;

use super::super::{few, items, text_or};

/// The first two of an autoscaler's metrics, each as current and target value.
pub(super) fn written(autoscaler: &Value) -> String {
    let current: Vec<&Value> = items(autoscaler, "/status/currentMetrics").collect();
    let metrics = items(autoscaler, "/spec/metrics").enumerate();
    let all: Vec<String> = metrics
        .map(|(i, metric)| one(metric, current.get(i).copied().unwrap_or(&Value::Null)))
        .collect();
    if all.is_empty() {
        return "<none>".into();
    }
    few(&all, ", ", 2, all.len())
}

fn one(metric: &Value, current: &Value) -> String {
    let (source, named) = match metric.get("type").and_then(Value::as_str) {
        Some("External") => ("external", false),
        Some("Pods") => ("pods", false),
        Some("Object") => ("object", false),
        Some("Resource") => ("resource", true),
        Some("ContainerResource") => ("containerResource", true),
        _ => return "<unknown type>".into(),
    };
    let target = |name: &str| text_or(metric, &format!("/{source}/target/{name}"), "");
    let now = |name: &str| text_or(current, &format!("/{source}/current/{name}"), "");
    let or = |text: String, nothing: &str| if text.is_empty() { nothing.to_owned() } else { text };
    let average = target("averageValue");
    if named {
        let name = text_or(metric, &format!("/{source}/name"), "");
        if !average.is_empty() {
            return format!("{name}: {}/{average}", or(now("averageValue"), "<unknown>"));
        }
        let percent = |text: String| if text.is_empty() { text } else { format!("{text}%") };
        let current = or(percent(now("averageUtilization")), "<unknown>");
        return format!(
            "{name}: {current}/{}",
            or(percent(target("averageUtilization")), "<auto>")
        );
    }
    match (average.is_empty(), source) {
        (false, "pods") => format!("{}/{average}", or(now("averageValue"), "<unknown>")),
        (false, _) => format!("{}/{average} (avg)", or(now("averageValue"), "<unknown>")),
        (true, _) => format!("{}/{}", or(now("value"), "<unknown>"), target("value")),
    }
}
