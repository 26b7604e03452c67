//! What is new in an operation since it was looked at last: a pure function of what was seen before and what is there.

use std::{collections::BTreeMap, time::Duration};

use leeward_api::{Operation, OperationStatus, condition, operation::StepStatus};
use leeward_core::name::Epoch;

use crate::status::seconds;

/// What the person who follows it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// That the application moves.
    Move,
    /// That it stays where it is.
    CallOff,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The application is where the person wants it.
    AsWished,
    /// It was refused, or failed, or ended otherwise.
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
#[derive(Debug)]
pub(super) struct Progress {
    wish: Wish,
    seen: bool,
    cancellable: bool,
    late: bool,
    steps: BTreeMap<usize, Said>,
    trouble: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Started,
    Ended,
}

impl Progress {
    /// Nothing was said yet.
    pub(super) fn new(wish: Wish) -> Self {
        Self {
            wish,
            seen: false,
            cancellable: false,
            late: false,
            steps: BTreeMap::new(),
            trouble: None,
        }
    }

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
        self.returns(status, &mut news);
        let message = status.message.clone().unwrap_or_default();
        let verdict = |wish| match self.wish == wish {
            true => Some(Verdict::AsWished),
            false => Some(Verdict::Failed),
        };
        match status.phase.as_deref() {
            Some("Running") => {
                news.now = match message.is_empty() {
                    true => "waiting for the leader to end it".to_owned(),
                    false => format!("waiting for {message}"),
                };
                if self.cancellable {
                    news.now.push_str("; it can still be called off");
                }
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
                let epoch = status
                    .epoch
                    .map(|epoch| format!(", epoch {}", Epoch(epoch).readable()))
                    .unwrap_or_default();
                news.lines.push(format!("succeeded{rto}: {message}{epoch}"));
                news.verdict = verdict(Wish::Move);
            }
            Some("Cancelled") => {
                news.lines.push(format!("cancelled: {message}"));
                news.verdict = verdict(Wish::CallOff);
            }
            Some(phase @ ("Refused" | "Failed")) => {
                news.lines.push(format!("{}: {message}", phase.to_lowercase()));
                news.verdict = Some(Verdict::Failed);
            }
            _ => {}
        }
        news
    }

    /// Whether there is a way back, where that has changed.
    fn returns(&mut self, status: &OperationStatus, news: &mut News) {
        let cancellable = status.cancellable.unwrap_or(false);
        if self.cancellable && !cancellable && status.phase.as_deref() != Some("Cancelled") {
            news.lines
                .push("past the point of no return: it cannot be called off any more".into());
        }
        self.cancellable = cancellable;
        let mut conditions = status.conditions.iter();
        let late = conditions.find(|found| found.type_ == condition::CANCELLED && found.status == "False");
        if let Some(late) = late.filter(|_| !self.late) {
            self.late = true;
            news.lines.push(format!("not called off: {}", late.message));
            if self.wish == Wish::CallOff {
                news.verdict = Some(Verdict::Failed);
            }
        }
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
        let mut progress = Progress::new(Wish::Move);
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
        assert_eq!(news.verdict, Some(Verdict::AsWished));
        let later =
            operation(json!({"phase": "Succeeded", "message": "west is active", "epoch": 1_099_511_627_781_u64}));
        let lines = Progress::new(Wish::Move).look(&later).lines;
        assert_eq!(lines, ["succeeded: west is active, epoch 1.5"]);
    }

    #[test]
    fn the_point_of_no_return_is_told_when_it_is_passed() {
        let mut progress = Progress::new(Wish::Move);
        let running = |step: &str, cancellable: bool| {
            operation(json!({"phase": "Running", "message": step, "cancellable": cancellable, "steps": []}))
        };
        let before = progress.look(&running("Quiesce in west", true));
        assert_eq!(before.now, "waiting for Quiesce in west; it can still be called off");
        assert_eq!(before.lines, [""; 0]);
        let after = progress.look(&running("Take in east", false));
        assert_eq!(after.now, "waiting for Take in east");
        assert_eq!(
            after.lines,
            ["past the point of no return: it cannot be called off any more"]
        );
    }

    #[test]
    fn who_calls_it_off_wants_it_cancelled_and_who_asked_for_it_does_not() {
        let ended = operation(json!({"phase": "Cancelled", "message": "west is active again"}));
        for (wish, verdict) in [(Wish::CallOff, Verdict::AsWished), (Wish::Move, Verdict::Failed)] {
            let news = Progress::new(wish).look(&ended);
            assert_eq!(news.lines, ["cancelled: west is active again"]);
            assert_eq!(news.verdict, Some(verdict));
        }
    }

    #[test]
    fn who_calls_it_off_too_late_hears_why() {
        let late = operation(json!({"phase": "Running", "message": "Start in east", "conditions": [{
            "type": "Cancelled", "status": "False", "reason": "TooLate", "message": "east has taken the roles",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}));
        for (wish, verdict) in [(Wish::CallOff, Some(Verdict::Failed)), (Wish::Move, None)] {
            let news = Progress::new(wish).look(&late);
            assert_eq!(news.lines, ["not called off: east has taken the roles"]);
            assert_eq!(news.verdict, verdict);
        }
    }

    #[test]
    fn trouble_is_told_when_it_changes() {
        let mut progress = Progress::new(Wish::Move);
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
        let mut progress = Progress::new(Wish::Move);
        assert_eq!(progress.look(&operation(Value::Null)).verdict, None);
        let refused = operation(json!({"phase": "Refused", "message": "east is active already"}));
        let news = progress.look(&refused);
        assert_eq!(news.lines, ["refused: east is active already"]);
        assert_eq!(news.verdict, Some(Verdict::Failed));
    }
}
