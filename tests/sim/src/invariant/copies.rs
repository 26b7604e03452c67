//! There is always a copy. What was acknowledged is on a disk of the region that acknowledged it for ever: in its volume, in the point that
//! has taken its place, or put aside before that. And there is never a moment at which no volume or point has everything that was
//! acknowledged up to the rpo; each standby that is in sync, as the quorum has it, has one that does. Of a region that is lost for good the
//! disks are lost, too: then nothing has it all where that region wrote on without the other one.

use super::Checked;
use crate::{
    app::{Line, Volume},
    client::Ack,
    fault::Time,
    world::{Region, World, name},
};

const COPY: &str = "there is always a copy";
const KEPT: &str = "what was acknowledged stays on a disk of its region";

#[derive(Debug, Default)]
pub(super) struct Memory {
    seen: usize,
    regions: [Disks; 2],
}

/// The disks of a region as they were looked at last.
#[derive(Debug, Default)]
struct Disks {
    /// Changes but for what was acknowledged: epoch, point, what was put aside, lines that nobody was told of.
    at: (u64, (u64, u64), usize, usize),
    acks: usize,
    /// Its best copy.
    lacks: Lacks,
}

/// What a copy lacks.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Lacks {
    /// The longest time of an epoch from the first write that it lacks to the last one that was acknowledged.
    longest: Time,
    /// The newest epoch, and when the first write of it that it lacks was acknowledged.
    newest: (u64, Option<Time>),
}

pub(super) fn check(world: &World, memory: &mut Memory) -> Checked {
    let acks = &world.clients.acks;
    for ack in &acks[memory.seen..] {
        let region = &world.regions[ack.region];
        if region.volume.log.last() != Some(&(ack.n, ack.epoch)) {
            return Err((
                KEPT,
                format!("{} is acknowledged by {:?} and not in its volume", ack.n, region.place),
            ));
        }
        memory.regions[ack.region].acks += 1;
        for (index, disks) in memory.regions.iter_mut().enumerate() {
            // Nobody but the writer has it yet.
            if index != ack.region {
                disks.lacks.write(ack);
            }
        }
    }
    let mut changed = acks.len() > memory.seen;
    memory.seen = acks.len();
    for (index, (region, disks)) in world.regions.iter().zip(&mut memory.regions).enumerate() {
        let volume = &region.volume;
        let point = volume
            .point
            .as_ref()
            .map_or((0, 0), |point| (point.epoch, point.sequence));
        let at = (
            volume.epoch,
            point,
            volume.aside.len(),
            volume.log.len().wrapping_sub(disks.acks),
        );
        if disks.at != at {
            disks.at = at;
            changed = true;
            everything_is_kept(region, acks.iter().filter(|ack| ack.region == index))?;
            disks.lacks = copies(volume)
                .map(|copy| Lacks::of(copy, acks))
                .min()
                .unwrap_or_default();
        }
    }
    if changed { is_there(world, memory) } else { Ok(()) }
}

fn copies(volume: &Volume) -> impl Iterator<Item = &[Line]> {
    let point = volume.point.iter().map(|point| &**point.log);
    std::iter::once(&*volume.log).chain(point)
}

/// Whatever a region acknowledged is on its disks.
fn everything_is_kept<'a>(region: &Region, acks: impl Iterator<Item = &'a Ack>) -> Checked {
    let volume = &region.volume;
    let mut logs: Vec<_> = copies(volume)
        .chain([&*volume.aside])
        .map(|copy| copy.iter().peekable())
        .collect();
    for ack in acks {
        // Numbers grow, in each of them.
        let is_there = logs.iter_mut().any(|log| {
            while log.next_if(|(n, _)| *n < ack.n).is_some() {}
            log.peek() == Some(&&(ack.n, ack.epoch))
        });
        if !is_there {
            let what = format!(
                "{} of epoch {}, which {:?} acknowledged, is neither in its volume nor in its point nor put aside",
                ack.n, ack.epoch, region.place
            );
            return Err((KEPT, what));
        }
    }
    Ok(())
}

fn is_there(world: &World, memory: &Memory) -> Checked {
    let Some(role) = world.role() else { return Ok(()) };
    let rpo = Time::try_from(world.app.rpo.as_micros()).unwrap_or(Time::MAX);
    let here = |region: &&(&Region, &Disks)| world.lost_for_good != Some(region.0.place);
    let regions: Vec<_> = world.regions.iter().zip(&memory.regions).collect();
    for (region, disks) in regions.iter().filter(here) {
        if role.in_sync.contains(&name(region.place)) && disks.lacks.longest > rpo {
            return Err((
                COPY,
                format!(
                    "{:?} is in sync, and what it has lacks {} ms",
                    region.place,
                    disks.lacks.longest / 1000
                ),
            ));
        }
    }
    let wrote_alone = world
        .lost_for_good
        .is_some_and(|lost| role.owner == name(lost) && !role.in_sync.contains(&name(lost.other())));
    if wrote_alone || regions.iter().filter(here).any(|(_, disks)| disks.lacks.longest <= rpo) {
        return Ok(());
    }
    let lacks = regions
        .iter()
        .map(|(region, disks)| format!("{:?} lacks {} ms", region.place, disks.lacks.longest / 1000));
    Err((COPY, lacks.collect::<Vec<_>>().join(", ")))
}

impl Lacks {
    /// Of a copy, by what was acknowledged; the numbers of both grow.
    fn of(copy: &[Line], acks: &[Ack]) -> Self {
        let mut lacks = Self::default();
        let mut lines = copy.iter().peekable();
        for ack in acks {
            while lines.next_if(|(n, _)| *n < ack.n).is_some() {}
            match lines.peek() == Some(&&(ack.n, ack.epoch)) {
                true => lacks.goes_on(ack, None),
                false => lacks.write(ack),
            }
        }
        lacks
    }

    /// A write that it lacks.
    fn write(&mut self, ack: &Ack) {
        self.goes_on(ack, Some(ack.at));
    }

    fn goes_on(&mut self, ack: &Ack, lacked: Option<Time>) {
        let (epoch, first) = &mut self.newest;
        if *epoch != ack.epoch {
            (*epoch, *first) = (ack.epoch, None);
        }
        *first = first.or(lacked);
        if let Some(first) = first {
            self.longest = self.longest.max(ack.at - *first);
        }
    }
}
