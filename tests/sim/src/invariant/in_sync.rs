//! Who takes over was in sync: when a role is taken from a region that has not given it back, the role as it was then had the taker in its in-sync
//! set, or a person accepted by name what may be lost. What counts is what the quorum had, whatever the agent that decided it knew.

use leeward_core::lease::{Hold, Role};

use super::Checked;
use crate::world::World;

#[derive(Debug, Default)]
pub(super) struct Memory {
    revision: u64,
    role: Option<Role>,
}

pub(super) fn check(world: &World, memory: &mut Memory) -> Checked {
    if world.quorum.revision() == memory.revision {
        return Ok(());
    }
    memory.revision = world.quorum.revision();
    if world.role() == memory.role.as_ref() {
        return Ok(());
    }
    let before = std::mem::replace(&mut memory.role, world.role().cloned());
    let (Some(before), Some(role)) = (before, world.role()) else {
        return Ok(());
    };
    if before.owner == role.owner || before.hold == Hold::Released || before.in_sync.contains(&role.owner) {
        return Ok(());
    }
    let running = world.plan().and_then(|plan| plan.operation.as_ref());
    match running {
        Some(running) if running.epoch == role.epoch && running.accepted_loss_ms.is_some() => Ok(()),
        _ => Err((
            "only a standby in sync takes over",
            format!(
                "{} has taken epoch {} over from {}, and in sync with it was {:?}",
                role.owner, role.epoch, before.owner, before.in_sync
            ),
        )),
    }
}
