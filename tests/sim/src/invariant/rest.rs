//! Once faults have stopped, everything comes to rest: one region serves, nothing is under way, the other one has a point of this
//! epoch, and writes are acknowledged.
//!
//! A region that is lost for good leaves the other one at rest. But for what it may have acknowledged and the other one never got: then
//! it has the role, the other one is not in sync, and nothing moves without a person. So it is, too, when it was lost while a switchover
//! asked it to stop: the switchover waits for a person, who calls it off and accepts the loss by name.
//!
//! With `Stop`, a standby that was in sync and is lost for good leaves a writer that stands and waits for it, as was asked: all but the writes is
//! at rest then.

use leeward_core::{in_sync::WhenStandbyAway, lease::Hold};

use super::Checked;
use crate::app::Process;
use crate::world::{CALM, World, name};

fn wrong(what: String) -> Checked {
    Err(("everything comes to rest", what))
}

/// One region serves, and nothing is under way.
fn without_roles(world: &World) -> Checked {
    let Some(plan) = world.plan() else {
        return wrong("there is no plan".into());
    };
    if let Some(operation) = &plan.operation {
        return wrong(format!(
            "{} is still under way: {:?}",
            operation.id,
            world.journal(&operation.id)
        ));
    }
    for region in &world.regions {
        let active = plan.active == name(region.place);
        match region.process {
            Process::Running { .. } if active => {}
            Process::Stopped if !active => {}
            other => {
                return wrong(format!(
                    "{:?} is {other:?}, and {} is active",
                    region.place, plan.active
                ));
            }
        }
    }
    Ok(())
}

pub(super) fn check(world: &World) -> Checked {
    if world.app.roles.is_empty() {
        return without_roles(world);
    }
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
        if !active && !region.replicas.iter().all(|replica| replica.disk.has_configuration) {
            return wrong(format!("{:?} has not kept its configuration", region.place));
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
    // With `Stop` the writer waits for a standby that was in sync, and this one does not come back.
    let waits = world.app.when_standby_away == WhenStandbyAway::Stop
        && world
            .lost_for_good
            .is_some_and(|lost| role.in_sync.contains(&name(lost)));
    match world.clients.acks.last() {
        _ if waits => Ok(()),
        Some(ack) if ack.epoch == role.epoch.0 && ack.at + CALM / 4 > world.now => Ok(()),
        other => wrong(format!("the last acknowledgement is {other:?}")),
    }
}
