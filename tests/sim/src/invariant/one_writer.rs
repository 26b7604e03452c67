//! One writer per role and instant: no two agents may answer, of one region or of two, at the same instant, and none at an epoch below the
//! one that the quorum has given to another region.

use super::Checked;
use crate::{replica::Replica, world::World};

pub(super) fn check(world: &World) -> Checked {
    let mut writers = Vec::new();
    for region in &world.regions {
        // A region that stands still lets nothing out; what it may do when it goes on is looked at then.
        if region.is_frozen(world.now) {
            continue;
        }
        let now = region.clock.at(world.now);
        let goes_on = |replica: &&Replica| world.now >= replica.frozen_until;
        let agents = region.replicas.iter().filter(goes_on);
        let answers = agents.filter_map(|replica| replica.agent.as_ref()?.answer(now));
        writers.extend(answers.map(|epoch| (region.place, epoch)));
    }
    if let [(one, first), (other, second), ..] = writers[..] {
        return Err((
            "one writer",
            format!("{one:?} may answer at epoch {first} and {other:?} at epoch {second}"),
        ));
    }
    let Some(role) = world.role() else { return Ok(()) };
    for (place, epoch) in writers {
        if epoch < role.epoch && role.owner.as_str() != place.name() {
            return Err((
                "one writer",
                format!(
                    "{place:?} may answer at epoch {epoch} while the quorum has given epoch {} to {}",
                    role.epoch, role.owner
                ),
            ));
        }
    }
    Ok(())
}
