use std::time::Duration;

use super::*;
use crate::operation::{Kind, StepName, StepRecord};
use crate::{
    app::{Placement, WriterRole},
    check::{Violation, check},
    execute::{Mode, mode},
    in_sync::WhenStandbyAway,
    lease::{Hold, Lease},
    report::{PointReport, RoleReport},
    samples::{at, timing},
};

mod cancel;
mod maintenance;
mod target;

fn app(model: Model) -> App {
    let placement = |cluster: &str, priority| Placement {
        cluster: cluster.into(),
        priority,
        weight: 100,
        standby_replicas: 0,
        overrides: vec![],
    };
    App {
        key: AppKey::new("shop", "web"),
        authority: "west".into(),
        observed: 1,
        model,
        placements: vec![placement("west", 1), placement("east", 2)],
        rpo: Duration::from_secs(3),
        when_standby_away: WhenStandbyAway::Serve,
        rto: Duration::from_secs(60),
        automatic: true,
        paused: false,
        roles: match model {
            Model::ActivePassive => {
                vec![WriterRole {
                    name: "data".into(),
                    claims: vec!["data".into()],
                    interval: Duration::from_secs(1),
                }]
            }
            Model::ActiveActive => vec![],
        },
        traffic: None,
        selector: serde_json::Value::Null,
        resource: serde_json::Value::Null,
    }
}

/// A small world: the quorum's content and what one observer saw, with commits applied as the quorum would.
#[derive(Clone)]
struct World {
    app: App,
    plan: Option<Versioned<Plan>>,
    roles: BTreeMap<RoleKey, Versioned<Role>>,
    leases: BTreeMap<ClusterName, Sight>,
    unseen_by: BTreeMap<ClusterName, BTreeSet<String>>,
    holders: BTreeMap<ClusterName, String>,
    reports: BTreeMap<ClusterName, Seen<AppReport>>,
    maintenance: BTreeMap<ClusterName, Versioned<Maintenance>>,
    may_drain: bool,
    requests: Vec<Versioned<Request>>,
    journal: Journal,
    unreadable: Vec<String>,
    revision: u64,
}

impl World {
    fn new(model: Model) -> Self {
        let mut world = Self {
            app: app(model),
            plan: None,
            roles: BTreeMap::new(),
            leases: BTreeMap::new(),
            unseen_by: BTreeMap::new(),
            holders: BTreeMap::new(),
            reports: BTreeMap::new(),
            maintenance: BTreeMap::new(),
            may_drain: true,
            requests: vec![],
            journal: Journal::new(),
            unreadable: vec![],
            revision: 10,
        };
        for cluster in ["west", "east"] {
            let lease = Lease {
                cluster: cluster.into(),
                holder: cluster.into(),
                sequence: 1,
                sealed: false,
            };
            world.leases.insert(
                cluster.into(),
                Sight {
                    lease,
                    revision: 5,
                    first_seen: at(0),
                },
            );
            let point = PointReport {
                epoch: Epoch(1),
                sequence: 7,
                source_ms: 1,
            };
            let role = RoleReport {
                point: Some(point),
                ..RoleReport::default()
            };
            let report = AppReport {
                backends: 1,
                roles: [("data".into(), role)].into(),
                ..AppReport::default()
            };
            world.reports.insert(
                cluster.into(),
                Seen {
                    value: report,
                    age: Duration::ZERO,
                },
            );
        }
        world
    }

    fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            app: &self.app,
            plan: self.plan.clone(),
            roles: self.roles.clone(),
            leases: &self.leases,
            unseen_by: &self.unseen_by,
            holders: self.holders.clone(),
            reports: self.reports.clone(),
            maintenance: &self.maintenance,
            may_drain: self.may_drain,
            requests: self.requests.clone(),
            journal: self.journal.clone(),
            unreadable: &self.unreadable,
        }
    }

    fn decide(&self, now: Moment) -> Option<Commit> {
        let snapshot = self.snapshot();
        let (commit, _) = next(&snapshot, &timing(), now, 1_000_000 + now.0.as_millis() as u64);
        if let Some(commit) = &commit {
            check(commit, &snapshot, &timing(), now).unwrap();
        }
        commit
    }

    fn apply(&mut self, commit: &Commit) {
        self.revision += 1;
        let revision = self.revision;
        for change in &commit.changes {
            match change {
                Change::Plan(plan) => {
                    self.plan = Some(Versioned {
                        value: *plan.clone(),
                        revision,
                    })
                }
                Change::Role(key, role) => {
                    self.roles.insert(
                        key.clone(),
                        Versioned {
                            value: role.clone(),
                            revision,
                        },
                    );
                }
                Change::Seal(cluster) => {
                    let sight = self.leases.get_mut(cluster).unwrap();
                    sight.lease.sealed = true;
                    sight.revision = revision;
                }
                Change::Answer(request) => self.requests.retain(|r| r.value.id != request.id),
            }
        }
    }

    fn step(&mut self, now: Moment) -> Commit {
        let commit = self.decide(now).expect("something to decide");
        self.apply(&commit);
        commit
    }

    /// A cluster's newest renewal was seen at this ms.
    fn renewed(&mut self, cluster: &str, ms: u64) {
        self.leases.get_mut(&cluster.into()).unwrap().first_seen = at(ms);
    }

    /// These miss a cluster. Those that nobody misses go on renewing, for longer than any test.
    fn miss(&mut self, cluster: &str, observers: &[&str]) {
        self.unseen_by
            .insert(cluster.into(), observers.iter().map(|o| (*o).to_owned()).collect());
        for (cluster, sight) in &mut self.leases {
            if !self.unseen_by.contains_key(cluster) {
                sight.first_seen = at(100_000);
            }
        }
    }

    fn ask(&mut self, kind: Kind, to: &str) {
        let request = Request {
            id: "op".into(),
            kind,
            to: to.into(),
            asked_ms: 1,
            accept_loss_ms: None,
            cancel: false,
            refused: None,
        };
        self.requests.push(Versioned {
            value: request,
            revision: 9,
        });
    }

    fn done(&mut self, step: StepName) {
        self.journal.insert(
            step,
            StepRecord {
                started_ms: 1,
                ended_ms: Some(2),
                trouble: None,
                point_ms: None,
            },
        );
    }

    fn mode(&self, cluster: &str) -> Mode {
        mode(
            &self.app,
            self.plan.as_ref().map(|p| &p.value),
            &self.roles,
            &self.journal,
            &cluster.into(),
        )
    }

    fn role(&self) -> &Role {
        &self.roles.values().next().unwrap().value
    }
}

/// West is active, and east has everything but the last rpo.
fn protected() -> World {
    let mut world = first();
    for role in world.roles.values_mut() {
        role.value.in_sync.insert("east".into());
    }
    world
}

fn first() -> World {
    let mut world = World::new(Model::ActivePassive);
    world.step(at(0));
    world
}

#[test]
fn the_first_plan_makes_the_cluster_with_the_data_active_at_epoch_one() {
    let world = first();
    assert_eq!(world.plan.as_ref().unwrap().value.active, "west".into());
    assert_eq!(world.role(), &Role::held("west".into(), Epoch(1)));
    assert_eq!(world.mode("west"), Mode::Serve { epoch: Some(Epoch(1)) });
    assert_eq!(world.mode("east"), Mode::Standby);
    assert_eq!(world.decide(at(0)), None);
}

#[test]
fn a_lost_region_is_left_only_when_its_lease_is_over_and_two_observers_miss_it() {
    for (now, observers, left) in [
        (3029, &["east", "witness"][..], false),
        (3030, &["east"], false),
        (3030, &[], false),
        (3030, &["east", "witness"], true),
    ] {
        let mut world = protected();
        world.miss("west", observers);
        assert_eq!(world.decide(at(now)).is_some(), left, "{now} {observers:?}");
    }
}

#[test]
fn a_failover_moves_lease_epoch_and_plan_in_one_transaction() {
    let mut world = protected();
    world.reports.get_mut(&"west".into()).unwrap().age = Duration::from_millis(3000);
    world.miss("west", &["east", "witness"]);
    let commit = world.step(at(3100));
    assert!(commit.expects.contains(&Expect::Lease("west".into(), 5)));
    assert!(commit.changes.contains(&Change::Seal("west".into())));
    assert_eq!(world.role(), &Role::held("east".into(), Epoch(2)));
    assert_eq!(world.mode("west"), Mode::Standby);
    assert_eq!(world.mode("east"), Mode::Standby, "not before the data is promoted");
    world.done(StepName::Promote);
    assert_eq!(world.mode("east"), Mode::Serve { epoch: Some(Epoch(2)) });
    assert_eq!(world.decide(at(3200)), None);
    world.done(StepName::Start);
    world.step(at(3300));
    let plan = &world.plan.as_ref().unwrap().value;
    assert_eq!((plan.generation, &plan.operation), (Generation(3), &None));
    assert_eq!(plan.finished.as_ref().unwrap().operation.epoch, Epoch(2));
    assert_eq!(
        plan.finished.as_ref().unwrap().operation.began_ms,
        1_000_100,
        "the last report came after the last renewal"
    );
}

#[test]
fn nobody_takes_over_who_is_not_ready() {
    let mut world = protected();
    world.miss("west", &["east", "witness"]);
    world
        .reports
        .get_mut(&"east".into())
        .unwrap()
        .value
        .missing
        .push("image web:1".into());
    assert_eq!(world.decide(at(4000)), None);
    world.reports.get_mut(&"east".into()).unwrap().value.missing.clear();
    world.reports.get_mut(&"east".into()).unwrap().value.roles.clear();
    assert_eq!(world.decide(at(4000)), None, "no point");
    world.reports.get_mut(&"east".into()).unwrap().age = Duration::from_secs(11);
    assert_eq!(world.decide(at(4000)), None, "stale report");
}

#[test]
fn a_manual_application_waits_for_a_person() {
    let mut world = protected();
    world.app.automatic = false;
    world.miss("west", &["east", "witness"]);
    assert_eq!(world.decide(at(4000)), None);
    world.ask(Kind::Failover, "east");
    world.step(at(4000));
    assert_eq!(world.role().owner, "east".into());
    assert_eq!(world.plan.as_ref().unwrap().value.operation.as_ref().unwrap().id, "op");
}

#[test]
fn an_active_active_application_is_never_failed_over() {
    let mut world = World::new(Model::ActiveActive);
    world.step(at(0));
    world.miss("west", &["east", "witness"]);
    assert_eq!(world.decide(at(9000)), None);
    assert_eq!(world.mode("east"), Mode::Serve { epoch: None });
    assert_eq!(world.mode("west"), Mode::Serve { epoch: None });
}

#[test]
fn a_switchover_moves_the_role_only_after_the_holder_released_it() {
    let mut world = protected();
    world.ask(Kind::Switchover, "east");
    world.step(at(100));
    assert_eq!(
        world.role(),
        &Role {
            hold: Hold::Revoking,
            in_sync: ["east".into()].into(),
            ..Role::held("west".into(), Epoch(1))
        }
    );
    assert_eq!((world.mode("west"), world.mode("east")), (Mode::Standby, Mode::Standby));
    let operation = world.plan.clone().unwrap().value.operation.unwrap();
    let order: Vec<_> = operation.steps.iter().map(|s| (s.name, s.cluster.as_str())).collect();
    assert_eq!(
        order,
        [
            (StepName::Quiesce, "west"),
            (StepName::LastPoint, "west"),
            (StepName::Release, "west"),
            (StepName::Take, "east"),
            (StepName::Promote, "east"),
            (StepName::Start, "east"),
        ]
    );
    assert!(world.requests.is_empty());
}

#[test]
fn a_switchover_whose_source_is_lost_becomes_a_failover_to_the_same_target() {
    let mut world = protected();
    world.ask(Kind::Switchover, "east");
    world.step(at(100));
    world.miss("west", &["east", "witness"]);
    assert_eq!(world.decide(at(200)), None, "its lease is not over");
    world.step(at(4000));
    let operation = world.plan.clone().unwrap().value.operation.unwrap();
    assert_eq!((operation.kind, operation.to.as_str()), (Kind::Failover, "east"));
    assert_eq!(world.role(), &Role::held("east".into(), Epoch(2)));
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    for (model, kind, to, now, reason) in [
        (Model::ActivePassive, Kind::Switchover, "mars", 0, "not a placement"),
        (Model::ActivePassive, Kind::Switchover, "west", 0, "already the active"),
        (Model::ActivePassive, Kind::Failover, "east", 0, "holds its lease"),
        (Model::ActivePassive, Kind::Switchover, "east", 4000, "does not answer"),
        (Model::ActiveActive, Kind::Switchover, "east", 0, "nothing to move"),
    ] {
        let mut world = World::new(model);
        world.step(at(0));
        world.ask(kind, to);
        let commit = world.decide(at(now)).unwrap();
        let [Change::Answer(request)] = &commit.changes[..] else {
            panic!("{commit:?}")
        };
        assert!(request.refused.as_ref().unwrap().contains(reason), "{request:?}");
    }
}

#[test]
fn check_refuses_a_takeover_from_a_holder_whose_lease_is_not_over() {
    let mut world = protected();
    world.miss("west", &["east", "witness"]);
    let commit = world.decide(at(3100)).unwrap();
    let refused = check(&commit, &world.snapshot(), &timing(), at(3029)).unwrap_err();
    assert!(matches!(refused, Violation::TwoWriters { .. }), "{refused}");
}

#[test]
fn check_refuses_a_commit_without_its_comparisons() {
    let mut world = protected();
    world.miss("west", &["east", "witness"]);
    let commit = world.decide(at(3100)).unwrap();
    for left_out in &commit.expects {
        let mut weaker = commit.clone();
        weaker.expects.retain(|expect| expect != left_out);
        assert!(
            check(&weaker, &world.snapshot(), &timing(), at(3100)).is_err(),
            "{left_out:?}"
        );
    }
}

#[test]
fn check_refuses_an_epoch_or_generation_that_goes_back() {
    let mut world = protected();
    world.miss("west", &["east", "witness"]);
    let commit = world.decide(at(3100)).unwrap();
    let mut back = commit.clone();
    for change in &mut back.changes {
        if let Change::Role(_, role) = change {
            role.epoch = Epoch(1);
        }
    }
    assert!(matches!(
        check(&back, &world.snapshot(), &timing(), at(3100)),
        Err(Violation::Epoch(_))
    ));
    let mut back = commit;
    for change in &mut back.changes {
        if let Change::Plan(plan) = change {
            plan.generation = Generation(1);
        }
    }
    assert!(matches!(
        check(&back, &world.snapshot(), &timing(), at(3100)),
        Err(Violation::Generation { .. })
    ));
}

#[test]
fn a_report_names_what_is_waited_for() {
    let mut world = protected();
    let report = |world: &World| next(&world.snapshot(), &timing(), at(0), 0).1;
    assert!(report(&world).protected, "{:?}", report(&world));
    world
        .reports
        .get_mut(&"east".into())
        .unwrap()
        .value
        .missing
        .push("image web:1".into());
    assert_eq!(report(&world).waiting_for, ["east: image web:1"]);
    world.reports.remove(&"east".into());
    assert_eq!(report(&world).waiting_for, ["east is not heard of"]);
}

#[test]
fn an_agent_that_was_started_anew_is_not_taken_for_the_holder_of_its_predecessors_lease() {
    let world = protected();
    let mut snapshot = world.snapshot();
    let told = |snapshot: &Snapshot<'_>| crate::report::report(snapshot, &timing(), at(0));
    snapshot.holders = [("west".into(), "west".into()), ("east".into(), "east".into())].into();
    assert!(told(&snapshot).protected);
    snapshot.holders.insert("west".into(), "west started anew".into());
    assert_eq!(told(&snapshot).waiting_for, ["west is active and has no lease"]);
}

#[test]
fn nothing_fails_over_by_itself_to_a_standby_that_is_not_in_sync() {
    let mut world = first();
    world.reports.get_mut(&"west".into()).unwrap().age = Duration::from_secs(20);
    world.miss("west", &["east", "witness"]);
    assert_eq!(world.decide(at(4000)), None);
    let (_, report) = next(&world.snapshot(), &timing(), at(4000), 1_000_000);
    assert!(
        report
            .waiting_for
            .iter()
            .any(|why| why.contains("no standby is in sync")),
        "{report:?}"
    );
    // Nor does a switchover become one.
    let mut world = first();
    world.ask(Kind::Switchover, "east");
    world.step(at(100));
    world.miss("west", &["east", "witness"]);
    assert_eq!(world.decide(at(4000)), None);
}

/// What becomes of a failover to east for which a person accepts to lose that much.
fn accepting(world: &mut World, accepted: Option<u64>) -> Request {
    world.ask(Kind::Failover, "east");
    world.requests[0].value.accept_loss_ms = accepted;
    let commit = world.step(at(4000));
    match commit.changes.last() {
        Some(Change::Answer(answer)) => answer.clone(),
        _ => panic!("{commit:?}"),
    }
}

#[test]
fn a_person_may_accept_a_loss_and_has_to_say_how_much() {
    for (accepted, refused) in [(None, true), (Some(1_002_998), true), (Some(1_002_999), false)] {
        let mut world = first();
        world.miss("west", &["east", "witness"]);
        world.reports.get_mut(&"west".into()).unwrap().age = Duration::from_secs(20);
        // The last renewal was seen at the second 1,000, its lease lived on for 3 s, and the newest point is of the first millisecond.
        let answer = accepting(&mut world, accepted);
        assert_eq!(answer.refused.is_some(), refused, "{accepted:?} {answer:?}");
        if let Some(why) = &answer.refused {
            assert!(why.contains("--accept-data-loss 1003s"), "{why}");
        } else {
            let operation = world.plan.as_ref().unwrap().value.operation.as_ref().unwrap();
            assert_eq!(operation.accepted_loss_ms, accepted);
        }
    }
}

#[test]
fn what_a_person_accepts_to_lose_holds_for_a_cluster_in_sync_too() {
    // Its points say nothing about the newest second, so the rpo is the most that it lacks.
    for (accepted, refused) in [(None, false), (Some(4_999), true), (Some(5_000), false)] {
        let mut world = protected();
        world.app.rpo = Duration::from_secs(5);
        world.miss("west", &["east", "witness"]);
        let answer = accepting(&mut world, accepted);
        assert_eq!(answer.refused.is_some(), refused, "{accepted:?} {answer:?}");
        let why = answer
            .refused
            .as_deref()
            .unwrap_or("--accept-data-loss 5s, or without it");
        assert!(why.contains("--accept-data-loss 5s, or without it"), "{why}");
    }
}

#[test]
fn check_refuses_a_takeover_for_a_cluster_that_is_not_in_sync() {
    let mut world = protected();
    world.miss("west", &["east", "witness"]);
    let commit = world.decide(at(4000)).unwrap();
    assert_eq!(check(&commit, &world.snapshot(), &timing(), at(4000)), Ok(()));
    for role in world.roles.values_mut() {
        role.value.in_sync.clear();
    }
    let refused = check(&commit, &world.snapshot(), &timing(), at(4000));
    assert!(matches!(refused, Err(Violation::NotInSync { .. })), "{refused:?}");
}

#[test]
fn nothing_is_decided_about_an_application_of_which_something_cannot_be_read() {
    let unreadable = || vec!["role/shop/web/data".to_owned()];
    let mut new = World::new(Model::ActivePassive);
    let mut lost = protected();
    lost.miss("west", &["east", "witness"]);
    let mut asked = protected();
    asked.ask(Kind::Switchover, "east");
    let mut running = asked.clone();
    running.step(at(100));
    for step in StepName::of(Kind::Switchover, true) {
        running.done(*step);
    }
    for (world, now) in [(&mut new, 0), (&mut lost, 3100), (&mut asked, 100), (&mut running, 200)] {
        assert!(world.decide(at(now)).is_some());
        world.unreadable = unreadable();
        assert_eq!(world.decide(at(now)), None);
        let report = next(&world.snapshot(), &timing(), at(now), 0).1;
        assert!(!report.protected);
        let first = &report.waiting_for[0];
        assert!(
            first.starts_with("role/shop/web/data in the quorum cannot be read"),
            "{first}"
        );
        let no_plan = |wait: &String| wait == crate::report::NO_PLAN;
        assert!(!report.waiting_for.iter().any(no_plan), "{report:?}");
    }
}
