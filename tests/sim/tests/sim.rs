//! A few seeds on every machine; `cargo xtask sim` plays many.

use leeward_sim::{Mutant, Run, run};

fn of(seed: u64, mutant: Option<Mutant>) -> Run {
    Run {
        seed,
        mutant,
        seconds: 12,
        script: None,
    }
}

#[test]
fn nothing_is_violated_in_a_few_seeds() {
    let (mut moves, mut cancels) = (0, 0);
    for seed in 0..30 {
        let outcome = run(&of(seed, None));
        assert_eq!(outcome.violation, None, "seed {seed}:\n{}", outcome.history.join("\n"));
        assert!(outcome.acknowledged > 0, "seed {seed}");
        moves += outcome.moves;
        cancels += outcome.cancels;
    }
    assert!(moves > 10, "too little happens: the writer moved {moves} times");
    assert!(cancels > 0, "too little happens: no switchover was called off");
}

/// A role that is being given back, read with a renewal, and the plan that says why not heard of yet.
#[test]
fn what_is_known_of_two_instants_leads_to_no_plan_that_is_refused() {
    let outcome = run(&of(5036, None));
    assert_eq!(outcome.violation, None, "{}", outcome.history.join("\n"));
}

#[test]
fn a_seed_replays_exactly() {
    let (once, again) = (run(&of(17, None)), run(&of(17, None)));
    assert_eq!((once.history, once.events), (again.history, again.events));
}

/// The test of the test: with each safety check taken away, the seed that `cargo xtask sim --mutants` found first.
#[test]
fn each_safety_check_that_is_taken_away_is_noticed() {
    let mut missed = Vec::new();
    for (mutant, seed) in [
        (Mutant::TakerWithoutDrift, 568),
        (Mutant::HolderWithoutDrift, 568),
        (Mutant::HolderCountsFromAnswer, 385),
        (Mutant::UnknownIsRenewed, 2),
        (Mutant::TakerDoesNotWait, 10),
        (Mutant::LeaseNotCompared, 815),
        (Mutant::NeitherSealedNorCompared, 2081),
        (Mutant::CancelledUncompared, 135),
        (Mutant::PauseIgnored, 6),
        (Mutant::SpecificationUncompared, 3701),
        (Mutant::RevokingIsGranted, 247),
        (Mutant::ReleasedBeforeClosed, 28),
        (Mutant::LowerEpochReceived, 10),
        (Mutant::LastPointNotWaitedFor, 23),
        (Mutant::LastPointBeforeClosed, 368_814),
        (Mutant::BoundIgnored, 15),
        (Mutant::StopGoesOn, 15),
        (Mutant::PointCountsFromConfirmation, 17),
        (Mutant::OutBeforeCommitted, 60),
        (Mutant::InAfterCommitted, 870),
        (Mutant::SyncWithoutLease, 2481),
        (Mutant::TakenForAnyPlan, 27_630),
        (Mutant::MaintenanceUncompared, 916),
        (Mutant::PredecessorsGatesForgotten, 1344),
        (Mutant::OnceHolderAlwaysHolder, 1864),
        (Mutant::AnyPodIsGranted, 0),
        (Mutant::ReleasedBeforeGatesClosed, 1362),
        (Mutant::GateGrantedWithoutEnd, 2999),
        (Mutant::RolesWithoutTheirPlan, 5036),
        (Mutant::AnyoneIsReady, 402),
        (Mutant::ConfirmedThoughFull, 9),
        (Mutant::AcknowledgedThoughFull, 10),
        (Mutant::AnyoneIsInSync, 0),
        (Mutant::NothingPutAside, 10),
        (Mutant::PointGoesBeforeNext, 9),
        (Mutant::EdgeAsksThePlan, 72),
        (Mutant::EdgeTakesNewerPlansOnly, 19),
        (Mutant::PlannerForgetsThePlan, 0),
    ] {
        if run(&of(seed, Some(mutant))).violation.is_none() {
            missed.push((mutant, seed));
        }
        assert_eq!(run(&of(seed, None)).violation, None, "seed {seed}");
    }
    assert_eq!(missed, []);
}
