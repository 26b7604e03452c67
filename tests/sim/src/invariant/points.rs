//! Zombies are refused at the data: where data of an epoch is, no point of a lower one is kept.

use super::Checked;
use crate::world::World;

pub(super) fn check(world: &World) -> Checked {
    for region in &world.regions {
        if let Some(point) = &region.volume.point
            && point.epoch < region.volume.epoch
        {
            return Err((
                "zombies are refused at the data",
                format!(
                    "{:?} has data of epoch {} and took a point of epoch {}",
                    region.place, region.volume.epoch, point.epoch
                ),
            ));
        }
    }
    Ok(())
}
