//! A few seeds on every machine; `cargo xtask sim` plays many.

use leeward_sim::{Mutant, Run, run};

fn of(seed: u64, mutant: Option<Mutant>) -> Run {
    Run {
        seed,
        mutant,
        seconds: 12,
    }
}

#[test]
fn nothing_is_violated_in_a_few_seeds() {
    let mut moves = 0;
    for seed in 0..30 {
        let outcome = run(&of(seed, None));
        assert_eq!(outcome.violation, None, "seed {seed}:\n{}", outcome.history.join("\n"));
        assert!(outcome.acknowledged > 0, "seed {seed}");
        moves += outcome.moves;
    }
    assert!(moves > 10, "too little happens: the writer moved {moves} times");
}

#[test]
fn a_seed_replays_exactly() {
    let (once, again) = (run(&of(17, None)), run(&of(17, None)));
    assert_eq!((once.history, once.events), (again.history, again.events));
}

/// The test of the test: with each safety check taken away, the seed that `cargo xtask sim --mutants` found first.
#[test]
fn each_safety_check_that_is_taken_away_is_noticed() {
    for (mutant, seed) in [
        (Mutant::TakerWithoutDrift, 1094),
        (Mutant::HolderWithoutDrift, 2205),
        (Mutant::HolderCountsFromAnswer, 429),
        (Mutant::UnknownIsRenewed, 5),
        (Mutant::TakerDoesNotWait, 5),
        (Mutant::LeaseNotCompared, 690),
        (Mutant::NeitherSealedNorCompared, 66),
        (Mutant::RevokingIsGranted, 994),
        (Mutant::ReleasedBeforeClosed, 36),
        (Mutant::LowerEpochReceived, 7),
        (Mutant::LastPointNotWaitedFor, 2),
        (Mutant::BoundIgnored, 118),
        (Mutant::OutBeforeCommitted, 1489),
        (Mutant::PointCountsFromConfirmation, 118),
    ] {
        assert!(
            run(&of(seed, Some(mutant))).violation.is_some(),
            "{mutant:?} with seed {seed}"
        );
        assert_eq!(run(&of(seed, None)).violation, None, "seed {seed}");
    }
}
