//! What is new in an operation since it was looked at last: a pure function of what was seen before and what is there.

use std::{collections::BTreeMap, time::Duration};

use leeward_api::{Operation, operation::StepStatus};

use crate::status::seconds;

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The application is where it was to be.
    Succeeded,
    /// It was refused, or failed.
    Failed,
}

/// What is new.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// A line for each thing that happened.
    pub(super) lines: Vec<String>,
    /// What is waited for.
    pub(super) now: String,
    /// How it ended, when it has.
    pub(super) verdict: Option<Verdict>,
}

/// What was said already.
#[derive(Debug, Default)]
pub(super) struct Progress {
    seen: bool,
    steps: BTreeMap<usize, Said>,
    trouble: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Started,
    Ended,
}

impl Progress {
    /// Whether the operation was seen.
    pub(super) fn began(&self) -> bool {
        self.seen
    }

    /// Looks at the operation as it is now.
    pub(super) fn look(&mut self, operation: &Operation) -> News {
        self.seen = true;
        let mut news = News {
            now: "waiting for the leader to decide".into(),
            ..News::default()
        };
        let Some(status) = &operation.status else { return news };
        for (index, step) in status.steps.iter().enumerate() {
            self.step(index, step, &mut news.lines);
        }
        let message = status.message.clone().unwrap_or_default();
        match status.phase.as_deref() {
            Some("Running") => {
                news.now = match message.is_empty() {
                    true => "waiting for the leader to end it".to_owned(),
                    false => format!("waiting for {message}"),
                };
                // Its message names the step; what follows the colon is why it is not done.
                let trouble = message.split_once(": ").map(|(_, trouble)| trouble.to_owned());
                if trouble.is_some() && trouble != self.trouble {
                    news.lines.push(format!("  {message}"));
                }
                self.trouble = trouble;
            }
            Some("Succeeded") => {
                let rto = status
                    .rto
                    .map(|rto| format!(" after {}", seconds(rto.into())))
                    .unwrap_or_default();
                let epoch = status.epoch.map(|epoch| format!(", epoch {epoch}")).unwrap_or_default();
                news.lines.push(format!("succeeded{rto}: {message}{epoch}"));
                news.verdict = Some(Verdict::Succeeded);
            }
            Some(phase @ ("Refused" | "Failed")) => {
                news.lines.push(format!("{}: {message}", phase.to_lowercase()));
                news.verdict = Some(Verdict::Failed);
            }
            _ => {}
        }
        news
    }

    fn step(&mut self, index: usize, step: &StepStatus, lines: &mut Vec<String>) {
        let place = match step.cluster.as_str() {
            "" => String::new(),
            cluster => format!(" in {cluster}"),
        };
        let said = self.steps.get(&index).copied();
        if said.is_none() && step.started.is_some() && step.ended.is_none() {
            lines.push(format!("{}{place} ...", step.name));
            self.steps.insert(index, Said::Started);
        }
        if said != Some(Said::Ended)
            && let (Some(started), Some(ended)) = (&step.started, &step.ended)
        {
            let took = Duration::try_from(ended.0.duration_since(started.0)).unwrap_or_default();
            let outcome = step.outcome.as_deref().unwrap_or("Done").to_lowercase();
            lines.push(format!("{}{place}: {outcome} in {}", step.name, seconds(took)));
            self.steps.insert(index, Said::Ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn operation(status: Value) -> Operation {
        serde_json::from_value(json!({
            "apiVersion": "leeward.dev/v1alpha1", "kind": "Operation",
            "metadata": {"name": "op", "namespace": "shop"},
            "spec": {"type": "Switchover", "app": "shop", "to": "east"},
            "status": status,
        }))
        .unwrap()
    }

    fn step(name: &str, cluster: &str, started_ms: u32, ended_ms: Option<u32>) -> Value {
        let time = |ms: u32| format!("2026-01-01T00:00:{:02}.{:03}000Z", ms / 1000, ms % 1000);
        let mut step = json!({"name": name, "cluster": cluster, "started": time(started_ms)});
        if let Some(ended) = ended_ms {
            step["ended"] = time(ended).into();
            step["outcome"] = "Done".into();
        }
        step
    }

    #[test]
    fn each_step_is_told_once_when_it_starts_and_once_when_it_ends() {
        let mut progress = Progress::default();
        let first = operation(json!({"phase": "Running", "message": "Quiesce in west", "steps": [
            step("Decide", "", 0, Some(40)), step("Quiesce", "west", 50, None), {"name": "Release", "cluster": "west"}]}));
        let news = progress.look(&first);
        assert_eq!(news.lines, ["Decide: done in 40 ms", "Quiesce in west ..."]);
        assert_eq!(news.now, "waiting for Quiesce in west");
        assert_eq!(progress.look(&first).lines, [""; 0]);
        let second = operation(
            json!({"phase": "Succeeded", "message": "east is active", "epoch": 2, "rto": "2.25s", "steps": [
            step("Decide", "", 0, Some(40)), step("Quiesce", "west", 50, Some(2050)), step("Release", "west", 2060, Some(2061))]}),
        );
        let news = progress.look(&second);
        assert_eq!(
            news.lines,
            [
                "Quiesce in west: done in 2 s",
                "Release in west: done in 1 ms",
                "succeeded after 2.2 s: east is active, epoch 2"
            ]
        );
        assert_eq!(news.verdict, Some(Verdict::Succeeded));
    }

    #[test]
    fn trouble_is_told_when_it_changes() {
        let mut progress = Progress::default();
        let waiting = |pods| {
            let message = format!("Quiesce in west: {pods} pods to end");
            operation(json!({"phase": "Running", "message": message, "steps": []}))
        };
        assert_eq!(progress.look(&waiting(2)).lines, ["  Quiesce in west: 2 pods to end"]);
        assert_eq!(progress.look(&waiting(2)).lines, [""; 0]);
        assert_eq!(progress.look(&waiting(1)).lines, ["  Quiesce in west: 1 pods to end"]);
    }

    #[test]
    fn a_refusal_ends_it_with_its_reason() {
        let mut progress = Progress::default();
        assert_eq!(progress.look(&operation(Value::Null)).verdict, None);
        let refused = operation(json!({"phase": "Refused", "message": "east is active already"}));
        let news = progress.look(&refused);
        assert_eq!(news.lines, ["refused: east is active already"]);
        assert_eq!(news.verdict, Some(Verdict::Failed));
    }
}
