//! The alert rules of the chart, made from one table. What each means and what to do is a section of `docs/how-to/alerts.md`.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::expressions;

/// Where the sections are, for who has only the alert.
const RUNBOOKS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/docs/how-to/alerts.md");

/// An alert.
pub(super) struct Alert {
    pub(super) name: &'static str,
    pub(super) expression: &'static str,
    /// For how long it has to hold.
    lasts: &'static str,
    severity: &'static str,
    summary: &'static str,
}

/// All of them, most urgent first.
pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "LeewardNotServing",
        expression: r#"max by (namespace, app) (leeward_app_condition{condition="Serving"}) == 0"#,
        lasts: "1m",
        severity: "critical",
        summary: "Nobody serves {{ $labels.namespace }}/{{ $labels.app }}.",
    },
    Alert {
        name: "LeewardClusterLost",
        expression: "max by (cluster) (leeward_cluster_lease_held) == 0",
        lasts: "1m",
        severity: "critical",
        summary: "The lease of cluster {{ $labels.cluster }} is over: what it serves with a writer role is fenced.",
    },
    Alert {
        name: "LeewardLeaseNotRenewed",
        expression: r#"sum by (cluster) (increase(leeward_lease_renewals_total{outcome="renewed"}[2m])) == 0"#,
        lasts: "1m",
        severity: "critical",
        summary: "No agent of cluster {{ $labels.cluster }} renews its lease: writers there stop, and nobody may take over without the quorum.",
    },
    Alert {
        name: "LeewardNoLeader",
        expression: "sum(leeward_leader) == 0",
        lasts: "2m",
        severity: "critical",
        summary: "No agent decides: nothing fails over.",
    },
    Alert {
        name: "LeewardNotSeen",
        expression: "absent(leeward_lease_ttl_seconds)",
        lasts: "5m",
        severity: "critical",
        summary: "No agent is scraped: whether applications are protected is not known.",
    },
    Alert {
        name: "LeewardLossAboveRpo",
        expression: "min by (namespace, app) (leeward_app_loss_seconds) > on (namespace, app) max by (namespace, app) (leeward_app_rpo_objective_seconds)",
        lasts: "1m",
        severity: "critical",
        summary: "The loss of a region now would cost {{ $labels.namespace }}/{{ $labels.app }} more than its rpo.",
    },
    Alert {
        name: "LeewardOperationLate",
        expression: "max by (namespace, app, kind) (leeward_app_operation_running_seconds) > on (namespace, app) group_left () 2 * max by (namespace, app) (leeward_app_rto_objective_seconds)",
        lasts: "1m",
        severity: "critical",
        summary: "The {{ $labels.kind }} of {{ $labels.namespace }}/{{ $labels.app }} takes more than twice the rto.",
    },
    Alert {
        name: "LeewardNotProtected",
        expression: r#"max by (namespace, app) (leeward_app_condition{condition="Protected"}) == 0 unless on (namespace, app) max by (namespace, app) (leeward_app_paused) == 1"#,
        lasts: "5m",
        severity: "warning",
        summary: "{{ $labels.namespace }}/{{ $labels.app }} would not survive the loss of a region.",
    },
    Alert {
        name: "LeewardStandbyNotInSync",
        expression: "max by (namespace, app, cluster) (leeward_app_in_sync) == 0",
        lasts: "5m",
        severity: "warning",
        summary: "{{ $labels.cluster }} lacks more of {{ $labels.namespace }}/{{ $labels.app }} than the rpo: nothing fails over to it by itself.",
    },
    Alert {
        name: "LeewardUsersNotAnswered",
        expression: r#"sum by (namespace, app) (rate(leeward_edge_requests_total{code="5xx"}[5m])) / sum by (namespace, app) (rate(leeward_edge_requests_total[5m])) > 0.05"#,
        lasts: "5m",
        severity: "warning",
        summary: "More than 5 % of the requests for {{ $labels.namespace }}/{{ $labels.app }} are answered with 5xx.",
    },
    Alert {
        name: "LeewardKubernetesAway",
        expression: "leeward_kubernetes_up == 0",
        lasts: "5m",
        severity: "warning",
        summary: "The Kubernetes API does not answer the agent {{ $labels.instance }}: nothing is started in its cluster.",
    },
    Alert {
        name: "LeewardQuorumSlow",
        expression: "histogram_quantile(0.99, sum by (instance, le) (rate(leeward_quorum_round_trip_seconds_bucket[5m]))) > on (instance) leeward_lease_ttl_seconds / 6",
        lasts: "10m",
        severity: "warning",
        summary: "One in a hundred answers of the quorum takes {{ $labels.instance }} longer than the time between two renewals.",
    },
    Alert {
        name: "LeewardWitnessDeaf",
        expression: "leeward_witness_heard_seconds > 30",
        lasts: "1m",
        severity: "warning",
        summary: "The witness {{ $labels.instance }} does not hear of cluster {{ $labels.cluster }}.",
    },
    Alert {
        name: "LeewardImagesMissing",
        expression: "leeward_app_images_missing > 0",
        lasts: "15m",
        severity: "warning",
        summary: "Images of {{ $labels.namespace }}/{{ $labels.app }} are not whole where {{ $labels.instance }} is.",
    },
    Alert {
        name: "LeewardFailedOver",
        expression: r#"max by (namespace, app, outcome) (increase(leeward_operations_total{kind="Failover"}[15m])) > 0"#,
        lasts: "0s",
        severity: "info",
        summary: "A failover of {{ $labels.namespace }}/{{ $labels.app }} has ended: {{ $labels.outcome }}.",
    },
    Alert {
        name: "LeewardPaused",
        expression: "max by (namespace, app) (leeward_app_paused) == 1",
        lasts: "4h",
        severity: "info",
        summary: "{{ $labels.namespace }}/{{ $labels.app }} has been paused for long: nothing fails over by itself.",
    },
    Alert {
        name: "LeewardNotFenced",
        expression: r#"max by (namespace, app) (leeward_app_condition{condition="Fenced"}) == 0"#,
        lasts: "15m",
        severity: "info",
        summary: "A writer of {{ $labels.namespace }}/{{ $labels.app }} is not behind a gate: it is fenced at best effort.",
    },
];

/// The anchor of an alert's section.
pub(super) fn anchor(alert: &Alert) -> String {
    alert.name.to_ascii_lowercase()
}

/// The file: the groups of a `PrometheusRule`'s specification, which is also a file of rules for Prometheus itself.
pub(super) fn file() -> Result<String> {
    let rule = |alert: &Alert| -> Value {
        json!({
            "alert": alert.name, "expr": alert.expression, "for": alert.lasts,
            "labels": { "severity": alert.severity },
            "annotations": {
                "summary": alert.summary,
                "runbook_url": format!("{RUNBOOKS}#{}", anchor(alert)),
            },
        })
    };
    for alert in ALERTS {
        expressions::check(alert.expression).with_context(|| format!("alert {}", alert.name))?;
    }
    let rules: Vec<Value> = ALERTS.iter().map(rule).collect();
    let groups = json!({ "groups": [{ "name": "leeward", "rules": rules }] });
    let yaml = serde_saphyr::to_string(&groups).context("the rules are no YAML")?;
    Ok(format!(
        "# Made by `cargo xtask generate` from xtask/src/generate/alerts.rs: change it there.\n{}\n",
        yaml.trim_end()
    ))
}
