//! What an agent says of itself on its page of metrics. Pure.

use std::collections::BTreeMap;

/// Requests until now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counts {
    /// To the Kubernetes API, by verb and resource.
    pub(super) kubernetes: BTreeMap<String, f64>,
    /// Transactions of the quorum.
    pub(super) quorum: f64,
}

const KUBERNETES: &str = "leeward_kubernetes_requests_total";
const QUORUM: &str = "leeward_quorum_round_trip_seconds_count";

impl Counts {
    /// Reads a page in the text format of OpenMetrics.
    pub(super) fn parse(page: &str) -> Self {
        let mut counts = Self::default();
        for line in page.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match name {
                KUBERNETES => {
                    let labels = labels.trim_end_matches('}').split(',');
                    let values: Vec<_> = labels
                        .filter_map(|label| Some(label.split_once('=')?.1.trim_matches('"')))
                        .collect();
                    *counts.kubernetes.entry(values.join(" ")).or_default() += value;
                }
                QUORUM => counts.quorum = value,
                _ => {}
            }
        }
        counts
    }

    /// How much more than before, for each that is more.
    pub(super) fn since(&self, before: &Self) -> Self {
        let kubernetes = self.kubernetes.iter().map(|(what, count)| {
            let before = before.kubernetes.get(what).copied().unwrap_or_default();
            (what.clone(), count - before)
        });
        Self {
            kubernetes: kubernetes.filter(|(_, more)| *more > 0.0).collect(),
            quorum: self.quorum - before.quorum,
        }
    }

    /// All requests to the Kubernetes API.
    pub(super) fn requests(&self) -> f64 {
        self.kubernetes.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_and_what_did_not_happen_since_is_left_out() {
        let page = |patches: u32, quorum: u32| {
            format!(
                "# TYPE leeward_kubernetes_requests counter\nleeward_kubernetes_requests_total{{verb=\"patch\",resource=\"protectedapps/status\"}} \
                 {patches}\nleeward_kubernetes_requests_total{{verb=\"watch\",resource=\"pods\"}} 4\n\
                 leeward_quorum_round_trip_seconds_count {quorum}\nleeward_leader 1\n# EOF\n"
            )
        };
        let (before, after) = (Counts::parse(&page(10, 3)), Counts::parse(&page(15, 40)));
        assert_eq!(before.requests(), 14.0);
        let since = after.since(&before);
        assert_eq!(
            since.kubernetes,
            [("patch protectedapps/status".to_owned(), 5.0)].into()
        );
        assert_eq!((since.requests(), since.quorum), (5.0, 37.0));
    }
}
