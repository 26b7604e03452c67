//! Edges send users to the writer. An edge names an epoch with the region that the quorum gave it to, never goes back to a lower one, also when it
//! is started anew, names none that is lower than what its agent knows, and asks no other region: so nobody is sent to a region that is fenced, or
//! that has not been given its role yet, by an edge that knows.
//!
//! Without a role an edge asks a region in which the application runs, also in a switchover, as long as no region is lost and the edge's agent knows
//! what the quorum has of that.

use std::collections::BTreeMap;

use leeward_core::{
    name::ClusterName,
    operation::Kind,
    routing::{Profile, Writer},
};

use super::Checked;
use crate::{
    app::Process,
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
                None => is_where_it_runs(world, region, replica)?,
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

fn is_where_it_runs(world: &World, region: &Region, replica: &Replica) -> Checked {
    let runs = |region: &Region| matches!(region.process, Process::Running { .. });
    let was_lost = |region: &Region| region.down_until > 0;
    let situation = replica.agent.as_ref().and_then(|agent| agent.situation());
    let knows = situation.is_some_and(|situation| {
        let running = world.plan().and_then(|plan| plan.operation.as_ref());
        // What fails over is started where it goes to; where it comes from an agent alone may be lost.
        let fails_over = running.is_some_and(|running| running.kind == Kind::Failover);
        let journal = running.map(|running| world.journal(&running.id));
        let is_the_same = journal.is_none_or(|journal| journal == situation.journal);
        !fails_over && situation.plan() == world.plan() && is_the_same
    });
    // What was said in the journal and is taken away again was acted on.
    let cut = world.playing.as_ref().and_then(|playing| playing.script.cut);
    let is_unsaid = cut.is_some_and(|cut| !cut.moment.kills());
    if is_unsaid || !knows || world.regions.iter().any(was_lost) || !world.regions.iter().any(runs) {
        return Ok(());
    }
    let asked = replica.edge.asks(&name(region.place));
    let answers = |other: &Region| asked.is_some_and(|asked| *asked == name(other.place)) && runs(other);
    match world.regions.iter().any(answers) {
        true => Ok(()),
        false => Err((
            ROUTED,
            format!(
                "the edge of {:?} asks {asked:?}, where the application does not run",
                region.place
            ),
        )),
    }
}
