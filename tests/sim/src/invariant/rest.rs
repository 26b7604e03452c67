//! Once faults have stopped, everything comes to rest: one region serves, nothing is under way, the other one has a point of this
//! epoch, and writes are acknowledged.
//!
//! A region that is lost for good leaves the other one at rest. But for what it may have acknowledged and the other one never got: then
//! it has the role, the other one is not in sync, and nothing moves without a person. So it is, too, when it was lost while a switchover
//! asked it to stop: the switchover waits for a person, who calls it off and accepts the loss by name.

use leeward_core::lease::Hold;

use super::Checked;
use crate::app::Process;
use crate::world::{CALM, World};

pub(super) fn check(world: &World) -> Checked {
    let wrong = |what: String| Err(("everything comes to rest", what));
    let (Some(role), Some(plan)) = (world.role(), world.plan()) else {
        return wrong("there is no plan".into());
    };
    if let Some(lost) = world.lost_for_good
        && role.hold != Hold::Released
        && role.owner.as_str() == lost.name()
    {
        return match role.in_sync.is_empty() {
            true => Ok(()),
            false => wrong(format!(
                "{lost:?} is lost, has the role, and {:?} is in sync",
                role.in_sync
            )),
        };
    }
    if let Some(operation) = &plan.operation {
        return wrong(format!(
            "{} is still under way: {:?}",
            operation.id,
            world.journal(&operation.id)
        ));
    }
    if role.hold != Hold::Held || role.owner != plan.active {
        return wrong(format!("{} is active and the role is {role:?}", plan.active));
    }
    let here = |place| world.lost_for_good != Some(place);
    for region in world.regions.iter().filter(|region| here(region.place)) {
        let active = role.owner.as_str() == region.place.name();
        match region.process {
            Process::Running { epoch } if active && epoch == role.epoch.0 => {}
            Process::Stopped if !active => {}
            other => return wrong(format!("{:?} is {other:?} in epoch {}", region.place, role.epoch)),
        }
        if !active
            && region
                .volume
                .point
                .as_ref()
                .is_none_or(|point| point.epoch != role.epoch.0)
        {
            return wrong(format!("{:?} has no point of epoch {}", region.place, role.epoch));
        }
    }
    match world.clients.acks.last() {
        Some(ack) if ack.epoch == role.epoch.0 && ack.at + CALM / 4 > world.now => Ok(()),
        other => wrong(format!("the last acknowledgement is {other:?}")),
    }
}
