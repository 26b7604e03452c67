//! What a run came to.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::{judge::Verdict, plan::Kind};
use crate::output;

/// A fault that was made.
#[derive(Debug, Serialize)]
pub(crate) struct Made {
    pub(crate) fault: Kind,
    /// The cluster that it was made in.
    pub(crate) cluster: String,
    /// The cluster that the ActivePassive application was active in.
    pub(crate) active: String,
    /// The one that had to take over.
    pub(crate) successor: Option<String>,
    /// From its end until all was Protected again.
    pub(crate) rest_ms: Option<u64>,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// What was not tried.
#[derive(Debug, Serialize)]
pub(crate) struct Skipped {
    pub(crate) what: String,
    pub(crate) why: String,
}

/// The report.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// How long the region's leases live.
    pub(crate) lease_ms: u64,
    /// The longest that users may not be answered.
    pub(crate) limit_ms: u64,
    pub(crate) questions: u64,
    pub(crate) answered: u64,
    pub(crate) faults: Vec<Made>,
    pub(crate) skipped: Vec<Skipped>,
    /// Whether nothing is left in the clusters.
    pub(crate) removed: bool,
    /// What does not hold, of the faults and else.
    pub(crate) broken: Vec<String>,
}

impl Report {
    /// Something was not tried.
    pub(crate) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        output::say(format_args!("skipped: {what}: {why}"));
        self.skipped.push(Skipped { what, why });
    }

    /// A fault was judged.
    pub(crate) fn made(&mut self, made: Made) {
        let broken = made.verdict.broken.iter();
        self.broken
            .extend(broken.map(|broken| format!("{}: {broken}", made.fault.name())));
        self.faults.push(made);
    }

    /// Prints it for a person.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        output::line(format_args!("\n{}", self.table()))?;
        output::line(format_args!(
            "{} questions, {} answered; not answered for {} ms at the most is allowed",
            self.questions, self.answered, self.limit_ms
        ))
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["fault", "in", "active", "not answered, ms", "Protected after, ms", ""]);
        for made in &self.faults {
            let outages = made.verdict.outages.iter();
            let outages = outages.map(|outage| format!("{} at {}: {}", outage.model, outage.edge, outage.ms));
            table.add_row([
                made.fault.name().to_owned(),
                made.cluster.clone(),
                match &made.successor {
                    Some(successor) => format!("{} -> {successor}", made.active),
                    None => made.active.clone(),
                },
                outages.collect::<Vec<_>>().join("\n"),
                made.rest_ms.map_or("never".to_owned(), |ms| ms.to_string()),
                if made.verdict.broken.is_empty() {
                    "holds"
                } else {
                    "DOES NOT HOLD"
                }
                .to_owned(),
            ]);
        }
        for skipped in &self.skipped {
            let row = [skipped.what.as_str(), "", "", "", "", "skipped"];
            table.add_row(row);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_is_not_said_to_hold_and_what_broke_is_named_with_its_fault() {
        let mut report = Report::default();
        report.skip("cut-active", "no hook");
        report.made(Made {
            fault: Kind::DeletePods,
            cluster: "west".into(),
            active: "west".into(),
            successor: None,
            rest_ms: None,
            verdict: Verdict {
                outages: vec![],
                broken: vec!["nobody answered".into()],
            },
        });
        assert_eq!(report.broken, ["delete-pods: nobody answered"]);
        let table = report.table().to_string();
        let line = |name: &str| table.lines().find(|line| line.contains(name)).unwrap().to_owned();
        assert!(line("cut-active").contains("skipped"), "{table}");
        assert!(!line("cut-active").contains("holds"), "{table}");
        assert!(line("delete-pods").contains("DOES NOT HOLD"), "{table}");
    }
}
