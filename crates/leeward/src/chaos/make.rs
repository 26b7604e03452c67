//! Makes a fault in real processes and real links, and ends it: everything that was made is undone at once, and what was killed is
//! started again. [`Roles`] are asked for while everything answers: once a region is cut off, nothing in it can be asked.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use leeward_local::instance::{
    Instance,
    network::{Network, Place},
    processes::signal_process,
};

use super::{
    disk::Disk,
    kind::{Fault, Kind, Way},
};
use crate::demo::{fault, stage::Stage};

/// Who is what before a fault.
#[derive(Debug)]
pub(crate) struct Roles {
    /// The region that serves.
    pub(crate) active: String,
    /// The region that stands by.
    pub(crate) standby: String,
    /// The node of the writer.
    pub(crate) node: String,
}

impl Roles {
    /// Asks the regions.
    pub(crate) async fn ask(stage: &Stage) -> anyhow::Result<Self> {
        let active = stage.active().await.context("no region knows who is active")?;
        Ok(Self {
            standby: stage.other(&active)?,
            node: fault::node(stage, &active).await?,
            active,
        })
    }
}

/// A fault that was made.
#[derive(Debug)]
pub(crate) struct Made {
    /// To what.
    pub(crate) victim: String,
    /// The processes that may have ended by it.
    pub(crate) ended: BTreeSet<String>,
}

/// Makes it. Of a switchover that goes wrong only what goes wrong.
pub(crate) fn make(fault: Fault, roles: &Roles, stage: &Stage, disks: &BTreeMap<String, Disk>) -> anyhow::Result<Made> {
    let Roles { active, standby, node } = roles;
    let instance = stage.instance()?;
    let serve = |region: &str| format!("{region}-serve");
    match fault.kind {
        Kind::KillActive | Kind::SwitchoverKillSource | Kind::StallThenKill => kill_region(instance, active),
        Kind::KillStandby | Kind::SwitchoverKillTarget => kill_region(instance, standby),
        Kind::FreezeMember => {
            let member = members(instance).swap_remove(usize::from(fault.pick) % 3);
            instance.freeze_process(&member)?;
            made(&member)
        }
        Kind::KillMember => kill(instance, &members(instance)[usize::from(fault.pick) % 3..][..1]),
        Kind::KillMajority => {
            let mut members = members(instance);
            members.remove(usize::from(fault.pick) % 3);
            kill(instance, &members)
        }
        Kind::KillWitness => kill(instance, &["witness-etcd".into(), "witness".into()]),
        Kind::KillAgent | Kind::SwitchoverKillAgent => kill(instance, &[serve(active)]),
        Kind::KillStandbyAgent => kill(instance, &[serve(standby)]),
        Kind::KillApi => kill(instance, &[format!("{active}-api")]),
        Kind::KillNode => kill(instance, std::slice::from_ref(node)),
        Kind::FreezeActive => {
            instance.freeze_region(active)?;
            made(active)
        }
        Kind::FreezeStandby => {
            instance.freeze_region(standby)?;
            made(standby)
        }
        Kind::FreezeNode => {
            instance.freeze_process(node)?;
            made(node)
        }
        Kind::KillGate | Kind::KillApp => {
            let command = if fault.kind == Kind::KillGate { "gate" } else { "sample" };
            let process = fault::program(stage, active, command)?;
            signal_process(process.pid, process.start_time, libc::SIGKILL);
            made(active)
        }
        Kind::CutActive | Kind::SwitchoverCutSource => {
            let others = [region(standby), Place::Witness];
            cut(network(stage)?, &region(active), &others, fault)
        }
        Kind::CutStandby => cut(
            network(stage)?,
            &region(standby),
            &[region(active), Place::Witness],
            fault,
        ),
        Kind::CutWitness => cut(
            network(stage)?,
            &Place::Witness,
            &[region(active), region(standby)],
            fault,
        ),
        Kind::CutRegions => stall(stage, active, standby),
        Kind::FillActive => fill(active, disks),
        Kind::FillStandby => fill(standby, disks),
        Kind::Switchover | Kind::SwitchoverCancel => made(active),
    }
}

/// Cuts the link between the regions, so that nothing is mirrored.
pub(crate) fn stall(stage: &Stage, active: &str, standby: &str) -> anyhow::Result<Made> {
    let network = network(stage)?;
    network.cut(&region(active), &region(standby))?;
    network.cut(&region(standby), &region(active))?;
    made(active)
}

/// Ends whatever was made.
pub(crate) fn end(stage: &Stage, disks: &BTreeMap<String, Disk>) -> anyhow::Result<()> {
    let instance = stage.instance()?;
    network(stage)?.heal_all()?;
    for disk in disks.values() {
        disk.free()?;
    }
    instance.thaw_all()?;
    instance.start_witness()?;
    for region in instance.regions() {
        instance.start_region(region)?;
    }
    Ok(())
}

/// The names of all processes that run.
pub(crate) fn running(instance: &Instance) -> anyhow::Result<BTreeSet<String>> {
    Ok(instance.processes()?.into_iter().map(|process| process.name).collect())
}

fn made(victim: &str) -> anyhow::Result<Made> {
    Ok(Made {
        victim: victim.to_owned(),
        ended: BTreeSet::new(),
    })
}

fn region(name: &str) -> Place {
    Place::Region(name.to_owned())
}

fn network(stage: &Stage) -> anyhow::Result<&Network> {
    stage
        .instance()?
        .network()
        .context("the regions have no networks of their own")
}

fn members(instance: &Instance) -> Vec<String> {
    let places = instance.regions().iter().map(String::as_str).chain(["witness"]);
    places.map(|place| format!("{place}-etcd")).collect()
}

fn of_region(instance: &Instance, region: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut processes = instance.processes()?;
    processes.retain(|process| process.region.as_deref() == Some(region));
    Ok(processes.into_iter().map(|process| process.name).collect())
}

fn kill_region(instance: &Instance, region: &str) -> anyhow::Result<Made> {
    let ended = of_region(instance, region)?;
    instance.kill_region(region)?;
    Ok(Made {
        victim: region.to_owned(),
        ended,
    })
}

fn kill(instance: &Instance, names: &[String]) -> anyhow::Result<Made> {
    for name in names {
        instance.kill_process(name)?;
    }
    Ok(Made {
        victim: names.join(" and "),
        ended: names.iter().cloned().collect(),
    })
}

/// A member of the quorum that finds no room ends. Nothing of Leeward's own does.
fn fill(region: &str, disks: &BTreeMap<String, Disk>) -> anyhow::Result<Made> {
    let ended = BTreeSet::from([format!("{region}-etcd")]);
    disks.get(region).context("the region has no disk of its own")?.fill()?;
    Ok(Made {
        victim: region.to_owned(),
        ended,
    })
}

fn cut(network: &Network, victim: &Place, others: &[Place], fault: Fault) -> anyhow::Result<Made> {
    let mut others = others.to_vec();
    if fault.users && *victim != Place::Witness {
        others.push(Place::Users);
    }
    for other in &others {
        if fault.way != Way::In {
            network.cut(victim, other)?;
        }
        if fault.way != Way::Out {
            network.cut(other, victim)?;
        }
    }
    let name = match victim {
        Place::Region(name) => name,
        Place::Witness | Place::Users => "witness",
    };
    made(name)
}
