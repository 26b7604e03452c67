//! No write is acknowledged at an epoch after one was at a higher epoch, and each epoch is acknowledged by one region.

use std::collections::BTreeMap;

use super::Checked;
use crate::world::World;

#[derive(Debug, Default)]
pub(super) struct Memory {
    seen: usize,
    highest: u64,
    regions: BTreeMap<u64, usize>,
}

pub(super) fn check(world: &World, memory: &mut Memory) -> Checked {
    for ack in &world.clients.acks[memory.seen..] {
        if ack.epoch < memory.highest {
            return Err((
                "acknowledgements follow the epochs",
                format!("{} at epoch {} after one at epoch {}", ack.n, ack.epoch, memory.highest),
            ));
        }
        memory.highest = ack.epoch;
        let region = *memory.regions.entry(ack.epoch).or_insert(ack.region);
        if region != ack.region {
            return Err((
                "an epoch is acknowledged by one region",
                format!("{} at epoch {} by both", ack.n, ack.epoch),
            ));
        }
    }
    memory.seen = world.clients.acks.len();
    Ok(())
}
