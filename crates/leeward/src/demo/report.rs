//! The report of a demo: counted by the client, read from the running system, and compared with what was promised.

use comfy_table::{Table, presets};
use leeward_api::{Operation, app::MirrorStatus};
use serde::Serialize;

use super::{
    Arguments, FaultKind, Model,
    client::Records,
    fault::Made,
    oracle::{self, Requests, Switchover, Volumes, Writes},
    stage::Stage,
    volumes,
    watch::{self, Step},
};
use crate::{manifests, output};

/// What was promised in the sample's `ProtectedApp`.
const RTO_MS: u64 = 30_000;
/// How long a region may take to heal by itself.
const HEAL_MS: u64 = 15_000;
/// Whatever is answered within this was not interrupted.
const LATE_MS: u64 = 1_000;
/// A write that is acknowledged within this is not late: it may meet a point, for which the application stands still, and a disk that is busy.
const LATE_WRITE_MS: u64 = 1_500;

/// A region and what it costs.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Region {
    /// Its name.
    pub(crate) name: String,
    /// From the start of its first process to Ready.
    pub(crate) ready_ms: u64,
    /// The resident memory of all its processes but the application's, a page that they share counted in each.
    pub(crate) rss_mib: f64,
    /// The same, a page that processes share counted in parts: what the region takes of the machine.
    pub(crate) pss_mib: f64,
    /// The processor time of the same while nothing happens, in percent of one core.
    pub(crate) idle_cpu_percent: f64,
}

/// What a failover cost.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Failover {
    /// From the fault to the first acknowledgement of a write that was sent after it.
    pub(crate) rto_ms: Option<u64>,
    /// The age of the promoted point at the fault.
    pub(crate) rpo_ms: Option<i64>,
    /// What was done, in milliseconds after the fault.
    pub(crate) steps: Vec<Step>,
}

/// What the mirror did.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Mirror {
    /// Points that were confirmed.
    pub(crate) points: u64,
    /// Bytes sent for them.
    pub(crate) bytes_sent: u64,
    /// Bytes that the application wrote to its volumes.
    pub(crate) bytes_written_by_app: u64,
    /// The longest time that it stood still for a point.
    pub(crate) pause_ms_max: u64,
}

/// The report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    model: Model,
    fault: FaultKind,
    requests: Requests,
    writes: Option<Writes>,
    failover: Option<Failover>,
    switchover: Option<Switchover>,
    epochs: Vec<u64>,
    regions: Vec<Region>,
    mirror: Option<Mirror>,
    #[serde(skip)]
    asked: Option<(u64, u64)>,
}

impl Report {
    /// An empty report.
    pub(crate) fn new(arguments: &Arguments) -> Self {
        Self {
            model: arguments.model,
            fault: arguments.fault,
            requests: Requests::default(),
            writes: None,
            failover: None,
            switchover: None,
            epochs: vec![],
            regions: vec![],
            mirror: None,
            asked: None,
        }
    }

    /// Adds what a region mirrored while it was active.
    pub(crate) fn mirrored(&mut self, status: Option<MirrorStatus>) {
        let Some(status) = status else { return };
        let sum = self.mirror.get_or_insert_default();
        sum.points += status.points;
        sum.bytes_sent += status.bytes_sent;
        sum.pause_ms_max = sum.pause_ms_max.max(status.longest_pause_ms);
    }

    /// Takes in how the failover went.
    pub(crate) fn failover(&mut self, operation: &Operation, made: &Made) {
        let fault = made.wall_ms as i64;
        self.failover = Some(Failover {
            rto_ms: None,
            rpo_ms: watch::promoted_ms(operation).ok().map(|point| (fault - point).max(0)),
            steps: watch::steps(operation, fault),
        });
    }

    /// The failover's steps.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.failover
            .as_ref()
            .map(|failover| failover.steps.clone())
            .unwrap_or_default()
    }

    /// A switchover was asked for at this instant of the client's clock, from this epoch.
    pub(crate) fn switched(&mut self, asked: u64, from: u64) {
        self.asked = Some((asked, from));
    }

    /// Counts everything, with the volumes as they are now. `active` is the region that serves now.
    pub(crate) fn count(
        &mut self,
        records: &Records,
        stage: &Stage,
        active: Option<&str>,
        made: &Made,
    ) -> anyhow::Result<()> {
        self.requests = oracle::requests(&records.reads);
        self.regions = stage.regions().to_vec();
        if self.model == Model::ActiveActive {
            self.mirror = None;
            return Ok(());
        }
        let active = active.unwrap_or("west");
        let kept = volumes::read(stage.instance()?, active)?;
        let mut all = stage.remembered().to_vec();
        all.extend(volumes::anywhere(stage.instance()?)?);
        let volumes = Volumes { kept: &kept, all: &all };
        self.writes = Some(oracle::writes(&records.writes, volumes, Some(made.at)));
        self.epochs = oracle::epochs(&records.writes, &all);
        let taken = made.epoch + u64::from(self.fault.loses_region());
        let rto_ms = oracle::rto_ms(&records.writes, made.at, taken);
        self.failover.get_or_insert_default().rto_ms = rto_ms;
        if let Some((asked, from)) = self.asked {
            self.switchover = oracle::switchover(&records.writes, &kept, asked, from);
        }
        if let Some(mirror) = &mut self.mirror {
            mirror.bytes_written_by_app = volumes::bytes(stage.instance()?, active)?;
        }
        Ok(())
    }

    /// The objectives that were missed.
    pub(crate) fn missed(&self) -> Vec<String> {
        let mut missed = vec![];
        let mut at_most = |what: &str, value: u64, limit: u64| {
            if value > limit {
                missed.push(format!("{what} is {value}, promised is at most {limit}"));
            }
        };
        if self.model == Model::ActiveActive {
            at_most("requests.failed", self.requests.failed, 0);
        }
        if let Some(writes) = &self.writes {
            at_most("writes.two_writer_conflicts", writes.two_writer_conflicts, 0);
            at_most("writes.holes", writes.holes, 0);
            let window = if self.fault.loses_region() {
                manifests::RPO.as_millis() as u64
            } else {
                0
            };
            at_most("writes.lost_window_ms", writes.lost_window_ms, window);
            if !self.fault.loses_region() {
                at_most("writes.lost", writes.lost, 0);
                at_most("epochs that wrote", self.epochs.len() as u64, 1);
            }
            if self.fault == FaultKind::Witness {
                at_most("writes.refused", writes.refused, 0);
                at_most("writes.unknown", writes.unknown, 0);
                at_most("writes.longest_ms", writes.longest_ms, LATE_WRITE_MS);
                at_most("requests.failed", self.requests.failed, 0);
                at_most("requests.longest_outage_ms", self.requests.longest_outage_ms, LATE_MS);
            }
        }
        if let Some(failover) = &self.failover {
            let limit = match self.fault {
                FaultKind::KillRegion | FaultKind::FreezeRegion | FaultKind::PartitionRegion => RTO_MS,
                FaultKind::KillNode | FaultKind::KillApp => HEAL_MS,
                FaultKind::Witness => LATE_MS,
            };
            at_most("failover.rto_ms", failover.rto_ms.unwrap_or(u64::MAX), limit);
        }
        if self.fault.loses_region() && self.model == Model::ActivePassive {
            at_most(
                "switchover.writes_lost",
                self.switchover.as_ref().map_or(u64::MAX, |s| s.writes_lost),
                0,
            );
        }
        missed
    }

    /// Prints it for a person.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut row = |name: &str, value: String| {
            table.add_row(vec![name.to_owned(), value]);
        };
        let requests = &self.requests;
        row(
            "reads",
            format!(
                "{} sent, {} answered, {} failed",
                requests.sent, requests.ok, requests.failed
            ),
        );
        row(
            "longest time without an answer",
            format!("{} ms", requests.longest_outage_ms),
        );
        if let Some(writes) = &self.writes {
            row(
                "writes",
                format!(
                    "{} acknowledged (the longest took {} ms), {} refused, {} unknown",
                    writes.acknowledged, writes.longest_ms, writes.refused, writes.unknown
                ),
            );
            row(
                "acknowledged and lost",
                format!(
                    "{} (the last {} ms before the fault)",
                    writes.lost, writes.lost_window_ms
                ),
            );
            row(
                "holes, two writers",
                format!("{}, {}", writes.holes, writes.two_writer_conflicts),
            );
        }
        if let Some(failover) = &self.failover {
            let rto = failover.rto_ms.map_or("never".to_owned(), |ms| format!("{ms} ms"));
            row("writes back after the fault (RTO)", rto);
            if let Some(rpo) = failover.rpo_ms {
                row("age of the promoted point (RPO)", format!("{rpo} ms"));
            }
        }
        if let Some(switchover) = &self.switchover {
            row(
                "switchover back",
                format!(
                    "{} writes lost, {} ms without an acknowledgement",
                    switchover.writes_lost, switchover.outage_ms
                ),
            );
        }
        if !self.epochs.is_empty() {
            row(
                "epochs",
                self.epochs.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
            );
        }
        if let Some(mirror) = &self.mirror {
            row(
                "mirror",
                format!(
                    "{} points, {} bytes sent for {} written, longest pause {} ms",
                    mirror.points, mirror.bytes_sent, mirror.bytes_written_by_app, mirror.pause_ms_max
                ),
            );
        }
        for region in &self.regions {
            row(
                &format!("region {}", region.name),
                format!(
                    "ready in {} ms, {} MiB ({} with shared pages counted in each process), {} % of a core idle",
                    region.ready_ms, region.pss_mib, region.rss_mib, region.idle_cpu_percent
                ),
            );
        }
        output::line(format_args!("\n{table}"))
    }
}
