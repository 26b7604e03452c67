//! Autoscalers have two versions over one table: `autoscaling/v1` knows of one metric, the use of CPU. Pure.

use serde_json::{Value, json};

const OLD: &str = "autoscaling/v1";
const WANTED: &str = "targetCPUUtilizationPercentage";
const CURRENT: &str = "currentCPUUtilizationPercentage";

/// The autoscaler as `api_version` has it. The old version does not show other metrics than that of CPU, nor how fast an
/// autoscaler may scale.
pub(crate) fn convert(autoscaler: &Value, api_version: &str) -> Value {
    let mut converted = autoscaler.clone();
    converted["apiVersion"] = api_version.into();
    let (from, to): (fn(&mut Value), _) = if api_version == OLD {
        (to_old, OLD)
    } else {
        (to_new, api_version)
    };
    if autoscaler.get("apiVersion").is_none_or(|version| version != to) {
        from(&mut converted);
    }
    converted
}

fn is_cpu(metric: &Value) -> bool {
    metric.pointer("/resource/name").is_some_and(|name| name == "cpu")
}

fn to_old(autoscaler: &mut Value) {
    for (part, list, field, pointer) in [
        ("spec", "metrics", WANTED, "/resource/target/averageUtilization"),
        (
            "status",
            "currentMetrics",
            CURRENT,
            "/resource/current/averageUtilization",
        ),
    ] {
        let Some(map) = autoscaler.get_mut(part).and_then(Value::as_object_mut) else {
            continue;
        };
        let metrics = map.remove(list);
        let mut metrics = metrics.iter().filter_map(Value::as_array).flatten();
        let cpu = metrics
            .find(|metric| is_cpu(metric))
            .and_then(|metric| metric.pointer(pointer));
        if let Some(percent) = cpu {
            map.insert(field.into(), percent.clone());
        }
        for newer in ["behavior", "conditions"] {
            map.remove(newer);
        }
    }
}

fn to_new(autoscaler: &mut Value) {
    let metric = |inner: Value| json!([{"type": "Resource", "resource": inner}]);
    if let Some(spec) = autoscaler.get_mut("spec").and_then(Value::as_object_mut)
        && let Some(percent) = spec.remove(WANTED).filter(|percent| !percent.is_null())
    {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        spec.insert("metrics".into(), metric(json!({"name": "cpu", "target": target})));
    }
    if let Some(status) = autoscaler.get_mut("status").and_then(Value::as_object_mut)
        && let Some(percent) = status.remove(CURRENT).filter(|percent| !percent.is_null())
    {
        let current = json!({"averageUtilization": percent});
        status.insert(
            "currentMetrics".into(),
            metric(json!({"name": "cpu", "current": current})),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn an_autoscaler_on_cpu_is_the_same_there_and_back() {
        let old =
            json!({"apiVersion": "autoscaling/v1", "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 70}});
        let new = super::convert(&old, "autoscaling/v2");
        assert_eq!(
            new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
            70
        );
        assert_eq!(new["spec"].get("targetCPUUtilizationPercentage"), None);
        assert_eq!(super::convert(&new, "autoscaling/v1"), old);
        assert_eq!(super::convert(&new, "autoscaling/v2"), new);
    }
}
