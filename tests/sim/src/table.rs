//! Every moment of every step of every operation: a row each, and what must have become of it. The rows follow from the steps that the core plans
//! when the operation is left alone.

use leeward_core::operation::StepName;

use crate::{
    mutant::Mutant,
    script::{Asked, Script},
    world::{Outcome, Run, run},
};

/// How long a row is played after it began, in seconds, before everything has to be at rest.
const SECONDS: u64 = 12;

/// What is done to an application, each with nothing in its way.
pub const OPERATIONS: [Script; 6] = [
    of(Asked::Failover, true),
    of(Asked::Switchover, true),
    of(Asked::Cancel, true),
    of(Asked::Drain, true),
    of(Asked::Failover, false),
    of(Asked::Switchover, false),
];

const fn of(asked: Asked, has_roles: bool) -> Script {
    Script {
        asked,
        has_roles,
        cut: None,
    }
}

/// Plays a row from a seed.
pub fn play(script: Script, seed: u64, mutant: Option<Mutant>) -> Outcome {
    run(&Run {
        seed,
        mutant,
        seconds: SECONDS,
        script: Some(script),
    })
}

/// The steps of an operation, in the order in which the core plans them.
pub fn steps(operation: Script) -> Vec<StepName> {
    play(operation, 0, None)
        .ended
        .map_or_else(Vec::new, |ended| ended.steps)
}

/// The rows of an operation: itself, and each moment of each of its steps.
pub fn rows(operation: Script) -> Vec<Script> {
    let cuts = operation.cuts(&steps(operation));
    std::iter::once(operation).chain(cuts).collect()
}

/// What is wrong with how a row ended, if anything: an invariant does not hold, its moment has not come, it is not protected at the end, it is not
/// where it was to go, or something is lost that was passed on in order.
///
/// # Errors
/// What, in the words of a person.
pub fn judge(script: Script, outcome: &Outcome) -> Result<(), String> {
    if let Some(violation) = &outcome.violation {
        return Err(format!("{}: {}", violation.invariant, violation.what));
    }
    let Some(ended) = &outcome.ended else {
        return Err("no region is active".to_owned());
    };
    if script.cut.is_some() && !ended.has_come {
        return Err("its moment has not come".to_owned());
    }
    if !ended.waiting_for.is_empty() {
        return Err(format!("it is not protected: {}", ended.waiting_for.join("; ")));
    }
    // Who is away for longer than its lease lives counts as lost, and what is called off may have been done already.
    let for_long = script.cut.is_some_and(|cut| cut.moment.kills() && cut.for_long);
    if for_long {
        return Ok(());
    }
    if script.asked != Asked::Cancel && ended.active != "east" {
        return Err(format!("{} is active", ended.active));
    }
    if script.asked != Asked::Failover && ended.lost > 0 {
        return Err(format!("{} acknowledged writes are lost", ended.lost));
    }
    Ok(())
}
