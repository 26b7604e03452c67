use std::time::Duration;

use leeward_core::{
    app::{App, Model, Placement, WriterRole},
    in_sync::WhenStandbyAway,
    lease::{Delays, Lease, Role},
    name::{Epoch, Generation, RoleKey},
    operation::{Kind, Operation, Step, StepName, StepRecord},
    plan::Plan,
    report::{PointReport, RoleReport, report},
};
use serde::Serialize;

use super::*;

fn app(name: &str) -> App {
    let placement = |cluster: &str, priority| Placement {
        cluster: cluster.into(),
        priority,
        weight: 100,
        standby_replicas: 0,
        overrides: vec![],
    };
    App {
        key: AppKey::new("shop", name),
        authority: "west".into(),
        observed: 1,
        model: Model::ActivePassive,
        placements: vec![placement("west", 1), placement("east", 2)],
        rpo: Duration::from_secs(60),
        when_standby_away: WhenStandbyAway::Serve,
        rto: Duration::from_secs(60),
        automatic: true,
        paused: false,
        roles: vec![WriterRole {
            name: "data".into(),
            claims: vec!["data".into()],
            interval: Duration::from_secs(5),
        }],
        traffic: None,
        selector: serde_json::Value::Null,
        resource: serde_json::Value::Null,
    }
}

fn timing() -> Timing {
    Timing::new(Duration::from_secs(3), Delays::WITHOUT_ELECTIONS).unwrap()
}

/// A copy of a quorum, and everything that a look at it needs.
#[derive(Default)]
struct Quorum {
    known: Known,
    revision: u64,
}

impl Quorum {
    fn put(&mut self, key: String, value: &impl Serialize, now: Moment) {
        self.write(key, serde_json::to_string(value).unwrap(), now);
    }

    fn write(&mut self, key: String, value: String, now: Moment) {
        self.revision += 1;
        let entry = Entry {
            key,
            value: Some(value),
            revision: self.revision,
        };
        self.known.take(vec![entry], now);
    }

    /// An application whose data is in west and in sync in east; `operation` runs.
    fn protect(&mut self, name: &str, active: &str, operation: Option<Operation>) {
        let (app, now) = (app(name), Moment::default());
        let plan = Plan {
            generation: Generation(1),
            app: app.key.clone(),
            active: active.into(),
            operation,
            finished: None,
        };
        let role = Role {
            in_sync: ["east".into()].into(),
            ..Role::held("west".into(), Epoch(1))
        };
        self.put(key::spec(&app.key), &app, now);
        self.put(key::plan(&app.key), &plan, now);
        self.put(key::role(&role_of(name)), &role, now);
    }

    /// West has renewed nothing since the beginning, east just now, and everybody misses west.
    fn look(&mut self) -> Vec<Result<Decision, Defect>> {
        let now = timing().taken_from(Moment::default());
        for (cluster, at) in [("west", Moment::default()), ("east", now)] {
            let lease = Lease {
                cluster: cluster.into(),
                holder: cluster.into(),
                sequence: 1,
                sealed: false,
            };
            if !self.known.sights.contains_key(&ClusterName::new(cluster)) {
                self.put(key::lease(&lease.cluster), &lease, at);
            }
        }
        let look = Look {
            known: &self.known,
            unseen_by: &missed(),
            holders: &BTreeMap::new(),
            reports: &|_| reports(),
            timing: &timing(),
            drains: 32,
            now,
            wall_ms: 1_000_000,
        };
        plan_all(&look)
    }
}

fn role_of(name: &str) -> RoleKey {
    RoleKey::new(AppKey::new("shop", name), "data")
}

fn missed() -> BTreeMap<ClusterName, BTreeSet<String>> {
    [("west".into(), ["east".to_owned(), "witness".to_owned()].into())].into()
}

fn reports() -> BTreeMap<ClusterName, Seen<AppReport>> {
    let point = PointReport {
        epoch: Epoch(1),
        sequence: 1,
        source_ms: 1,
    };
    let role = RoleReport {
        point: Some(point),
        ..RoleReport::default()
    };
    let value = AppReport {
        roles: [("data".to_owned(), role)].into(),
        ..AppReport::default()
    };
    let age = Duration::ZERO;
    [("east".into(), Seen { value, age })].into()
}

/// An operation whose only step is done where the journal says so.
fn running(name: &str) -> Operation {
    Operation {
        id: format!("move-{name}"),
        kind: Kind::Failover,
        from: "west".into(),
        to: "east".into(),
        epoch: Epoch(1),
        began_ms: 0,
        decided_ms: 0,
        steps: vec![Step {
            name: StepName::Start,
            cluster: "east".into(),
        }],
        accepted_loss_ms: None,
    }
}

fn why(decisions: &[Result<Decision, Defect>]) -> Vec<String> {
    let each = decisions.iter();
    each.map(|decision| match decision {
        Ok(decision) => decision.why.clone(),
        Err(defect) => panic!("{defect}"),
    })
    .collect()
}

#[test]
fn what_is_there_and_cannot_be_read_stops_the_decisions_about_its_application_and_no_others() {
    let whole = || {
        let mut quorum = Quorum::default();
        quorum.protect("damaged", "east", Some(running("damaged")));
        quorum.protect("whole", "west", None);
        let done = StepRecord {
            started_ms: 1,
            ended_ms: Some(2),
            trouble: None,
            point_ms: None,
        };
        let step = key::journal(&AppKey::new("shop", "damaged"), "move-damaged", StepName::Start);
        quorum.put(step, &done, Moment::default());
        quorum
    };
    assert_eq!(
        why(&whole().look()),
        [
            "move-damaged has ended; east is active",
            "west is lost and fenced: shop/whole fails over to east at epoch 2"
        ]
    );
    for key in [
        "plan/shop/damaged",
        "role/shop/damaged/data",
        "journal/shop/damaged/move-damaged/Start",
    ] {
        let mut quorum = whole();
        let found: serde_json::Value = quorum.known.view.get(key).unwrap().value;
        let text = found.to_string();
        quorum.write(key.to_owned(), text[..text.len() / 2].to_owned(), Moment::default());
        let decisions = quorum.look();
        assert_eq!(
            why(&decisions),
            ["west is lost and fenced: shop/whole fails over to east at epoch 2"],
            "{key}"
        );
        let situation = quorum.known.situation(&AppKey::new("shop", "damaged")).unwrap();
        assert_eq!(situation.unreadable, [key]);
        assert_eq!(situation.step(&"east".into()), None, "{key}");
        let missed = missed();
        let snapshot = situation.snapshot(&quorum.known, &missed, BTreeMap::new(), reports());
        let waits = report(&snapshot, &timing(), Moment::default()).waiting_for;
        assert!(
            waits[0].starts_with(&format!("{key} in the quorum cannot be read")),
            "{waits:?}"
        );
        // Put back, it goes on.
        quorum.write(key.to_owned(), text, Moment::default());
        assert_eq!(quorum.look().len(), 2, "{key}");
    }
}

#[test]
fn a_plan_that_the_second_look_refuses_is_named_and_not_sent_and_the_others_are() {
    let mut quorum = Quorum::default();
    // What is active where it has no placement can only come of a defect.
    let ended = Operation {
        steps: vec![],
        ..running("astray")
    };
    quorum.protect("astray", "mars", Some(ended));
    quorum.protect("whole", "west", None);
    let decisions = quorum.look();
    let [Err(defect @ Defect::Refused { .. }), Ok(other)] = &decisions[..] else {
        panic!("{decisions:?}")
    };
    let defect = defect.to_string();
    assert!(
        defect.contains("a defect of the planner: mars would be active without being a placement")
            && defect.contains("move-astray has ended"),
        "{defect}"
    );
    assert!(other.why.contains("shop/whole fails over"), "{}", other.why);
}
