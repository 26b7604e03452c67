//! The check refuses nothing that the planner decides: a refused plan is a mistake of one of the two, and what was to be done is not done. That holds
//! also while roles are known that were read later than the plan.

use super::Checked;
use crate::world::World;

pub(super) fn check(world: &World) -> Checked {
    let mut agents = world.regions.iter().flat_map(|region| region.agents());
    match agents.find_map(|agent| agent.refused.as_ref()) {
        Some(refused) => Err(("no plan is refused", refused.clone())),
        None => Ok(()),
    }
}
