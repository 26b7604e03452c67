use leeward_core::{
    app::{Placement, WriterRole},
    in_sync::WhenStandbyAway,
    lease::{Delays, Hold, Lease, Role},
    name::{AppKey, Generation},
    operation::{Step, StepRecord},
    plan::{Plan, Versioned},
    report::PointReport,
};

use super::*;

fn app(roles: &[&str]) -> App {
    let placement = |cluster: &str| Placement {
        cluster: cluster.into(),
        priority: 1,
        weight: 100,
        standby_replicas: 0,
        overrides: vec![],
    };
    App {
        key: AppKey::new("shop", "web"),
        authority: "west".into(),
        observed: 1,
        model: Model::ActivePassive,
        placements: vec![placement("west"), placement("east")],
        rpo: Duration::from_secs(5),
        when_standby_away: WhenStandbyAway::Serve,
        rto: Duration::from_secs(60),
        automatic: true,
        paused: false,
        roles: roles
            .iter()
            .map(|name| WriterRole {
                name: (*name).into(),
                claims: vec!["data".into()],
                interval: Duration::from_secs(1),
            })
            .collect(),
        traffic: None,
        selector: serde_json::Value::Null,
        resource: serde_json::Value::Null,
    }
}

/// A switchover from west to east, with these steps done; the roles as somebody has them.
fn moving(roles: &[(&str, Hold, u64)], done: &[StepName]) -> Situation {
    let names: &[&str] = if roles.is_empty() { &[] } else { &["data"] };
    let app = app(names);
    let operation = Operation {
        id: "op".into(),
        kind: Kind::Switchover,
        from: "west".into(),
        to: "east".into(),
        epoch: Epoch(2),
        began_ms: 0,
        decided_ms: 0,
        steps: vec![Step {
            name: StepName::Start,
            cluster: "east".into(),
        }],
        accepted_loss_ms: None,
    };
    let record = || StepRecord {
        started_ms: 0,
        ended_ms: Some(1),
        trouble: None,
        point_ms: None,
    };
    let versioned_role = |(owner, hold, epoch): &(&str, Hold, u64)| {
        let value = Role {
            hold: *hold,
            ..Role::held((*owner).into(), Epoch(*epoch))
        };
        ("shop/web/data".parse().unwrap(), Versioned { value, revision: 7 })
    };
    Situation {
        app: Versioned {
            value: app,
            revision: 1,
        },
        plan: Some(Versioned {
            value: Plan {
                app: AppKey::new("shop", "web"),
                generation: Generation(2),
                active: "east".into(),
                operation: Some(operation),
                finished: None,
            },
            revision: 6,
        }),
        roles: roles.iter().map(versioned_role).collect(),
        journal: done.iter().map(|step| (*step, record())).collect(),
        requests: vec![],
        unreadable: vec![],
        begun: 0,
    }
}

/// What the core says of a switchover: the plan's active cluster, east, is the active one.
fn report() -> Report {
    let placement = |cluster: &str, state, point_ms: Option<u64>| PlacementReport {
        cluster: cluster.into(),
        state,
        missing: vec![],
        short: vec![],
        unknown: vec![],
        point: point_ms.map(|source_ms| PointReport {
            epoch: Epoch(1),
            sequence: 1,
            source_ms,
        }),
        in_sync: None,
        answers: true,
        mirror: None,
        kept: None,
        gates: Default::default(),
    };
    Report {
        protected: false,
        waiting_for: vec!["op: Quiesce in west".into()],
        placements: vec![
            placement("west", PlacementState::Standby, None),
            placement("east", PlacementState::Active, Some(90_000)),
        ],
    }
}

fn shown(situation: &Situation) -> (Option<String>, Vec<String>, String) {
    let status = build(situation, &report(), &Default::default(), None, 100_000, None);
    let states = status.placements.iter().map(|placement| placement.state.clone());
    let serving = status.conditions.iter().find(|found| found.type_ == condition::SERVING);
    let serving = serving.map(|found| format!("{} {}", found.reason, found.message));
    (status.active, states.collect(), serving.unwrap())
}

#[test]
fn who_has_the_roles_is_shown_as_active_until_the_other_one_has_them() {
    let moves = "Moving no cluster serves now: it moves from west to east".to_owned();
    let west = (
        Some("west".to_owned()),
        vec!["Active".to_owned(), "Standby".to_owned()],
        moves.clone(),
    );
    assert_eq!(shown(&moving(&[("west", Hold::Revoking, 1)], &[])), west);
    assert_eq!(shown(&moving(&[("west", Hold::Released, 1)], &[])), west);
    let east = |serving: String| {
        let states = vec!["Standby".to_owned(), "Active".to_owned()];
        (Some("east".to_owned()), states, serving)
    };
    let taken = [("east", Hold::Held, 2)];
    assert_eq!(shown(&moving(&taken, &[StepName::Take])), east(moves));
    let serves = "Active east serves".to_owned();
    assert_eq!(shown(&moving(&taken, &[StepName::Promote])), east(serves.clone()));
    // Without roles the old one serves on until the new one does.
    let serves_on = (west.0, west.1, "Active west serves".to_owned());
    assert_eq!(shown(&moving(&[], &[])), serves_on);
    assert_eq!(shown(&moving(&[], &[StepName::Start])), east(serves));
}

#[test]
fn a_copy_is_behind_what_was_written_and_nothing_is_written_once_the_lease_is_over() {
    let at = |ms| Moment(Duration::from_millis(ms));
    let timing = Timing::new(Duration::from_secs(15), Delays::WITHOUT_ELECTIONS).unwrap();
    let sight = Sight {
        lease: Lease {
            cluster: "west".into(),
            holder: "west-1-1".into(),
            sequence: 1,
            sealed: false,
        },
        revision: 1,
        first_seen: at(1000),
    };
    let until = |now| wrote_until(Some(&sight), &timing, at(now), 100_000);
    assert_eq!(until(15_000), None, "it may be writing");
    assert_eq!(until(26_000), Some(90_000));
    assert_eq!(wrote_until(None, &timing, at(26_000), 100_000), None);
    let lag = |now_ms, until_ms| {
        let situation = moving(&[("west", Hold::Held, 1)], &[]);
        let status = build(&situation, &report(), &Default::default(), None, now_ms, until_ms);
        status.placements[1].lag.map(Duration::from)
    };
    assert_eq!(lag(100_000, None), Some(Duration::from_secs(10)));
    for now_ms in [100_000, 900_000] {
        assert_eq!(
            lag(now_ms, Some(95_000)),
            Some(Duration::from_secs(5)),
            "it grows no more"
        );
    }
}
