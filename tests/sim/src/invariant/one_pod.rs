//! One pod writes at an instant: of all gates, in all regions, one at the most may let an answer out.

use super::Checked;
use crate::world::World;

pub(super) fn check(world: &World) -> Checked {
    let mut open = world
        .regions
        .iter()
        .filter(|region| !region.is_frozen(world.now))
        .flat_map(|region| &region.pods)
        .filter_map(|pod| Some((&pod.uid, pod.answers(world.now)?)));
    match (open.next(), open.next()) {
        (Some((one, first)), Some((other, second))) => Err((
            "one pod writes",
            format!("{one} may answer at epoch {first} and {other} at epoch {second}"),
        )),
        _ => Ok(()),
    }
}
