//! Where something moves to: a cluster that lives, not one that was reported of a moment ago.

use super::*;

const NORTH: &str = "north";

/// A third region, the least preferred one, which is in sync too.
fn with_north(mut world: World) -> World {
    let mut placement = world.app.placements[1].clone();
    (placement.cluster, placement.priority) = (NORTH.into(), 3);
    world.app.placements.push(placement);
    let mut sight = world.leases[&"east".into()].clone();
    sight.lease.cluster = NORTH.into();
    world.leases.insert(NORTH.into(), sight);
    let report = world.reports[&"east".into()].clone();
    world.reports.insert(NORTH.into(), report);
    for role in world.roles.values_mut() {
        role.value.in_sync.insert(NORTH.into());
    }
    world
}

fn refused(world: &World, now: Moment) -> String {
    let commit = world.decide(now).unwrap();
    let [Change::Answer(answer)] = &commit.changes[..] else {
        panic!("{commit:?}")
    };
    answer.refused.clone().unwrap()
}

fn begun(world: &World) -> (Kind, &str) {
    let operation = world.plan.as_ref().unwrap().value.operation.as_ref().unwrap();
    (operation.kind, operation.to.as_str())
}

fn waiting(world: &World, now: Moment) -> String {
    next(&world.snapshot(), &timing(), now, 0).1.waiting_for.join("\n")
}

#[test]
fn of_two_regions_that_are_lost_together_neither_is_failed_over_to() {
    // East renewed until just after west, and both are missed: its last report is young enough to be believed.
    for east_renewed in [0, 500] {
        let mut world = with_north(protected());
        world.miss("west", &[NORTH, "witness"]);
        world.miss("east", &[NORTH, "witness"]);
        world.renewed("east", east_renewed);
        world.step(at(3100));
        assert_eq!(begun(&world), (Kind::Failover, NORTH), "{east_renewed}");
        assert_eq!(world.role(), &Role::held(NORTH.into(), Epoch(2)));
    }
}

#[test]
fn where_nobody_lives_who_could_take_over_nothing_happens_and_what_is_missing_is_named() {
    let mut world = protected();
    world.reports.get_mut(&"west".into()).unwrap().age = Duration::from_secs(9);
    world.miss("west", &["east", "witness"]);
    world.renewed("east", 0);
    assert_eq!(world.decide(at(3100)), None);
    let why = waiting(&world, at(3100));
    assert!(
        why.contains("nothing fails over by itself: east: it has no lease in force"),
        "{why}"
    );
    // It renews, and is chosen.
    world.renewed("east", 3100);
    world.step(at(3200));
    assert_eq!(begun(&world), (Kind::Failover, "east"));
}

#[test]
fn among_those_that_could_take_over_one_that_nobody_misses_comes_first() {
    for (missed_by, target) in [(&["witness"][..], NORTH), (&[], "east")] {
        let mut world = with_north(protected());
        world.miss("west", &["east", NORTH, "witness"]);
        world.miss("east", missed_by);
        world.step(at(3100));
        assert_eq!(begun(&world), (Kind::Failover, target), "{missed_by:?}");
    }
    // One observer alone says little: where there is no other, it is chosen.
    let mut world = protected();
    world.miss("west", &["east", "witness"]);
    world.miss("east", &["witness"]);
    world.step(at(3100));
    assert_eq!(begun(&world), (Kind::Failover, "east"));
}

#[test]
fn a_request_for_a_target_that_is_lost_is_refused_with_what_it_lacks() {
    for (kind, now) in [(Kind::Switchover, 2900), (Kind::Failover, 3100)] {
        for (east_renewed, missed_by, lacks) in [
            (None, &[][..], "it has no lease in force"),
            (
                Some(0),
                &["north", "witness"],
                "it is not heard of by north and witness",
            ),
            (Some(2800), &["witness"], ""),
        ] {
            let mut world = protected();
            world.miss(
                "west",
                if kind == Kind::Failover {
                    &["east", "witness"]
                } else {
                    &[]
                },
            );
            world.miss("east", missed_by);
            match east_renewed {
                Some(ms) => world.renewed("east", ms),
                None => drop(world.leases.remove(&"east".into())),
            }
            world.app.automatic = false;
            world.ask(kind, "east");
            world.requests[0].value.accept_loss_ms = Some(9_000_000);
            if lacks.is_empty() {
                world.step(at(now));
                assert_eq!(begun(&world), (kind, "east"));
            } else {
                let why = refused(&world, at(now));
                assert!(why.contains("east is not ready") && why.contains(lacks), "{why}");
            }
        }
    }
    // Its reports still arrive, its renewals do not: cut off from the quorum alone.
    let mut world = protected();
    world.renewed("west", 3000);
    world.ask(Kind::Switchover, "east");
    let why = refused(&world, at(3100));
    assert!(why.contains("does it reach the quorum?"), "{why}");
}

/// A switchover to east is under way; west goes on renewing, and north, if there.
fn switching(world: World) -> World {
    let mut world = world;
    world.ask(Kind::Switchover, "east");
    world.step(at(100));
    world
}

#[test]
fn a_switchover_whose_target_loses_its_lease_ends_though_it_is_still_heard_of() {
    for released in [false, true] {
        let mut world = switching(protected());
        world.renewed("west", 3000);
        if released {
            world
                .roles
                .values_mut()
                .for_each(|role| role.value.hold = Hold::Released);
            world.done(StepName::Release);
        }
        assert_eq!(world.decide(at(3029)), None);
        let commit = world.step(at(3030));
        assert!(commit.expects.contains(&Expect::Lease("east".into(), 5)), "{commit:?}");
        let finished = world.plan.as_ref().unwrap().value.finished.clone().unwrap();
        assert!(matches!(finished.outcome, Outcome::Failed(_)), "{finished:?}");
        let epoch = Epoch(if released { 2 } else { 1 });
        assert_eq!(world.mode("west"), Mode::Serve { epoch: Some(epoch) });
    }
}

#[test]
fn a_switchover_waits_for_a_target_whose_agent_was_started_anew() {
    let mut world = switching(protected());
    world.renewed("west", 6000);
    // It waits for the end of what its predecessor was granted, and then takes the lease.
    world.holders.insert("east".into(), "east started anew".into());
    for (now, missed, ends) in [
        (3030, false, false),
        (6059, false, false),
        (6060, false, true),
        (3030, true, true),
    ] {
        let mut world = world.clone();
        if missed {
            world.miss("east", &["west", "witness"]);
        }
        assert_eq!(world.decide(at(now)).is_some(), ends, "{now} {missed}");
    }
}

#[test]
fn a_switchover_that_loses_source_and_target_goes_on_to_a_third_region() {
    for (released, automatic, north_in_sync, moves) in [
        (false, true, true, true),
        (true, true, true, true),
        // Nobody asked for north.
        (false, false, true, false),
        (false, true, false, false),
        (true, true, false, false),
    ] {
        let mut world = switching(with_north(protected()));
        world.app.automatic = automatic;
        for role in world.roles.values_mut() {
            if released {
                role.value.hold = Hold::Released;
            }
            if !north_in_sync {
                role.value.in_sync.remove(&NORTH.into());
            }
        }
        if released {
            world.done(StepName::Release);
        }
        let plan = world.plan.clone().unwrap();
        let taking = |world: &World| {
            let operation = plan.value.operation.as_ref().unwrap();
            crate::handover::take(&world.roles, plan.revision, operation)
        };
        let late = taking(&world);
        world.miss("west", &[NORTH, "witness"]);
        world.miss("east", &[NORTH, "witness"]);
        let commit = world.decide(at(3100));
        assert_eq!(commit.is_some(), moves, "{released} {automatic} {north_in_sync}");
        let Some(commit) = commit else { continue };
        // What east sent to take the roles compares the same.
        for compared in late.ok().flatten().iter().flat_map(|late| &late.expects) {
            assert!(commit.expects.contains(compared), "{compared:?} {commit:?}");
        }
        world.apply(&commit);
        assert_eq!(begun(&world), (Kind::Failover, NORTH));
        assert_eq!(world.role(), &Role::held(NORTH.into(), Epoch(2)));
        assert!(world.leases[&"west".into()].lease.sealed);
    }
}

#[test]
fn roles_that_were_given_back_are_left_to_a_target_that_lives() {
    let mut world = switching(with_north(protected()));
    world
        .roles
        .values_mut()
        .for_each(|role| role.value.hold = Hold::Released);
    world.done(StepName::Release);
    world.miss("west", &["east", NORTH, "witness"]);
    assert_eq!(world.decide(at(3100)), None);
}

#[test]
fn a_drain_moves_to_a_standby_that_enough_observers_hear() {
    let mut world = with_north(protected());
    let said = Versioned {
        value: Maintenance::Drain,
        revision: 8,
    };
    world.maintenance.insert("west".into(), said);
    world.miss("east", &[NORTH, "witness"]);
    world.step(at(100));
    assert_eq!(begun(&world), (Kind::Switchover, NORTH));
}

#[test]
fn check_refuses_to_move_to_a_cluster_whose_lease_is_over() {
    for kind in [Kind::Failover, Kind::Switchover] {
        let mut world = protected();
        world.ask(kind, "east");
        let now = match kind {
            Kind::Failover => {
                world.miss("west", &["east", "witness"]);
                at(3100)
            }
            Kind::Switchover => at(100),
        };
        let commit = world.decide(now).unwrap();
        world.leases.get_mut(&"east".into()).unwrap().lease.sealed = true;
        let refused = check(&commit, &world.snapshot(), &timing(), now);
        assert!(matches!(refused, Err(Violation::WithoutLease { .. })), "{refused:?}");
    }
}

#[test]
fn check_refuses_a_takeover_of_what_was_given_back_for_one_that_is_not_in_sync() {
    let mut world = switching(with_north(protected()));
    world
        .roles
        .values_mut()
        .for_each(|role| role.value.hold = Hold::Released);
    world.miss("west", &[NORTH, "witness"]);
    world.miss("east", &[NORTH, "witness"]);
    let commit = world.decide(at(3100)).unwrap();
    world.roles.values_mut().for_each(|role| {
        role.value.in_sync.remove(&NORTH.into());
    });
    let refused = check(&commit, &world.snapshot(), &timing(), at(3100));
    assert!(matches!(refused, Err(Violation::NotInSync { .. })), "{refused:?}");
}

#[test]
fn a_refusal_names_each_thing_that_the_target_lacks_as_it_was_reported() {
    let reported = [
        "Secret db",
        "image shop/web:1: 2 of 5 blobs not in this region's registry",
    ];
    let lacks =
        "Secret db; image shop/web:1: 2 of 5 blobs not in this region's registry; no complete point of role data";
    for (kind, now) in [(Kind::Switchover, 100), (Kind::Failover, 3100)] {
        let mut world = protected();
        world.miss("west", &["east", "witness"]);
        let report = &mut world.reports.get_mut(&"east".into()).unwrap().value;
        report.missing = reported.map(str::to_owned).into();
        report.roles.clear();
        world.ask(kind, "east");
        assert_eq!(refused(&world, at(now)), format!("east is not ready: {lacks}"));
    }
}
