//! What is lost is the newest of an epoch that ended without its writer: never a write before one that was kept (a hole), and nothing
//! of an epoch that was passed on in order; and no more of it than the rpo, from the first that is lost to the last that was acknowledged.
//! No volume has data of an epoch that no acknowledged line follows.

use std::collections::{BTreeMap, BTreeSet};

use super::Checked;
use crate::world::World;

pub(super) fn check(world: &World) -> Checked {
    let Some(role) = world.role() else { return Ok(()) };
    let Some(active) = world
        .regions
        .iter()
        .find(|region| region.place.name() == role.owner.as_str())
    else {
        return Ok(());
    };
    // One that was lost for good after it took the role and before it promoted has everything in its point.
    let point = active.volume.point.as_ref();
    let log = match point.filter(|_| world.lost_for_good == Some(active.place) && active.volume.epoch < role.epoch.0) {
        Some(point) => &*point.log,
        None => &active.volume.log,
    };
    let kept: BTreeSet<(u64, u64)> = log.iter().copied().collect();
    if kept.len() < log.len() {
        return Err((
            "nothing is doubled",
            format!("of {} lines {} are different", log.len(), kept.len()),
        ));
    }
    let mut epochs: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for ack in &world.clients.acks {
        epochs.entry(ack.epoch).or_default().push(ack.n);
    }
    let rpo = u64::try_from(world.app.rpo.as_micros()).unwrap_or(u64::MAX);
    for (epoch, numbers) in epochs {
        let lost: Vec<&u64> = numbers.iter().filter(|n| !kept.contains(&(**n, epoch))).collect();
        let of_epoch = world.clients.acks.iter().filter(|ack| ack.epoch == epoch);
        let lost_at = of_epoch
            .clone()
            .filter(|ack| !kept.contains(&(ack.n, epoch)))
            .map(|ack| ack.at);
        let window = lost_at.min().zip(of_epoch.map(|ack| ack.at).max());
        if let Some((first, last)) = window.filter(|(first, last)| last - first > rpo) {
            return Err((
                "no more than the rpo is lost",
                format!("{} ms of epoch {epoch} are lost", (last - first) / 1000),
            ));
        }
        // Lines of one epoch stand in the order in which they were written.
        let order: Vec<u64> = log.iter().filter(|(_, of)| *of == epoch).map(|(n, _)| *n).collect();
        let newest = order.iter().copied().max();
        if let Some(hole) = lost.iter().find(|n| newest.is_some_and(|newest| ***n < newest)) {
            return Err((
                "no holes",
                format!("{hole} of epoch {epoch} is lost and {newest:?} is not"),
            ));
        }
        if !lost.is_empty() && !world.failed_over.contains(&epoch) {
            return Err((
                "nothing is lost in order",
                format!("{lost:?} of epoch {epoch}, which was passed on in order or goes on"),
            ));
        }
    }
    Ok(())
}
