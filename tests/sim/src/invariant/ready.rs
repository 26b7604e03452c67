//! Nothing fails over to a region that lacks what a start there needs: its configuration is on its disk, or in the memory of an agent of it, when the
//! failover is committed. What its last agent had counts while none lives: it may have decided, and died with that. Where a switchover to it was
//! under way it was looked at when that began, and what was carried is of no use any more.

use leeward_core::operation::Kind;

use super::Checked;
use crate::world::{Region, World};

#[derive(Debug, Default)]
pub(super) struct Memory {
    revision: u64,
    was_running: bool,
    /// Whether each region had its configuration after the last event at which an agent of it lived.
    had: [bool; 2],
}

pub(super) fn check(world: &World, memory: &mut Memory) -> Checked {
    let before = memory.had;
    for (had, region) in memory.had.iter_mut().zip(&world.regions) {
        *had = has(region).unwrap_or(*had);
    }
    if world.quorum.revision() == memory.revision {
        return Ok(());
    }
    memory.revision = world.quorum.revision();
    let running = world.plan().and_then(|plan| plan.operation.as_ref());
    let was_running = std::mem::replace(&mut memory.was_running, running.is_some());
    let Some(failover) = running.filter(|running| !was_running && running.kind == Kind::Failover) else {
        return Ok(());
    };
    let mut regions = world.regions.iter().zip(before.into_iter().zip(memory.had));
    match regions.find(|(region, _)| region.place.name() == failover.to.as_str()) {
        Some((_, (had, has))) if had || has => Ok(()),
        _ => Err((
            "only a ready region takes over",
            format!("{} has begun, and {} has no configuration", failover.id, failover.to),
        )),
    }
}

/// None while no agent of it lives.
fn has(region: &Region) -> Option<bool> {
    let mut agents = region.agents().peekable();
    agents.peek()?;
    let is_kept = region.replicas.iter().any(|replica| replica.disk.has_configuration);
    Some(is_kept || agents.any(|agent| agent.carried.is_here))
}
