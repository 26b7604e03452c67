//! The reference page of the metrics, made from the table by which they are written.

use std::fmt::Write as _;

use anyhow::Result;
use leeward_api::metrics::{ALL, By};

const INTRODUCTION: &str = "\
`leeward serve` and `leeward witness` answer at `metrics_address` with plain HTTP, where their configuration names one: `/metrics` as OpenMetrics text, \
`/livez` and `/readyz` with 200 or with 503 and the reason. [How to scrape them](../how-to/watch-with-prometheus.md), and \
[what the alerts mean](../how-to/alerts.md).

Every agent says what it knows of all clusters and applications, so that a lost region takes no knowledge along. Where one number is wanted, take the \
highest of the regions: `max by (namespace, app) (...)`. Labels name applications, roles, clusters and fixed words: there are never more series than \
applications times clusters, for each row.

A histogram's samples end with `_bucket`, `_sum` and `_count`. `-` means that there is none.
";

/// The page.
pub(super) fn page() -> Result<String> {
    let mut page = format!(
        "<!-- Made by `cargo xtask generate` from crates/api/src/metrics.rs: change it there. -->\n# Metrics\n\n{INTRODUCTION}\n\
         | name | type | unit | labels | from | meaning |\n|---|---|---|---|---|---|\n"
    );
    for metric in ALL {
        let unit = metric.unit.map_or("-", |unit| unit.as_str());
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() {
            "-".to_owned()
        } else {
            labels.join(", ")
        };
        let from = match metric.by {
            By::Agent => "agent",
            By::Witness => "witness",
            By::Each => "both",
        };
        let (name, kind) = (metric.name(), metric.kind.as_str());
        writeln!(
            page,
            "| `{name}` | {kind} | {unit} | {labels} | {from} | {} |",
            metric.meaning
        )?;
    }
    Ok(page)
}
