//! The rpo is kept at every instant, not only when something is lost: while a standby is in sync as the quorum has it, no write is acknowledged
//! later than the rpo after the taking of the newest point that this standby has. With `Stop` that holds for the rest of the epoch once the
//! standby was in sync: the writer does not go on without it.

use leeward_core::in_sync::WhenStandbyAway;

use super::Checked;
use crate::{
    fault::{REGIONS, Time},
    world::{World, name},
};

#[derive(Debug, Default)]
pub(super) struct Memory {
    seen: usize,
    /// The epoch, and whether the standby of each region, as an index, was in sync in it.
    epoch: u64,
    was_in_sync: [bool; 2],
}

pub(super) fn check(world: &World, memory: &mut Memory) -> Checked {
    let Some(role) = world.role() else { return Ok(()) };
    let is_in_sync = REGIONS.map(|region| role.in_sync.contains(&name(region.other())));
    if memory.epoch != role.epoch.0 {
        memory.epoch = role.epoch.0;
        memory.was_in_sync = [false; 2];
    }
    for (was, is) in memory.was_in_sync.iter_mut().zip(is_in_sync) {
        *was |= is;
    }
    let bounded = match world.app.when_standby_away {
        WhenStandbyAway::Serve => is_in_sync,
        WhenStandbyAway::Stop => memory.was_in_sync,
    };
    let rpo = Time::try_from(world.app.rpo.as_micros()).unwrap_or(Time::MAX);
    for ack in &world.clients.acks[memory.seen..] {
        if ack.epoch != role.epoch.0 || !bounded[ack.region] {
            continue;
        }
        let standby = &world.regions[1 - ack.region];
        let point = standby.volume.point.as_ref();
        let taken = point.filter(|point| point.epoch == ack.epoch).map(|point| point.taken);
        if taken.is_none_or(|taken| ack.at > taken + rpo) {
            return Err((
                "no more than the rpo ahead of a standby",
                format!(
                    "{} at epoch {} is acknowledged, and the newest point of it in {:?} was taken {} before",
                    ack.n,
                    ack.epoch,
                    standby.place,
                    taken.map_or("never".to_owned(), |taken| format!("{} ms", (ack.at - taken) / 1000))
                ),
            ));
        }
    }
    memory.seen = world.clients.acks.len();
    Ok(())
}
