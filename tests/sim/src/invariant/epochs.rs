//! Epochs and generations only grow, and an epoch has one owner.

use std::collections::BTreeMap;

use super::Checked;
use crate::world::World;

#[derive(Debug, Default)]
pub(super) struct Memory {
    revision: u64,
    epoch: u64,
    generation: u64,
    owners: BTreeMap<u64, String>,
}

pub(super) fn check(world: &World, memory: &mut Memory) -> Checked {
    if world.quorum.revision() == memory.revision {
        return Ok(());
    }
    memory.revision = world.quorum.revision();
    if let Some(role) = world.role() {
        if role.epoch.0 < memory.epoch {
            return Err((
                "epochs only grow",
                format!("the epoch went from {} to {}", memory.epoch, role.epoch),
            ));
        }
        memory.epoch = role.epoch.0;
        let owner = memory
            .owners
            .entry(role.epoch.0)
            .or_insert_with(|| role.owner.to_string());
        if *owner != role.owner.as_str() {
            return Err((
                "an epoch has one owner",
                format!("epoch {} went from {owner} to {}", role.epoch, role.owner),
            ));
        }
    }
    if let Some(plan) = world.plan() {
        if plan.generation.0 < memory.generation {
            return Err((
                "generations only grow",
                format!("from {} to {}", memory.generation, plan.generation),
            ));
        }
        memory.generation = plan.generation.0;
    }
    Ok(())
}
