//! Makes the fault: real processes, killed or stopped at once; real links, cut.

use std::time::Instant;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use leeward_local::instance::{
    Instance,
    network::Place,
    processes::{Stat, descendants, signal_process},
};

use super::{FaultKind, client::Client, oracle::Fault, stage::Stage};
use crate::manifests;

/// A fault that was made.
#[derive(Debug)]
pub(crate) struct Made {
    /// What was done, for a person.
    pub(crate) what: &'static str,
    /// To what.
    pub(crate) victim: String,
    /// When, on the client's clock.
    pub(crate) at: Fault,
    /// When, by the wall clock, in Unix milliseconds.
    pub(crate) wall_ms: u64,
    /// The epoch before.
    pub(crate) epoch: u64,
    /// Whether the victim only stands still.
    pub(crate) frozen: bool,
}

/// Makes it in the region that serves; in the first one where all do.
pub(crate) async fn make(kind: FaultKind, stage: &Stage, client: &Client) -> anyhow::Result<Made> {
    let region = stage.active().await.unwrap_or_else(|| "west".into());
    let epoch = stage
        .apps()
        .await
        .values()
        .filter_map(|app| app.status.as_ref()?.epoch)
        .max()
        .unwrap_or(0);
    let instance = stage.instance()?;
    let target = match kind {
        FaultKind::KillRegion | FaultKind::FreezeRegion | FaultKind::PartitionRegion | FaultKind::Witness => None,
        FaultKind::KillNode => Some(node(stage, &region).await?),
        FaultKind::KillApp => Some(region.clone()),
    };
    let app = match kind {
        FaultKind::KillApp => Some(program(stage, &region, "sample")?),
        _ => None,
    };
    let wall_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    let began = client.at(Instant::now());
    let (what, victim) = match (kind, target, app) {
        (FaultKind::KillNode, Some(node), _) => {
            instance.kill_process(&node)?;
            ("killed a node", node)
        }
        (FaultKind::KillApp, _, Some(app)) => {
            signal_process(app.pid, app.start_time, libc::SIGKILL);
            ("killed the application's process in", region)
        }
        (FaultKind::Witness, ..) => {
            for name in ["witness-etcd", "witness"] {
                instance.kill_process(name)?;
            }
            ("killed the witness and its member of the quorum", "witness".to_owned())
        }
        (FaultKind::PartitionRegion, ..) => {
            cut_off(instance, &region)?;
            ("cut off from all but its users", region)
        }
        (FaultKind::FreezeRegion, ..) => {
            instance.freeze_region(&region)?;
            ("stopped every process where it stood of", region)
        }
        _ => {
            instance.kill_region(&region)?;
            ("killed every process of", region)
        }
    };
    let ended = client.at(Instant::now());
    Ok(Made {
        what,
        victim,
        at: Fault { began, ended },
        wall_ms,
        epoch,
        frozen: kind == FaultKind::FreezeRegion,
    })
}

/// Cuts every way between a region and the other regions and the witness.
fn cut_off(instance: &Instance, region: &str) -> anyhow::Result<()> {
    let network = instance
        .network()
        .context("the regions have no networks of their own")?;
    let victim = Place::Region(region.to_owned());
    let others = instance.regions().iter().filter(|name| *name != region);
    let others = others.cloned().map(Place::Region).chain([Place::Witness]);
    for other in others {
        network.cut(&victim, &other)?;
        network.cut(&other, &victim)?;
    }
    Ok(())
}

/// The node that the application's pod runs on.
pub(crate) async fn node(stage: &Stage, region: &str) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(stage.client(region)?, manifests::NAMESPACE);
    let found = pods
        .list(&ListParams::default().labels(&format!("app={}", manifests::APP)))
        .await?;
    let node = found.items.into_iter().find_map(|pod| pod.spec?.node_name);
    node.context("no pod of the application is on a node")
}

/// A process that a node of the region runs: this program with this command, such as `sample`.
pub(crate) fn program(stage: &Stage, region: &str, command: &str) -> anyhow::Result<Stat> {
    let nodes: Vec<i32> = stage
        .instance()?
        .processes()?
        .iter()
        .filter(|process| process.region.as_deref() == Some(region))
        .map(|process| process.pid)
        .collect();
    let all = Stat::read_all();
    let runs = |stat: &Stat| {
        let line = std::fs::read(format!("/proc/{}/cmdline", stat.pid)).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.nth(1) == Some(command.as_bytes())
    };
    descendants(&all, &nodes)
        .into_iter()
        .find(runs)
        .with_context(|| format!("no process of a pod in {region} runs {command}"))
}
