//! Each step of each operation, cut short at each moment and done twice. `cargo xtask sim --steps` plays it from many seeds.

use leeward_core::operation::StepName::{self, LastPoint, Promote, Quiesce, Release, Start, Take};
use leeward_sim::{
    Mutant,
    script::{Asked, Cut, Dies, Moment, Script},
    table::{self, OPERATIONS},
};

/// The steps of what is done, as a person reads them in the documents.
fn expected(operation: Script) -> &'static [StepName] {
    match (operation.asked, operation.has_roles) {
        (Asked::Failover, true) => &[Promote, Start],
        (Asked::Failover, false) => &[Start],
        (_, true) => &[Quiesce, LastPoint, Release, Take, Promote, Start],
        (_, false) => &[Start, Quiesce],
    }
}

/// Judges all rows of what is done.
fn all_is_well(operation: Script) {
    assert_eq!(
        table::steps(operation),
        expected(operation),
        "the core plans other steps"
    );
    let rows = table::rows(operation);
    for step in expected(operation) {
        for moment in Moment::of(*step) {
            let is_last = expected(operation).last() == Some(step);
            let is_there = |row: &Script| row.cut.is_some_and(|cut| (cut.step, cut.moment) == (*step, *moment));
            assert!(
                rows.iter().any(is_there) || is_last && *moment == Moment::AgainAfterNext,
                "{moment:?} of {step:?} is missing"
            );
        }
    }
    for row in rows {
        let outcome = table::play(row, 1, None);
        if let Err(wrong) = table::judge(row, &outcome) {
            panic!("{row:?}: {wrong}\n{}", outcome.history.join("\n"));
        }
    }
}

#[test]
fn each_operation_is_in_the_table_once() {
    for (at, operation) in OPERATIONS.iter().enumerate() {
        assert!(!OPERATIONS[..at].contains(operation), "{operation:?}");
    }
}

#[test]
fn a_failover_that_is_cut_short_anywhere_ends_protected() {
    all_is_well(OPERATIONS[0]);
}

#[test]
fn a_switchover_that_is_cut_short_anywhere_ends_protected() {
    all_is_well(OPERATIONS[1]);
}

#[test]
fn a_switchover_that_is_called_off_anywhere_ends_protected() {
    all_is_well(OPERATIONS[2]);
}

#[test]
fn a_drain_that_is_cut_short_anywhere_ends_protected() {
    all_is_well(OPERATIONS[3]);
}

#[test]
fn a_failover_without_roles_that_is_cut_short_anywhere_ends_protected() {
    all_is_well(OPERATIONS[4]);
}

#[test]
fn a_switchover_without_roles_that_is_cut_short_anywhere_ends_protected() {
    all_is_well(OPERATIONS[5]);
}

/// The test of the test: a step that is not safe to be run twice, and one that is not safe to be cut short.
#[test]
fn a_step_that_is_not_safe_to_run_twice_is_noticed() {
    for (mutant, step, moment) in [
        (Mutant::PromotedAnew, Promote, Moment::AgainAfterNext),
        (Mutant::DoneByItsOwnCommitOnly, Release, Moment::CommitUnheard),
        (Mutant::DoneByItsOwnCommitOnly, Take, Moment::BeforeJournal),
    ] {
        let cut = Cut {
            step,
            moment,
            dies: Dies::Agent,
            for_long: false,
        };
        let row = Script {
            cut: Some(cut),
            ..OPERATIONS[1]
        };
        // Not every seed has a client that writes just then.
        let is_noticed = |row, seed| table::judge(row, &table::play(row, seed, Some(mutant))).is_err();
        assert!(
            (0..10).any(|seed| is_noticed(row, seed)),
            "{mutant:?} at {moment:?} of {step:?}"
        );
        assert!(!is_noticed(OPERATIONS[1], 1), "{mutant:?} where nothing is cut short");
    }
}
