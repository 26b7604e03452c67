//! Once faults have stopped, everything comes to rest: one region serves, nothing is under way, the other one has a point of this
//! epoch, and writes are acknowledged.

use leeward_core::lease::Hold;

use super::Checked;
use crate::app::Process;
use crate::world::{CALM, World};

pub(super) fn check(world: &World) -> Checked {
    let wrong = |what: String| Err(("everything comes to rest", what));
    let (Some(role), Some(plan)) = (world.role(), world.plan()) else {
        return wrong("there is no plan".into());
    };
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
    for region in &world.regions {
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
