//! Whose turn it is to be started, of the applications that a lost cluster leaves to this one.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use leeward_core::{
    lease::Moment,
    moves::{Arrival, Starting},
    name::{AppKey, ClusterName},
    operation::{Kind, Operation},
};
use leeward_quorum::known::{Known, Situation};

/// Time makes room, too: it is looked again after this, while the quorum does not change.
const AGAIN: Duration = Duration::from_millis(50);

/// The applications that are being started here.
pub struct Turns {
    me: ClusterName,
    together: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    starting: Starting,
    admitted: BTreeSet<AppKey>,
    /// The revision that this was looked at with, and when.
    looked: Option<(u64, Moment)>,
}

impl Turns {
    /// Nothing is started yet; at most `together` will be at a time.
    pub fn new(me: ClusterName, together: usize) -> Self {
        Self {
            me,
            together,
            state: Mutex::default(),
        }
    }

    /// Whether an application may be started here now: always, unless it fails over to here and others come first.
    pub fn has_come(&self, situation: &Situation, known: &Known, now: Moment) -> bool {
        if self.arrives(situation).is_none() {
            return true;
        }
        // Replaced as a whole: a thread that panicked left nothing half done.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = known.view.revision();
        // Every application asks: all of them are looked at once for each change.
        let holds = |(looked, at): (u64, Moment)| looked == revision && now.since(at) < AGAIN;
        if !state.looked.is_some_and(holds) {
            state.looked = Some((revision, now));
            let arrivals = known.situations().filter_map(|situation| {
                let operation = self.arrives(situation)?;
                Some(Arrival {
                    app: situation.app.value.key.clone(),
                    rto: situation.app.value.rto,
                    decided_ms: operation.decided_ms,
                    begun: !situation.journal.is_empty(),
                })
            });
            let arrivals: Vec<_> = arrivals.collect();
            state.admitted = state.starting.admit(&arrivals, self.together, now);
        }
        state.admitted.contains(&situation.app.value.key)
    }

    fn arrives<'a>(&self, situation: &'a Situation) -> Option<&'a Operation> {
        let operation = situation.plan()?.operation.as_ref()?;
        let under_way = operation.next_step(&situation.journal).is_some();
        (operation.kind == Kind::Failover && operation.to == self.me && under_way).then_some(operation)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use leeward_core::{
        name::{Epoch, Generation},
        operation::{Step, StepName, StepRecord},
        plan::Plan,
    };
    use leeward_quorum::{Entry, key};
    use serde_json::json;

    use super::*;

    fn entry(key: String, value: &impl serde::Serialize, revision: u64) -> Entry {
        Entry {
            key,
            value: Some(serde_json::to_string(value).unwrap()),
            revision,
        }
    }

    /// An application that fails over to east, and has to be back within so many seconds.
    fn fails_over(name: &str, rto: u64, revision: u64) -> [Entry; 2] {
        let app = AppKey::new("shop", name);
        let spec = json!({
            "key": app, "authority": "west", "observed": 1, "model": "ActivePassive", "placements": [],
            "rpo": { "secs": 5, "nanos": 0 }, "rto": { "secs": rto, "nanos": 0 }, "automatic": true, "roles": [],
            "traffic": null, "selector": null, "resource": null,
        });
        let operation = Operation {
            id: format!("failover-{name}"),
            kind: Kind::Failover,
            from: "west".into(),
            to: "east".into(),
            epoch: Epoch(2),
            began_ms: 1,
            decided_ms: 1,
            steps: vec![Step {
                name: StepName::Start,
                cluster: "east".into(),
            }],
            accepted_loss_ms: None,
        };
        let plan = Plan {
            generation: Generation(2),
            app: app.clone(),
            active: "east".into(),
            operation: Some(operation),
            finished: None,
        };
        [
            entry(key::spec(&app), &spec, revision),
            entry(key::plan(&app), &plan, revision),
        ]
    }

    #[test]
    fn of_what_fails_over_to_here_one_at_a_time_is_started_and_elsewhere_nobody_waits() {
        let mut known = Known::default();
        let now = Moment(Duration::from_secs(1));
        known.take([fails_over("slow", 60, 1), fails_over("fast", 10, 1)].concat(), now);
        let names = |turns: &Turns, known: &Known, now: Moment| -> Vec<String> {
            let come = known
                .situations()
                .filter(|situation| turns.has_come(situation, known, now));
            come.map(|situation| situation.app.value.key.name.clone()).collect()
        };
        let here = Turns::new("east".into(), 1);
        assert_eq!(names(&here, &known, now), ["fast"]);
        assert_eq!(names(&Turns::new("west".into(), 1), &known, now), ["fast", "slow"]);
        let done = StepRecord {
            started_ms: 1,
            ended_ms: Some(2),
            trouble: None,
            point_ms: None,
        };
        let step = key::journal(&AppKey::new("shop", "fast"), "failover-fast", StepName::Start);
        known.take(vec![entry(step, &done, 2)], now);
        // It has arrived: whoever is next begins, and it is not held up itself.
        assert_eq!(
            names(&here, &known, now.after(Duration::from_millis(50))),
            ["fast", "slow"]
        );
    }
}
