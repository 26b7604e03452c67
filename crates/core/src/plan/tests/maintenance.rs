//! A cluster that is cordoned or drained.

use super::*;
use crate::maintenance::{Left, Maintenance, left};

impl World {
    fn say(&mut self, cluster: &str, value: Maintenance) {
        self.revision += 1;
        let revision = self.revision;
        self.maintenance.insert(cluster.into(), Versioned { value, revision });
    }

    fn left(&self, now: Moment) -> Left {
        let mut found = Left::default();
        left(&mut found, &self.snapshot(), &"west".into(), &timing(), now);
        found
    }

    fn why_left(&self, now: Moment) -> String {
        self.left(now).active.into_iter().map(|(_, why)| why).collect()
    }
}

fn started(model: Model) -> World {
    let mut world = World::new(model);
    let first = world.decide(at(0)).unwrap();
    world.apply(&first);
    for role in world.roles.values_mut() {
        role.value.in_sync.insert("east".into());
    }
    assert_eq!(world.decide(at(0)), None);
    world
}

#[test]
fn what_is_active_in_a_drained_cluster_moves_as_if_a_person_had_asked() {
    let mut world = started(Model::ActivePassive);
    world.say("west", Maintenance::Drain);
    let commit = world.decide(at(0)).unwrap();
    let said = world.maintenance[&ClusterName::new("west")].revision;
    assert!(commit.expects.contains(&Expect::Maintenance("west".into(), said)));
    world.apply(&commit);
    let plan = world.plan.as_ref().unwrap().value.clone();
    let operation = plan.operation.unwrap();
    assert_eq!(
        (operation.id.as_str(), operation.kind),
        ("drain-west-2", Kind::Switchover)
    );
    assert_eq!(operation.to.as_str(), "east");
    assert!(world.roles.values().all(|role| role.value.hold == Hold::Revoking));
    assert_eq!(world.why_left(at(0)), "drain-west-2 is under way (Quiesce in west)");
}

#[test]
fn a_drain_waits_for_its_turn_and_for_a_standby_that_loses_nothing() {
    let mut world = started(Model::ActivePassive);
    world.say("west", Maintenance::Drain);
    world.may_drain = false;
    assert_eq!(world.decide(at(0)), None);
    assert_eq!(world.why_left(at(0)), "it moves to east in its turn");
    world.may_drain = true;
    for role in world.roles.values_mut() {
        role.value.in_sync.clear();
    }
    assert_eq!(world.decide(at(0)), None);
    assert_eq!(world.why_left(at(0)), "east: it is not in sync (role data)");
    world.reports.get_mut(&ClusterName::new("east")).unwrap().value.missing = vec!["image shop:1".into()];
    assert!(world.why_left(at(0)).contains("image shop:1"));
    world.app.paused = true;
    assert_eq!(world.why_left(at(0)), "it is paused");
    world.app.placements.truncate(1);
    assert_eq!(world.why_left(at(0)), "it has no other placement");
}

#[test]
fn nothing_moves_to_a_cluster_that_is_out_of_service() {
    for said in [Maintenance::Cordon, Maintenance::Drain] {
        let mut world = started(Model::ActivePassive);
        world.say("east", said);
        // Not by itself.
        world.miss("west", &["east", "witness"]);
        assert_eq!(world.decide(at(60_000)), None);
        // Nor as a person asks.
        for kind in [Kind::Failover, Kind::Switchover] {
            let request = Request {
                id: "go".into(),
                kind,
                to: "east".into(),
                asked_ms: 0,
                accept_loss_ms: None,
                cancel: false,
                refused: None,
            };
            world.requests = vec![Versioned {
                value: request,
                revision: 1,
            }];
            let now = if kind == Kind::Failover { at(60_000) } else { at(0) };
            let commit = world.decide(now).unwrap();
            let [Change::Answer(answer)] = &commit.changes[..] else {
                panic!("{commit:?}");
            };
            let refused = answer.refused.as_ref().unwrap();
            assert!(refused.contains("leeward uncordon east"), "{refused}");
        }
        world.requests.clear();
        world.say("east", Maintenance::None);
        assert!(world.decide(at(60_000)).is_some());
    }
}

/// West is lost, and the application fails over.
fn fails_over_from_west(world: &mut World) {
    world.miss("west", &["east", "witness"]);
    let commit = world.decide(at(60_000)).unwrap();
    world.apply(&commit);
    let operation = world.plan.as_ref().unwrap().value.operation.as_ref();
    assert_eq!(operation.map(|operation| operation.kind), Some(Kind::Failover));
}

#[test]
fn what_is_under_way_to_a_cluster_that_is_cordoned_then_goes_on() {
    let mut world = started(Model::ActivePassive);
    world.say("west", Maintenance::Drain);
    let commit = world.decide(at(0)).unwrap();
    world.apply(&commit);
    world.say("east", Maintenance::Cordon);
    assert_eq!(world.decide(at(0)), None);
    // Its source is lost: east is where it goes anyway.
    fails_over_from_west(&mut world);
}

#[test]
fn a_drained_cluster_that_is_lost_fails_over_as_ever() {
    let mut world = started(Model::ActivePassive);
    world.say("west", Maintenance::Drain);
    world.may_drain = false;
    fails_over_from_west(&mut world);
}

#[test]
fn an_application_that_serves_everywhere_leaves_nothing_and_one_that_stops_without_its_standby_is_named() {
    let mut world = started(Model::ActiveActive);
    world.say("west", Maintenance::Drain);
    assert_eq!(world.decide(at(0)), None);
    assert_eq!(world.left(at(0)), Left::default());
    let mut world = started(Model::ActivePassive);
    world.plan.as_mut().unwrap().value.active = "east".into();
    assert_eq!(world.left(at(0)), Left::default());
    world.app.when_standby_away = WhenStandbyAway::Stop;
    assert_eq!(world.left(at(0)).stops, [world.app.key.clone()]);
}

#[test]
fn an_application_that_serves_everywhere_follows_another_cluster_once_the_one_that_it_followed_left() {
    let mut world = started(Model::ActiveActive);
    assert_eq!(world.plan.as_ref().unwrap().value.active.as_str(), "west");
    world.app.placements.remove(0);
    let commit = world.decide(at(0)).unwrap();
    world.apply(&commit);
    assert_eq!(world.plan.as_ref().unwrap().value.active.as_str(), "east");
    assert_eq!(world.decide(at(0)), None);
}

#[test]
fn a_move_that_nobody_asked_for_is_refused_unless_its_cluster_is_drained() {
    let mut world = started(Model::ActivePassive);
    world.say("west", Maintenance::Drain);
    let commit = world.decide(at(0)).unwrap();
    world.say("west", Maintenance::Cordon);
    let refused = check(&commit, &world.snapshot(), &timing(), at(0));
    assert!(matches!(refused, Err(Violation::NotDrained { .. })), "{refused:?}");
    world.say("west", Maintenance::Drain);
    world.say("east", Maintenance::Cordon);
    let refused = check(&commit, &world.snapshot(), &timing(), at(0));
    assert!(matches!(refused, Err(Violation::OutOfService { .. })), "{refused:?}");
}
