//! The operations that ended while the agent looked.
//!
//! The quorum keeps of each application the operation that ended last. One that is there when the application is seen for the first time ended
//! before, and is not counted.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use leeward_core::{
    name::AppKey,
    operation::{Finished, Kind, Outcome, StepName},
};
use leeward_quorum::known::{Known, Situation};
use leeward_traffic::Histogram;

/// All steps, in the order in which they are written.
pub(super) const STEPS: [StepName; 6] = [
    StepName::Quiesce,
    StepName::LastPoint,
    StepName::Release,
    StepName::Take,
    StepName::Promote,
    StepName::Start,
];

/// Both kinds.
pub(super) const KINDS: [Kind; 2] = [Kind::Failover, Kind::Switchover];

/// How many ended, by kind and outcome.
pub(super) type Ended = BTreeMap<(&'static str, &'static str), u64>;

/// What is remembered of an application.
#[derive(Debug, Default)]
struct App {
    /// The operation that ended last.
    last: Option<String>,
    ended: Ended,
}

/// What was counted.
#[derive(Debug)]
pub(crate) struct Operations {
    apps: Mutex<BTreeMap<AppKey, App>>,
    took: [Histogram; 2],
    steps: [Histogram; 6],
}

impl Default for Operations {
    fn default() -> Self {
        Self {
            apps: Mutex::default(),
            took: KINDS.map(|_| Histogram::new(Histogram::LONG)),
            steps: STEPS.map(|_| Histogram::new(Histogram::LONG)),
        }
    }
}

impl Operations {
    /// Takes in what is known now; the applications of which an operation ended since.
    pub(crate) fn look(&self, known: &Known) -> Vec<AppKey> {
        let (mut apps, mut now_ended) = (self.apps(), vec![]);
        for situation in known.situations() {
            let finished = situation.plan().and_then(|plan| plan.finished.as_ref());
            let id = finished.map(|finished| finished.operation.id.as_str());
            match apps.get_mut(&situation.app.value.key) {
                Some(app) if app.last.as_deref() == id => {}
                Some(app) => {
                    app.last = id.map(str::to_owned);
                    if let Some(finished) = finished {
                        let row = (kind(finished.operation.kind), outcome(&finished.outcome));
                        *app.ended.entry(row).or_default() += 1;
                        self.observe(situation, finished);
                        now_ended.push(situation.app.value.key.clone());
                    }
                }
                None => {
                    let last = id.map(str::to_owned);
                    let ended = Ended::new();
                    apps.insert(situation.app.value.key.clone(), App { last, ended });
                }
            }
        }
        if apps.len() > known.situations().len() {
            apps.retain(|app, _| known.situation(app).is_some());
        }
        now_ended
    }

    /// The times of one that succeeded. Once another one has begun, the journal is that one's.
    fn observe(&self, situation: &Situation, finished: &Finished) {
        let quiet = situation.plan().is_some_and(|plan| plan.operation.is_none());
        if finished.outcome != Outcome::Succeeded || !quiet {
            return;
        }
        let operation = &finished.operation;
        let between = |from: u64, to: u64| Duration::from_millis(to.saturating_sub(from));
        let of_kind = KINDS.iter().position(|kind| *kind == operation.kind);
        if let Some(took) = of_kind.and_then(|at| self.took.get(at)) {
            took.observe(between(operation.began_ms, finished.ended_ms));
        }
        for (step, took) in STEPS.iter().zip(&self.steps) {
            let record = situation.journal.get(step);
            if let Some((record, ended)) = record.and_then(|record| Some((record, record.ended_ms?))) {
                took.observe(between(record.started_ms, ended));
            }
        }
    }

    /// How many ended, by application, kind and outcome.
    pub(super) fn ended(&self) -> BTreeMap<AppKey, Ended> {
        let apps = self.apps();
        apps.iter().map(|(key, app)| (key.clone(), app.ended.clone())).collect()
    }

    /// How long those of each kind took.
    pub(super) fn took(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        KINDS.iter().map(|one| kind(*one)).zip(&self.took)
    }

    /// How long each step took.
    pub(super) fn steps(&self) -> impl Iterator<Item = (String, &Histogram)> {
        STEPS.iter().map(|step| format!("{step:?}")).zip(&self.steps)
    }

    fn apps(&self) -> MutexGuard<'_, BTreeMap<AppKey, App>> {
        // Counts that are one behind after a panic elsewhere are no reason to stop counting.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The word for a kind, as in `spec.type` of an `Operation`.
pub(super) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Failover => "Failover",
        Kind::Switchover => "Switchover",
    }
}

/// Every outcome.
pub(super) const OUTCOMES: [&str; 3] = ["Succeeded", "Cancelled", "Failed"];

/// The word for an outcome, as in `status.phase` of an `Operation`.
fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "Succeeded",
        Outcome::Cancelled => "Cancelled",
        Outcome::Failed(_) => "Failed",
    }
}

#[cfg(test)]
mod tests {
    use leeward_core::{
        lease::Moment,
        name::{Epoch, Generation},
        operation::{Operation, StepRecord},
        plan::Plan,
    };
    use leeward_quorum::{Entry, key};
    use serde_json::json;

    use super::*;

    fn app() -> AppKey {
        AppKey::new("shop", "web")
    }

    fn entry(key: String, value: Option<impl serde::Serialize>, revision: u64) -> Entry {
        let value = value.map(|value| serde_json::to_string(&value).unwrap());
        Entry { key, value, revision }
    }

    /// What is known once an operation of this name ended so, at a revision.
    fn ended(known: &mut Known, id: &str, outcome: Outcome, revision: u64) {
        let operation = Operation {
            id: id.into(),
            kind: Kind::Failover,
            from: "west".into(),
            to: "east".into(),
            epoch: Epoch(2),
            began_ms: 1_000,
            decided_ms: 2_000,
            steps: vec![],
            accepted_loss_ms: None,
        };
        let plan = Plan {
            generation: Generation(revision),
            app: app(),
            active: "east".into(),
            operation: None,
            finished: Some(Finished {
                operation,
                ended_ms: 9_000,
                outcome,
            }),
        };
        let record = StepRecord {
            started_ms: 3_000,
            ended_ms: Some(3_400),
            trouble: None,
            point_ms: None,
        };
        let spec = json!({
            "key": app(), "authority": "west", "observed": 1, "model": "ActivePassive", "placements": [],
            "rpo": { "secs": 5, "nanos": 0 }, "rto": { "secs": 60, "nanos": 0 }, "automatic": true, "roles": [],
            "traffic": null, "selector": null, "resource": null,
        });
        let step = key::journal(&app(), id, StepName::Promote);
        let entries = vec![
            entry(key::spec(&app()), Some(spec), 1),
            entry(step, Some(record), revision),
            entry(key::plan(&app()), Some(plan), revision),
        ];
        known.take(entries, Moment::default());
        assert_eq!(known.situations().len(), 1, "the specification of this test is none");
    }

    #[test]
    fn an_operation_is_counted_once_and_one_that_ended_before_the_first_look_is_not() {
        let (operations, mut known) = (Operations::default(), Known::default());
        ended(&mut known, "before", Outcome::Succeeded, 2);
        operations.look(&known);
        assert_eq!(operations.ended(), [(app(), Ended::new())].into());
        ended(&mut known, "failover-1", Outcome::Succeeded, 3);
        operations.look(&known);
        operations.look(&known);
        ended(&mut known, "failover-2", Outcome::Failed("a reason".into()), 4);
        operations.look(&known);
        let counted: Ended = [(("Failover", "Failed"), 1), (("Failover", "Succeeded"), 1)].into();
        assert_eq!(operations.ended(), [(app(), counted)].into());
        // The one that succeeded, and its step of 400 ms.
        let took: Vec<_> = operations.took().map(|(kind, took)| (kind, took.sum())).collect();
        assert_eq!(took, [("Failover", 8.0), ("Switchover", 0.0)]);
        let promote = operations.steps().find(|(step, _)| step == "Promote").unwrap().1;
        assert!((promote.sum() - 0.4).abs() < 1e-9, "{promote:?}");
        known.take(vec![entry(key::spec(&app()), None::<()>, 5)], Moment::default());
        operations.look(&known);
        assert!(operations.ended().is_empty());
    }
}
