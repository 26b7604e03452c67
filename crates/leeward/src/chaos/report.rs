//! What a run of faults came to.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::{
    kind::{Fault, Kind},
    verdict::Verdict,
};
use crate::output;

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    seed: u64,
    rounds: u64,
    faults: BTreeMap<Kind, u64>,
    writes: Verdict,
    /// Whether everything was Protected after each fault and at the end.
    protected: bool,
    /// The longest time from the end of a fault until everything was Protected and writes were acknowledged, milliseconds.
    longest_rest_ms: u64,
    /// What `explain` said where nothing failed over because more than the rpo could have been lost.
    explained: Option<String>,
    broken: Vec<String>,
    #[serde(skip)]
    history: Vec<Fault>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            rounds: 0,
            faults: BTreeMap::new(),
            writes: Verdict::default(),
            protected: false,
            longest_rest_ms: 0,
            explained: None,
            broken: vec![],
            history: vec![],
        }
    }

    /// A fault is about to be made.
    pub(crate) fn made(&mut self, fault: Fault) {
        self.rounds += 1;
        self.protected = false;
        *self.faults.entry(fault.kind).or_default() += 1;
        self.history.push(fault);
    }

    /// Another one was made at the same time.
    pub(crate) fn also(&mut self, kind: Kind) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// How many were made.
    pub(crate) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Everything was at rest this long after a fault.
    pub(crate) fn rested(&mut self, after: Duration) {
        self.longest_rest_ms = self.longest_rest_ms.max(after.as_millis() as u64);
    }

    /// All writes so far were judged, and everything is Protected.
    pub(crate) fn judged(&mut self, verdict: Verdict) {
        self.protected = true;
        for broken in verdict.broken() {
            if !self.broken.contains(&broken) {
                self.broken.push(broken);
            }
        }
        self.writes = verdict;
    }

    /// What `explain` said.
    pub(crate) fn explained(&mut self, why: &str) {
        self.explained = Some(why.to_owned());
    }

    /// Something does not hold.
    pub(crate) fn broke(&mut self, what: String) {
        self.broken.push(what);
    }

    /// What does not hold.
    pub(crate) fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Whether two writers were noticed.
    pub(crate) fn has_two_writers(&self) -> bool {
        self.writes.conflicts > 0
    }

    /// Prints it for a person.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for (kind, count) in &self.faults {
            let name = serde_json::to_value(kind)?.as_str().unwrap_or_default().to_owned();
            table.add_row(vec![name, count.to_string()]);
        }
        let writes = &self.writes;
        let rows = [
            ("faults", self.rounds.to_string()),
            ("epochs", writes.epoch.to_string()),
            (
                "writes",
                format!(
                    "{} acknowledged, {} refused, {} unknown",
                    writes.acknowledged, writes.refused, writes.unknown
                ),
            ),
            (
                "acknowledged and lost",
                format!(
                    "{} (the last {} ms of an epoch at the most), {} beyond the rpo, {} in a switchover",
                    writes.lost, writes.lost_window_ms, writes.lost_beyond_rpo, writes.lost_in_order
                ),
            ),
            ("holes, two writers", format!("{}, {}", writes.holes, writes.conflicts)),
            (
                "at rest after a fault's end",
                format!("{} ms at the most", self.longest_rest_ms),
            ),
            (
                "Protected at the end",
                if self.protected { "yes" } else { "no" }.to_owned(),
            ),
        ];
        for (name, value) in rows {
            table.add_row(vec![name.to_owned(), value]);
        }
        output::line(format_args!("\n{table}"))?;
        match &self.explained {
            Some(why) => output::line(format_args!("explain, where nobody may take over: {why}")),
            None => Ok(()),
        }
    }
}
