//! Switchovers that are called off or lose their target, what is asked for meanwhile, and applications that are paused.

use super::*;

/// A switchover to east is under way.
fn switching() -> World {
    let mut world = protected();
    world.ask(Kind::Switchover, "east");
    world.step(at(100));
    world
}

fn why_failed(finished: &Finished) -> &str {
    match &finished.outcome {
        Outcome::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

fn call_off(world: &mut World) {
    world.ask(Kind::Switchover, "east");
    world.requests.last_mut().unwrap().value.cancel = true;
}

#[test]
fn a_switchover_that_is_called_off_leaves_the_role_where_it_was_at_the_same_epoch() {
    let mut world = switching();
    world.done(StepName::Quiesce);
    world.done(StepName::LastPoint);
    call_off(&mut world);
    let commit = world.step(at(200));
    let held = Role {
        in_sync: ["east".into()].into(),
        ..Role::held("west".into(), Epoch(1))
    };
    assert_eq!(world.role(), &held);
    let plan = &world.plan.as_ref().unwrap().value;
    assert_eq!((plan.active.as_str(), &plan.operation), ("west", &None));
    let finished = plan.finished.as_ref().unwrap();
    assert!(
        finished.outcome == Outcome::Cancelled && finished.operation.id == "op",
        "{finished:?}"
    );
    assert_eq!(world.mode("west"), Mode::Serve { epoch: Some(Epoch(1)) });
    assert!(world.requests.is_empty());
    // What gives the role back compares it, and so does this: one of them comes first.
    assert!(
        commit.expects.iter().any(|expect| matches!(expect, Expect::Role(..)))
            && commit.expects.iter().any(|expect| matches!(expect, Expect::Plan(_))),
        "{commit:?}"
    );
    // And it can be asked for again.
    world.journal.clear();
    world.ask(Kind::Switchover, "east");
    world.step(at(300));
    assert_eq!(world.role().hold, Hold::Revoking);
}

#[test]
fn past_its_point_of_no_return_nothing_is_called_off() {
    let refusal = |world: &World| {
        let commit = world.decide(at(300)).unwrap();
        let [Change::Answer(answer)] = &commit.changes[..] else {
            panic!("{commit:?}")
        };
        answer.refused.clone().unwrap()
    };
    let mut taken = switching();
    taken
        .roles
        .values_mut()
        .for_each(|role| role.value = Role::held("east".into(), Epoch(2)));
    call_off(&mut taken);
    let why = refusal(&taken);
    assert!(
        why.contains("point of no return: east has taken the roles") && why.contains("switch over to west"),
        "{why}"
    );
    let mut failover = protected();
    failover.miss("west", &["east", "witness"]);
    failover.step(at(4000));
    let id = failover
        .plan
        .as_ref()
        .unwrap()
        .value
        .operation
        .as_ref()
        .unwrap()
        .id
        .clone();
    call_off(&mut failover);
    failover.requests[0].value.id = id;
    assert!(refusal(&failover).contains("is a failover"), "{}", refusal(&failover));
}

/// West has given the role back, and east has not taken it.
fn released() -> World {
    let mut world = switching();
    for role in world.roles.values_mut() {
        role.value.hold = Hold::Released;
        role.revision = 50;
    }
    world.leases.get_mut(&"west".into()).unwrap().first_seen = at(3900);
    world
}

fn finished(world: &World) -> &Finished {
    world.plan.as_ref().unwrap().value.finished.as_ref().unwrap()
}

#[test]
fn a_cluster_is_active_once_what_brings_the_application_there_cannot_be_called_off() {
    let active = |world: &World, me: &str| {
        let plan = &world.plan.as_ref().unwrap().value;
        crate::execute::is_active(plan, &world.roles, &world.journal, &me.into())
    };
    let world = protected();
    assert!(active(&world, "west") && !active(&world, "east"));
    for mut world in [switching(), released()] {
        assert!(!active(&world, "west") && !active(&world, "east"));
        for role in world.roles.values_mut() {
            role.value = Role::held("east".into(), Epoch(2));
        }
        assert!(active(&world, "east"));
    }
}

#[test]
fn roles_that_were_given_back_and_not_taken_are_the_sources_again_at_a_new_epoch_when_it_is_called_off() {
    let mut world = released();
    world.renewed("east", 3900);
    call_off(&mut world);
    let taking = |world: &World, plan: &Versioned<Plan>| {
        let operation = plan.value.operation.as_ref().unwrap();
        crate::handover::take(&world.roles, plan.revision, operation)
    };
    let plan = world.plan.clone().unwrap();
    let take = taking(&world, &plan);
    let commit = world.step(at(4000));
    assert_eq!(world.role(), &Role::held("west".into(), Epoch(2)));
    assert_eq!(world.mode("west"), Mode::Serve { epoch: Some(Epoch(2)) });
    assert_eq!(finished(&world).outcome, Outcome::Cancelled);
    // What takes the role compares the same revision of it.
    let compared = take.unwrap().unwrap().expects;
    assert!(
        compared.iter().all(|expect| commit.expects.contains(expect)),
        "{commit:?}"
    );
    // Asked for again and released again, the role is at the epoch that the first one was to take it at. Who knows of that role and not of the
    // plan that it was released for takes nothing.
    world.ask(Kind::Switchover, "east");
    world.step(at(4000));
    for role in world.roles.values_mut() {
        role.value.hold = Hold::Released;
    }
    let late = taking(&world, &plan).unwrap().unwrap();
    let [Change::Role(_, taken)] = &late.changes[..] else {
        panic!("{late:?}")
    };
    assert_eq!((taken.epoch, world.role().epoch), (Epoch(2), Epoch(2)));
    assert!(late.expects.contains(&Expect::Plan(plan.revision)));
    assert_ne!(plan.revision, world.plan.as_ref().unwrap().revision);
    // Where the source is away, nobody would have it.
    let mut away = released();
    away.renewed("east", 3900);
    away.leases.get_mut(&"west".into()).unwrap().first_seen = at(0);
    call_off(&mut away);
    let refused = away.decide(at(4000)).unwrap();
    let [Change::Answer(answer)] = &refused.changes[..] else {
        panic!("{refused:?}")
    };
    assert!(
        answer.refused.as_ref().unwrap().contains("does not answer"),
        "{answer:?}"
    );
}

#[test]
fn a_switchover_whose_target_is_lost_before_it_took_the_roles_fails_and_the_source_goes_on() {
    for (missed, now, source_seen, paused, ends) in [
        (&["west", "witness"][..], 3029, 3000, false, false),
        // Cut off from the quorum alone, it is still heard of; it cannot take them.
        (&["west"], 3030, 3000, false, true),
        (&["west", "witness"], 3030, 3000, false, true),
        (&["west", "witness"], 3030, 3000, true, false),
        // Nobody is there to have them: the target may still take them.
        (&["west", "witness"], 3030, 0, false, false),
    ] {
        let mut world = released();
        world.app.paused = paused;
        world.miss("east", missed);
        world.leases.get_mut(&"west".into()).unwrap().first_seen = at(source_seen);
        let commit = world.decide(at(now));
        assert_eq!(commit.is_some(), ends, "{now} {missed:?} {source_seen} {paused}");
        let Some(commit) = commit else { continue };
        for compared in [
            Expect::Role("shop/web/data".parse().unwrap(), 50),
            Expect::Plan(world.plan.as_ref().unwrap().revision),
            Expect::Lease("east".into(), 5),
        ] {
            assert!(commit.expects.contains(&compared), "{compared:?} {commit:?}");
        }
        world.apply(&commit);
        assert!(world.leases[&"east".into()].lease.sealed);
        assert_eq!(world.role(), &Role::held("west".into(), Epoch(2)));
        assert_eq!(world.mode("west"), Mode::Serve { epoch: Some(Epoch(2)) });
        let why = why_failed(finished(&world));
        assert!(
            why.contains("east was lost") && why.contains("west is active again at epoch 2"),
            "{why}"
        );
        assert_eq!(world.decide(at(now)), None);
    }
}

#[test]
fn one_whose_target_is_lost_before_its_source_gave_anything_back_fails_at_the_same_epoch() {
    let mut world = switching();
    world.leases.get_mut(&"west".into()).unwrap().first_seen = at(3900);
    world.miss("east", &["west", "witness"]);
    world.step(at(4000));
    let held = Role {
        in_sync: ["east".into()].into(),
        ..Role::held("west".into(), Epoch(1))
    };
    assert_eq!(world.role(), &held);
    assert!(matches!(finished(&world).outcome, Outcome::Failed(_)));
}

#[test]
fn what_a_lost_target_has_taken_fails_over_only_to_whom_that_is_safe_for() {
    let taken = |in_sync: bool| {
        let mut world = released();
        for role in world.roles.values_mut() {
            role.value = Role::held("east".into(), Epoch(2));
            if in_sync {
                role.value.in_sync.insert("west".into());
            }
        }
        world.done(StepName::Release);
        world.done(StepName::Take);
        world.miss("east", &["west", "witness"]);
        world
    };
    let mut confirmed = taken(true);
    confirmed.step(at(4000));
    assert_eq!(confirmed.role(), &Role::held("west".into(), Epoch(3)));
    let plan = &confirmed.plan.as_ref().unwrap().value;
    let running = plan.operation.as_ref().unwrap();
    assert_eq!((running.kind, running.to.as_str()), (Kind::Failover, "west"));
    let broken_off = finished(&confirmed);
    assert!(
        broken_off.operation.id == "op" && why_failed(broken_off).contains("east was lost"),
        "{broken_off:?}"
    );
    // It may have answered users with what west never got: a person says whether that may be lost.
    let mut behind = taken(false);
    assert_eq!(behind.decide(at(4000)), None);
    behind.ask(Kind::Failover, "west");
    behind.requests[0].value.id = "back".into();
    let refused = behind.decide(at(4000)).unwrap();
    let [Change::Answer(answer)] = &refused.changes[..] else {
        panic!("{refused:?}")
    };
    assert!(
        answer.refused.as_ref().unwrap().contains("--accept-data-loss"),
        "{answer:?}"
    );
    behind.requests[0].value.accept_loss_ms = Some(9_000_000);
    behind.step(at(4000));
    assert_eq!(behind.role(), &Role::held("west".into(), Epoch(3)));
}

#[test]
fn check_refuses_that_a_role_which_was_given_back_is_held_again_at_its_epoch() {
    let mut world = released();
    call_off(&mut world);
    let mut commit = world.decide(at(4000)).unwrap();
    for change in &mut commit.changes {
        if let Change::Role(_, role) = change {
            role.epoch = Epoch(1);
        }
    }
    let refused = check(&commit, &world.snapshot(), &timing(), at(4000));
    assert!(matches!(refused, Err(Violation::Epoch(_))), "{refused:?}");
}

#[test]
fn an_application_without_roles_is_called_off_until_its_target_serves() {
    let world = |started: bool| {
        let mut world = World::new(Model::ActivePassive);
        world.app.roles.clear();
        world.step(at(0));
        world.ask(Kind::Switchover, "east");
        world.step(at(100));
        if started {
            world.done(StepName::Start);
        }
        call_off(&mut world);
        world.step(at(200));
        world.plan.unwrap().value
    };
    let plan = world(false);
    assert_eq!((plan.active.as_str(), &plan.operation), ("west", &None));
    let plan = world(true);
    assert_eq!(plan.active.as_str(), "east");
    assert!(plan.operation.is_some());
}

#[test]
fn a_stuck_switchover_of_a_lost_source_is_called_off_so_that_a_person_can_accept_a_loss() {
    let mut world = first();
    world.ask(Kind::Switchover, "east");
    world.step(at(100));
    world.miss("west", &["east", "witness"]);
    assert_eq!(world.decide(at(4000)), None, "east is not in sync");
    call_off(&mut world);
    world.step(at(4000));
    world.ask(Kind::Failover, "east");
    world.requests[0].value.accept_loss_ms = Some(9_000_000);
    world.step(at(4000));
    assert_eq!(world.role(), &Role::held("east".into(), Epoch(2)));
}

#[test]
fn what_contradicts_a_running_operation_is_refused_and_the_message_names_it() {
    for (kind, to) in [
        (Kind::Switchover, "west"),
        (Kind::Switchover, "east"),
        (Kind::Failover, "east"),
    ] {
        let mut world = switching();
        world.ask(kind, to);
        world.requests[0].value.id = "another".into();
        let commit = world.step(at(200));
        let [Change::Answer(answer)] = &commit.changes[..] else {
            panic!("{commit:?}")
        };
        let why = answer.refused.as_ref().unwrap();
        assert!(
            why.contains("op, a switchover from west to east, is running")
                && why.contains("leeward switchover shop/web --cancel"),
            "{why}"
        );
    }
}

#[test]
fn what_does_not_run_is_not_called_off() {
    let mut idle = protected();
    call_off(&mut idle);
    let mut other = switching();
    call_off(&mut other);
    other.requests[0].value.id = "another".into();
    for mut world in [idle, other] {
        let before = world.plan.clone();
        let commit = world.step(at(200));
        let [Change::Answer(answer)] = &commit.changes[..] else {
            panic!("{commit:?}")
        };
        assert!(answer.refused.as_ref().unwrap().contains("does not run"), "{answer:?}");
        assert_eq!(world.plan, before);
    }
}

#[test]
fn a_paused_application_is_not_moved_by_itself_and_says_so() {
    let mut world = protected();
    world.app.paused = true;
    let report = next(&world.snapshot(), &timing(), at(0), 0).1;
    assert!(!report.protected);
    assert_eq!(report.waiting_for, [crate::report::PAUSED]);
    world.miss("west", &["east", "witness"]);
    assert_eq!(world.decide(at(4000)), None);
    // A person moves it all the same.
    let mut asked = protected();
    asked.app.paused = true;
    asked.ask(Kind::Switchover, "east");
    asked.step(at(100));
    assert_eq!(asked.role().hold, Hold::Revoking);
    world.ask(Kind::Failover, "east");
    world.step(at(4000));
    assert_eq!(world.role(), &Role::held("east".into(), Epoch(2)));
}

#[test]
fn a_switchover_of_a_paused_application_does_not_become_a_failover() {
    let mut world = switching();
    world.app.paused = true;
    world.miss("west", &["east", "witness"]);
    assert_eq!(world.decide(at(4000)), None);
    world.app.paused = false;
    assert!(world.decide(at(4000)).is_some());
}

#[test]
fn check_refuses_a_failover_of_a_paused_application_that_nobody_asked_for() {
    let mut world = protected();
    world.miss("west", &["east", "witness"]);
    let commit = world.decide(at(4000)).unwrap();
    world.app.paused = true;
    let refused = check(&commit, &world.snapshot(), &timing(), at(4000));
    assert!(matches!(refused, Err(Violation::Paused(_))), "{refused:?}");
}
