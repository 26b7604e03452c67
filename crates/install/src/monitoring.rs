//! What the Prometheus operator is told: where the metrics are, and which of them are alarming. Its kinds are not part of Kubernetes, so they
//! are made only where they are asked for.

use leeward_api::install::NAME;
use serde_json::{Value, json, to_value};

use crate::network::METRICS;
use crate::{InstallError, Values, meta};

/// The alert rules, in the form of a file for Prometheus: `groups` of rules.
const ALERTS: &str = include_str!("../../../charts/leeward/alerts.yaml");

/// Monitor and rules; nothing where they are not asked for.
pub(crate) fn objects(values: &Values) -> Result<Vec<Value>, InstallError> {
    with(values, ALERTS)
}

fn with(values: &Values, rules: &str) -> Result<Vec<Value>, InstallError> {
    if !values.monitoring {
        return Ok(Vec::new());
    }
    let mut objects = vec![json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": to_value(meta::of_namespace(values, NAME))?,
        "spec": {
            "selector": to_value(meta::selector(METRICS))?,
            "endpoints": [{ "port": METRICS, "path": "/metrics" }],
        },
    })];
    // Without a group it would say nothing.
    let rules = alerts(rules)?;
    if rules["groups"].as_array().is_some_and(|groups| !groups.is_empty()) {
        objects.push(json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": to_value(meta::of_namespace(values, NAME))?,
            "spec": rules,
        }));
    }
    Ok(objects)
}

fn alerts(text: &str) -> Result<Value, InstallError> {
    let rules: Value = serde_saphyr::from_str(text).map_err(|error| InstallError::Alerts(error.to_string()))?;
    match rules["groups"].is_array() {
        true => Ok(rules),
        false => Err(InstallError::Alerts("there is no list `groups`".into())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot set its stage may panic")]

    use super::*;

    fn kinds(monitoring: bool, rules: &str) -> Vec<Value> {
        let values = Values {
            monitoring,
            ..Values::default()
        };
        let objects = with(&values, rules).unwrap();
        objects.iter().map(|object| object["kind"].clone()).collect()
    }

    #[test]
    fn rules_are_an_object_only_where_there_are_some_and_they_are_asked_for() {
        let one = "groups: [{name: leeward, rules: [{alert: Lost, expr: up == 0}]}]";
        assert_eq!(kinds(true, one), ["ServiceMonitor", "PrometheusRule"]);
        assert_eq!(kinds(true, "groups: []"), ["ServiceMonitor"]);
        assert_eq!(kinds(false, one), [""; 0]);
    }

    #[test]
    fn a_file_that_is_no_list_of_groups_is_named() {
        for bad in ["", "rules: []", "groups: {}", "{"] {
            let error = alerts(bad).unwrap_err().to_string();
            assert!(error.contains("charts/leeward/alerts.yaml"), "{error}");
        }
    }
}
