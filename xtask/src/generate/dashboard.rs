//! The dashboard for Grafana, made from one table of panels.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::expressions;

/// A panel.
pub(super) struct Panel {
    title: &'static str,
    /// A unit of Grafana.
    unit: &'static str,
    /// `stat` for one number, `timeseries` for its course.
    kind: &'static str,
    /// What is shown, and what each series is called.
    pub(super) queries: &'static [(&'static str, &'static str)],
}

const STAT: &str = "stat";
const COURSE: &str = "timeseries";

/// All of them, from left to right and from top to bottom, three in a row.
pub(super) const PANELS: &[Panel] = &[
    Panel {
        title: "Applications that would survive the loss of a region",
        unit: "percentunit",
        kind: STAT,
        queries: &[(
            r#"avg(max by (namespace, app) (leeward_app_condition{condition="Protected"}))"#,
            "protected",
        )],
    },
    Panel {
        title: "Applications that nobody serves",
        unit: "none",
        kind: STAT,
        queries: &[(
            r#"count(max by (namespace, app) (leeward_app_condition{condition="Serving"}) == 0) or vector(0)"#,
            "not served",
        )],
    },
    Panel {
        title: "Clusters that hold their lease",
        unit: "none",
        kind: STAT,
        queries: &[("max by (cluster) (leeward_cluster_lease_held)", "{{cluster}}")],
    },
    Panel {
        title: "Active cluster",
        unit: "none",
        kind: COURSE,
        queries: &[(
            "max by (namespace, app, cluster) (leeward_app_active) == 1",
            "{{namespace}}/{{app}}: {{cluster}}",
        )],
    },
    Panel {
        title: "What would be lost now, of the rpo",
        unit: "percentunit",
        kind: COURSE,
        queries: &[(
            "min by (namespace, app) (leeward_app_loss_seconds) / on (namespace, app) max by (namespace, app) (leeward_app_rpo_objective_seconds)",
            "{{namespace}}/{{app}}",
        )],
    },
    Panel {
        title: "Lag of the standbys",
        unit: "s",
        kind: COURSE,
        queries: &[(
            "min by (namespace, app, role, cluster) (leeward_role_lag_seconds)",
            "{{namespace}}/{{app}} {{role}} in {{cluster}}",
        )],
    },
    Panel {
        title: "Age of the newest renewal of each lease",
        unit: "s",
        kind: COURSE,
        queries: &[
            ("min by (cluster) (leeward_cluster_lease_age_seconds)", "{{cluster}}"),
            ("max(leeward_lease_ttl_seconds)", "time to live"),
        ],
    },
    Panel {
        title: "Round trip to the quorum",
        unit: "s",
        kind: COURSE,
        queries: &[
            (
                "histogram_quantile(0.5, sum by (instance, le) (rate(leeward_quorum_round_trip_seconds_bucket[5m])))",
                "{{instance}} median",
            ),
            (
                "histogram_quantile(0.99, sum by (instance, le) (rate(leeward_quorum_round_trip_seconds_bucket[5m])))",
                "{{instance}} 99 %",
            ),
        ],
    },
    Panel {
        title: "Renewals",
        unit: "ops",
        kind: COURSE,
        queries: &[(
            "sum by (cluster, outcome) (rate(leeward_lease_renewals_total[5m]))",
            "{{cluster}} {{outcome}}",
        )],
    },
    Panel {
        title: "Requests, by the cluster that answered",
        unit: "reqps",
        kind: COURSE,
        queries: &[(
            "sum by (namespace, app, cluster, code) (rate(leeward_edge_requests_total[5m]))",
            "{{namespace}}/{{app}} {{cluster}} {{code}}",
        )],
    },
    Panel {
        title: "Time until an answer",
        unit: "s",
        kind: COURSE,
        queries: &[
            (
                "histogram_quantile(0.5, sum by (instance, le) (rate(leeward_edge_request_duration_seconds_bucket[5m])))",
                "{{instance}} median",
            ),
            (
                "histogram_quantile(0.99, sum by (instance, le) (rate(leeward_edge_request_duration_seconds_bucket[5m])))",
                "{{instance}} 99 %",
            ),
        ],
    },
    Panel {
        title: "Not admitted, fenced, not delivered, unknown",
        unit: "reqps",
        kind: COURSE,
        queries: &[
            (
                "sum by (instance) (rate(leeward_edge_not_admitted_total[5m]))",
                "{{instance}} not admitted",
            ),
            (
                "sum by (instance) (rate(leeward_edge_fenced_total[5m]))",
                "{{instance}} fenced",
            ),
            (
                "sum by (instance) (rate(leeward_edge_not_delivered_total[5m]))",
                "{{instance}} not delivered",
            ),
            (
                "sum by (instance) (rate(leeward_edge_unknown_total[5m]))",
                "{{instance}} unknown",
            ),
        ],
    },
    Panel {
        title: "Endpoints that each edge takes for healthy",
        unit: "none",
        kind: COURSE,
        queries: &[(
            "sum by (instance, cluster) (leeward_probe_healthy)",
            "{{cluster}} by {{instance}}",
        )],
    },
    Panel {
        title: "Operations in the last hour",
        unit: "none",
        kind: COURSE,
        queries: &[(
            "sum by (kind, outcome) (max by (namespace, app, kind, outcome) (increase(leeward_operations_total[1h])))",
            "{{kind}} {{outcome}}",
        )],
    },
    Panel {
        title: "Time of the steps of operations, nine in ten",
        unit: "s",
        kind: COURSE,
        queries: &[(
            "histogram_quantile(0.9, sum by (step, le) (increase(leeward_operation_step_duration_seconds_bucket[1d])))",
            "{{step}}",
        )],
    },
    Panel {
        title: "Requests to the Kubernetes API a minute",
        unit: "none",
        kind: COURSE,
        queries: &[(
            "sum by (instance, verb) (rate(leeward_kubernetes_requests_total[5m])) * 60",
            "{{instance}} {{verb}}",
        )],
    },
    Panel {
        title: "Images that are not whole",
        unit: "none",
        kind: COURSE,
        queries: &[
            ("sum by (instance) (leeward_app_images_missing)", "{{instance}} images"),
            ("sum by (instance) (leeward_images_missing_blobs)", "{{instance}} blobs"),
        ],
    },
    Panel {
        title: "Memory and processors",
        unit: "none",
        kind: COURSE,
        queries: &[
            (
                "process_resident_memory_bytes / 1048576 and on (instance) leeward_build_info",
                "{{instance}} MiB",
            ),
            (
                "rate(process_cpu_seconds_total[5m]) * 100 and on (instance) leeward_build_info",
                "{{instance}} % of a core",
            ),
        ],
    },
];

/// The file.
pub(super) fn file() -> Result<String> {
    for panel in PANELS {
        for (query, _) in panel.queries {
            expressions::check(query).with_context(|| format!("panel {}", panel.title))?;
        }
    }
    let panels: Vec<Value> = PANELS.iter().zip(0_usize..).map(panel).collect();
    let dashboard = json!({
        "title": "Leeward", "uid": "leeward", "schemaVersion": 39, "version": 1,
        "tags": ["leeward"], "timezone": "utc", "refresh": "30s", "time": { "from": "now-1h", "to": "now" },
        "description": "Made by `cargo xtask generate` from xtask/src/generate/dashboard.rs: change it there.",
        "templating": { "list": [{
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        }] },
        "panels": panels,
    });
    let text = serde_json::to_string_pretty(&dashboard).context("the dashboard is no JSON")?;
    Ok(text + "\n")
}

fn panel((panel, at): (&Panel, usize)) -> Value {
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    let target = |(query, id): (&(&str, &str), char)| json!({ "refId": id.to_string(), "expr": query.0, "legendFormat": query.1, "datasource": source });
    let targets: Vec<Value> = panel.queries.iter().zip('A'..='Z').map(target).collect();
    json!({
        "id": at + 1, "type": panel.kind, "title": panel.title, "datasource": source,
        "gridPos": { "x": at % 3 * 8, "y": at / 3 * 8, "w": 8, "h": 8 },
        "fieldConfig": { "defaults": { "unit": panel.unit, "min": 0 }, "overrides": [] },
        "targets": targets,
    })
}
