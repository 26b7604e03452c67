//! While the application is paused nothing fails over by itself, and no switchover ends by itself because its target is lost. What counts is
//! whether it was paused as the quorum had it when that was committed, whoever decided it and whatever they knew.

use leeward_core::operation::{Kind, Outcome};

use super::Checked;
use crate::world::World;

#[derive(Debug, Default)]
pub(super) struct Memory {
    revision: u64,
    /// The operation that ran, and the one that failed last.
    running: Option<String>,
    failed: Option<String>,
}

pub(super) fn check(world: &World, memory: &mut Memory) -> Checked {
    if world.quorum.revision() == memory.revision {
        return Ok(());
    }
    memory.revision = world.quorum.revision();
    let Some(plan) = world.plan() else { return Ok(()) };
    let running = plan.operation.as_ref();
    let finished = plan
        .finished
        .as_ref()
        .filter(|finished| matches!(finished.outcome, Outcome::Failed(_)));
    let failed = finished.map(|finished| &finished.operation.id);
    // Nobody in a run asks for a failover, so every one was decided without a person.
    let fails_over = running.filter(|running| {
        running.kind == Kind::Failover && memory.running.as_ref().is_none_or(|before| *before != running.id)
    });
    let what = match (fails_over, failed) {
        (Some(failover), _) => Some(format!("{} to {} has begun", failover.id, failover.to)),
        (None, Some(failed)) if memory.failed.as_ref() != Some(failed) => Some(format!("{failed} was ended")),
        _ => None,
    };
    if let Some(what) = what.filter(|_| world.paused.now) {
        return Err(("nothing fails over while paused", what));
    }
    memory.running = running.map(|running| running.id.clone());
    memory.failed = failed.cloned();
    Ok(())
}
