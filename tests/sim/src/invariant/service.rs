//! Nothing begins to move to a region that is out of service when that is committed, and nothing leaves a region unasked that is not drained then.

use leeward_core::{
    maintenance::{DRAIN, Maintenance},
    operation::Operation,
};

use super::Checked;
use crate::world::World;

#[derive(Debug, Default)]
pub(super) struct Memory {
    revision: u64,
    running: Option<Operation>,
}

pub(super) fn check(world: &World, memory: &mut Memory) -> Checked {
    if world.quorum.revision() == memory.revision {
        return Ok(());
    }
    memory.revision = world.quorum.revision();
    let running = world.plan().and_then(|plan| plan.operation.clone());
    let before = std::mem::replace(&mut memory.running, running.clone());
    let Some(begins) = running.filter(|running| before.as_ref() != Some(running)) else {
        return Ok(());
    };
    let wrong = |what: String| Err(("nothing moves to a region that is out of service", what));
    // What was under way there already goes on, also as a failover.
    let goes_on = before.is_some_and(|before| before.to == begins.to);
    let said = world.said_of(begins.to.as_str());
    if said != Maintenance::None && !goes_on {
        return wrong(format!(
            "{} has begun, and {} is out of service: {said:?}",
            begins.id, begins.to
        ));
    }
    let said = world.said_of(begins.from.as_str());
    if begins.id.starts_with(DRAIN) && said != Maintenance::Drain {
        return wrong(format!(
            "{} has begun, and {} is not drained: {said:?}",
            begins.id, begins.from
        ));
    }
    Ok(())
}
