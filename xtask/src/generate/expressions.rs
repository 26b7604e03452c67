//! Whether what alerts and panels ask for is there: every metric in the table, with its labels, and rates of what only grows.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use leeward_api::metrics::{ALL, Kind, Metric};

/// Labels that Prometheus and histograms add.
const ADDED: &[&str] = &["instance", "job", "le"];
/// What a list of labels follows.
const GROUPING: &[&str] = &["by", "on", "without", "ignoring", "group_left", "group_right"];

/// Checks an expression of PromQL.
pub(super) fn check(expression: &str) -> Result<()> {
    let words = words(expression);
    let mut known = BTreeSet::from_iter(ADDED.iter().copied());
    let mut named = 0;
    for (at, word) in words.iter().enumerate() {
        if !["leeward_", "process_"].iter().any(|begin| word.starts_with(begin)) {
            continue;
        }
        let metric = find(word)?;
        named += 1;
        known.extend(metric.labels);
        let grows = matches!(metric.kind, Kind::Counter | Kind::Histogram);
        let rated = at >= 2 && words[at - 1] == "(" && ["rate", "increase"].contains(&words[at - 2]);
        ensure!(
            grows == rated,
            "{word}: only what grows has a rate, and nothing is said by what it has grown to"
        );
        for label in between(&words[at + 1..], "{", "}") {
            let has = ADDED.contains(&label) || metric.labels.contains(&label);
            ensure!(has, "{word} has no label {label}");
        }
    }
    ensure!(named > 0, "it asks for no metric of Leeward");
    for (at, word) in words.iter().enumerate() {
        if GROUPING.contains(word) {
            for label in between(&words[at + 1..], "(", ")") {
                ensure!(known.contains(label), "no metric in it has a label {label}");
            }
        }
    }
    Ok(())
}

/// The metric that a sample is of.
fn find(sample: &str) -> Result<&'static Metric> {
    let found = ALL
        .iter()
        .find(|metric| metric.samples().iter().any(|name| name == sample));
    found.ok_or_else(|| anyhow::anyhow!("{sample} is not in the table of metrics"))
}

/// Names and single signs; what is quoted is left out.
fn words(expression: &str) -> Vec<&str> {
    let mut words = vec![];
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = match first {
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            c if name(c) => rest.find(|c| !name(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (word, after) = rest.split_at(length);
        if first != '"' && !first.is_whitespace() {
            words.push(word);
        }
        rest = after;
    }
    words
}

/// The names between a pair of signs that comes next, if one does.
fn between<'a>(words: &[&'a str], open: &str, close: &str) -> Vec<&'a str> {
    if words.first() != Some(&open) {
        return vec![];
    }
    let inner = words[1..].iter().take_while(|word| **word != close);
    let is_name = |word: &&&str| word.starts_with(|c: char| c.is_ascii_alphabetic());
    inner.filter(is_name).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::generate::{alerts, dashboard};
    use crate::workspace::Workspace;

    #[test]
    fn every_alert_and_every_panel_asks_for_what_there_is() {
        for alert in alerts::ALERTS {
            check(alert.expression).unwrap_or_else(|error| panic!("{}: {error}", alert.name));
        }
        for (query, _) in dashboard::PANELS.iter().flat_map(|panel| panel.queries) {
            check(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let refused = |expression: &str| check(expression).unwrap_err().to_string();
        assert!(refused("leeward_nothing > 0").contains("leeward_nothing is not in the table"));
        assert!(refused("rate(leeward_edge_requests[5m])").contains("leeward_edge_requests is not"));
        assert!(refused(r#"leeward_leader{app="x"} > 0"#).contains("has no label app"));
        assert!(refused("max by (role) (leeward_leader)").contains("no metric in it has a label role"));
        assert!(refused("rate(leeward_leader[5m])").contains("only what grows"));
        assert!(refused("leeward_edge_fenced_total > 1").contains("only what grows"));
        assert!(refused("up == 0").contains("no metric of Leeward"));
    }

    #[test]
    fn every_alert_has_a_section_and_every_section_an_alert() {
        let file = Workspace::find().unwrap().root().join("docs/how-to/alerts.md");
        let page = std::fs::read_to_string(file).unwrap();
        let sections: BTreeSet<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let names: BTreeSet<_> = alerts::ALERTS.iter().map(|alert| alert.name).collect();
        assert_eq!(sections, names);
        for alert in alerts::ALERTS {
            assert_eq!(
                alerts::anchor(alert),
                alert.name.to_lowercase(),
                "the anchor that a heading gets"
            );
        }
        let metrics: BTreeSet<_> = ALL
            .iter()
            .flat_map(|metric| [metric.name(), metric.family.to_owned()])
            .collect();
        let code = page.split('`').skip(1).step_by(2);
        for word in code.filter(|code| code.starts_with("leeward_")) {
            assert!(metrics.contains(word), "alerts.md: there is no metric {word}");
        }
    }
}
