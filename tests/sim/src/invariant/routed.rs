//! Edges send users to the writer. An edge names an epoch with the region that the quorum gave it to, never goes back to a lower one, also when it
//! is started anew, names none that is lower than what its agent knows, and asks no other region: so nobody is sent to a region that is fenced, or
//! that has not been given its role yet, by an edge that knows.

use std::collections::BTreeMap;

use leeward_core::{
    name::ClusterName,
    routing::{Profile, Writer},
};

use super::Checked;
use crate::{
    replica::Replica,
    world::{Region, World, name},
};

const ROUTED: &str = "edges send users to the writer";

#[derive(Debug, Default)]
pub(super) struct Memory {
    revision: u64,
    /// Whom the quorum gave each epoch to.
    owners: BTreeMap<u64, ClusterName>,
    /// What each replica's edge named last.
    named: BTreeMap<(usize, usize), Option<Writer>>,
}

pub(super) fn check(world: &World, memory: &mut Memory) -> Checked {
    if world.quorum.revision() != memory.revision {
        memory.revision = world.quorum.revision();
        if let Some(role) = world.role() {
            memory.owners.insert(role.epoch.0, role.owner.clone());
        }
    }
    for (index, region) in world.regions.iter().enumerate() {
        for (slot, replica) in region.replicas.iter().enumerate() {
            let Some(profile) = replica.edge.profile() else {
                continue;
            };
            match &profile.writer {
                None => {}
                writer if memory.named.get(&(index, slot)) == Some(writer) => {}
                Some(writer) => {
                    names_the_writer(
                        region,
                        replica,
                        writer,
                        memory.named.get(&(index, slot)),
                        &memory.owners,
                    )?;
                    memory.named.insert((index, slot), Some(writer.clone()));
                }
            }
            is_up_to_date(region, replica, profile)?;
        }
    }
    Ok(())
}

fn names_the_writer(
    region: &Region,
    replica: &Replica,
    writer: &Writer,
    before: Option<&Option<Writer>>,
    owners: &BTreeMap<u64, ClusterName>,
) -> Checked {
    let at = region.place;
    if let Some(Some(before)) = before.filter(|before| before.as_ref().is_some_and(|old| old.epoch > writer.epoch)) {
        return Err((
            ROUTED,
            format!(
                "the edge of {at:?} went from epoch {} to {}",
                before.epoch, writer.epoch
            ),
        ));
    }
    if owners.get(&writer.epoch.0) != Some(&writer.cluster) {
        return Err((
            ROUTED,
            format!(
                "the edge of {at:?} names {} at epoch {}, which was given to {:?}",
                writer.cluster,
                writer.epoch,
                owners.get(&writer.epoch.0)
            ),
        ));
    }
    match replica.edge.asks(&name(at)) {
        Some(asked) if *asked == writer.cluster => Ok(()),
        asked => Err((
            ROUTED,
            format!(
                "the edge of {at:?} asks {asked:?} while {} writes at epoch {}",
                writer.cluster, writer.epoch
            ),
        )),
    }
}

fn is_up_to_date(region: &Region, replica: &Replica, profile: &Profile) -> Checked {
    let known = replica.agent.as_ref().and_then(|agent| agent.known_role());
    match (known, &profile.writer) {
        (Some(known), Some(writer)) if writer.epoch < known.epoch => Err((
            ROUTED,
            format!(
                "the edge of {:?} names {} at epoch {}, and its agent knows of epoch {} of {}",
                region.place, writer.cluster, writer.epoch, known.epoch, known.owner
            ),
        )),
        _ => Ok(()),
    }
}
