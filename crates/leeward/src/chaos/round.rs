//! One round: a fault is made, held and ended; the regions come to rest; all writes so far are judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use leeward_api::{Operation, operation::OperationType};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    disk::Disk,
    kind::{Fault, Kind},
    make::{self, Roles},
    pinned::Pinned,
    report::Report,
    verdict,
};
use crate::{
    demo::{
        client::{self, Client},
        oracle::Volumes,
        picture::Picture,
        stage::Stage,
        volumes, watch,
    },
    manifests, process,
    sample::record::Record,
};

/// How long anything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a round may take in all: whatever does not answer in it is reported, and not waited for without an end.
const ROUND: Duration = Duration::from_secs(600);
/// Writes, and reads, a second through the edges.
const RATE: u32 = 25;
/// Between two faults.
const CALM: Duration = Duration::from_secs(1);

/// Regions, their disks, and the clients that write to them.
pub(crate) struct Rig<'a> {
    stage: &'a Stage,
    disks: &'a BTreeMap<String, Disk>,
    picture: &'a Picture,
    ttl: Duration,
    client: Client,
    pinned: Arc<Pinned>,
    writing: JoinSet<()>,
    stop: CancellationToken,
    /// What stood on any volume at any look, by number, epoch and region: what is rewound later was there all the same.
    stood: BTreeMap<(u64, u64, String), Record>,
}

impl<'a> Rig<'a> {
    /// Has clients write.
    pub(crate) fn start(
        stage: &'a Stage,
        disks: &'a BTreeMap<String, Disk>,
        picture: &'a Picture,
        ttl: Duration,
    ) -> anyhow::Result<Self> {
        let client = Client::start(client::Settings {
            edges: stage.edges()?,
            host: manifests::HOST.into(),
            name: "edge".into(),
            rate: RATE,
            writes: true,
        });
        let pinned = Pinned::new(client.began());
        let stop = CancellationToken::new();
        let mut writing = JoinSet::new();
        for region in stage.instance()?.regions() {
            writing.spawn(Arc::clone(&pinned).run(region.clone(), stage.client(region)?, stop.clone()));
        }
        Ok(Self {
            stage,
            disks,
            picture,
            ttl,
            client,
            pinned,
            writing,
            stop,
            stood: BTreeMap::new(),
        })
    }

    /// Reads every volume of every region as it is now.
    fn remember(&mut self) -> anyhow::Result<()> {
        let found = volumes::anywhere(self.stage.instance()?)?.into_iter();
        self.stood
            .extend(found.map(|record| ((record.n, record.epoch, record.cluster.clone()), record)));
        Ok(())
    }

    /// Ends the clients.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.writing.join_next().await.is_some() {}
        self.client.stop().await;
    }

    /// Plays a fault to its end.
    pub(crate) async fn round(&mut self, fault: Fault, report: &mut Report) -> anyhow::Result<()> {
        let played = tokio::time::timeout(ROUND, self.play(fault, report)).await;
        played.with_context(|| format!("something gave no answer; the round was given up after {ROUND:?}"))?
    }

    async fn play(&mut self, fault: Fault, report: &mut Report) -> anyhow::Result<()> {
        let roles = Roles::ask(self.stage).await?;
        let Roles { active, standby, .. } = &roles;
        let before = make::running(self.stage.instance()?)?;
        match fault.kind {
            kind if kind.is_switchover() => {
                self.switch_over(fault, standby, report.rounds()).await?;
            }
            Kind::StallThenKill => {
                make::stall(self.stage, active, standby)?;
                self.out_of_sync(standby).await?;
            }
            _ => {}
        }
        let mut made = make::make(fault, &roles, self.stage, self.disks)?;
        if let Some(kind) = fault.also {
            // What it is done to may be gone already.
            if let Ok(more) = make::make(Fault { kind, ..fault }, &roles, self.stage, self.disks) {
                made.ended.extend(more.ended);
                report.also(kind);
            }
        }
        self.picture.say(&format!(
            "{:>3} {:?}{}: {}, {:.1} s{}",
            report.rounds(),
            fault.kind,
            fault.also.map(|also| format!(" and {also:?}")).unwrap_or_default(),
            made.victim,
            fault.hold.as_secs_f64(),
            if fault.is_cut() { fault.ways() } else { String::new() }
        ));
        tokio::time::sleep(fault.hold).await;
        if fault.kind == Kind::StallThenKill {
            self.nobody_took_over(standby, report).await?;
        }
        let running = make::running(self.stage.instance()?)?;
        for name in before.difference(&running).filter(|name| !made.ended.contains(*name)) {
            report.broke(format!("{name} ended by itself during {:?}", fault.kind));
        }
        // Before anything that comes back is rewound.
        self.remember()?;
        make::end(self.stage, self.disks)?;
        let ended = Instant::now();
        self.rest(report).await?;
        report.rested(ended.elapsed());
        self.picture
            .say(&format!("    at rest after {:.1} s", ended.elapsed().as_secs_f64()));
        tokio::time::sleep(CALM).await;
        Ok(())
    }

    async fn switch_over(&self, fault: Fault, to: &str, round: u64) -> anyhow::Result<()> {
        let id = watch::ask(self.stage, &format!("chaos-{round}"), to).await?;
        if fault.kind == Kind::Switchover {
            watch::operation(self.stage, to, Some(&id), PATIENCE).await?;
        } else {
            tokio::time::sleep(fault.delay).await;
        }
        if fault.kind == Kind::SwitchoverCancel {
            let api: Api<Operation> = Api::namespaced(self.stage.client(to)?, manifests::NAMESPACE);
            let cancel = serde_json::json!({ "spec": { "cancel": true } });
            api.patch(&id, &PatchParams::default(), &Patch::Merge(&cancel)).await?;
            let ended = self.ended(&api, &id).await?;
            self.picture.say(&format!("    {id} is {ended}"));
        }
        Ok(())
    }

    /// Waits until an operation has ended; how.
    async fn ended(&self, api: &Api<Operation>, id: &str) -> anyhow::Result<String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let phase = api
                .get(id)
                .await?
                .status
                .and_then(|status| status.phase)
                .unwrap_or_default();
            match phase.as_str() {
                "Cancelled" | "Succeeded" => return Ok(phase),
                "Refused" | "Failed" => bail!("{id} is {phase}"),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        bail!("{id} neither ended nor was it called off");
    }

    /// Waits until the standby is not in sync any more.
    async fn out_of_sync(&self, standby: &str) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let apps = self.stage.apps().await;
            let late = apps.values().filter_map(|app| app.status.as_ref()).any(|status| {
                let mut found = status
                    .placements
                    .iter()
                    .filter(|placement| placement.cluster == standby);
                found.any(|placement| placement.in_sync == Some(false))
            });
            if late {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("{standby} stayed in sync although nothing was mirrored");
    }

    /// After the loss of a region whose standby was not in sync: nothing failed over, and `explain` says why.
    async fn nobody_took_over(&self, standby: &str, report: &mut Report) -> anyhow::Result<()> {
        let app = self.stage.apps().await.remove(standby);
        let status = app.and_then(|app| app.status).context("the standby says nothing")?;
        if status.active.as_deref() == Some(standby) {
            report.broke(format!("{standby} took over although it was not in sync"));
        }
        let home = self.stage.instance()?.layout().dir().to_owned();
        let mut explain = process::this()?;
        explain.args(["explain", manifests::APP]).env("LEEWARD_HOME", home);
        let said = tokio::task::spawn_blocking(move || explain.output()).await??;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let why = said
            .lines()
            .find(|line| line.contains("more than the rpo could be lost"));
        ensure!(why.is_some(), "explain does not say why nothing fails over:\n{said}");
        report.explained(why.unwrap_or_default().trim());
        Ok(())
    }

    /// Waits until writes are acknowledged and every region is Protected, and judges.
    pub(crate) async fn rest(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let acknowledged = self.client.acknowledged_since(self.client.now(), 0);
        let back = tokio::time::timeout(PATIENCE, acknowledged).await;
        if back.is_err() {
            let apps = self.stage.apps().await;
            let waits = apps
                .iter()
                .filter_map(|(region, app)| Some((region, app.status.as_ref()?.waiting_for.join("; "))));
            bail!(
                "no write was acknowledged within {PATIENCE:?} of the fault's end; {:?}",
                waits.collect::<Vec<_>>()
            );
        }
        // What the regions said before the fault counts no more.
        tokio::time::sleep(self.ttl / 2).await;
        self.stage.protected(self.picture, PATIENCE).await?;
        let handed_over = self.handed_over().await?;
        let active = self.stage.active().await.context("no region knows who is active")?;
        let mut writes = self.client.writes();
        writes.extend(self.pinned.writes());
        self.remember()?;
        let kept = volumes::read(self.stage.instance()?, &active)?;
        let all: Vec<Record> = self.stood.values().cloned().collect();
        let volumes = Volumes { kept: &kept, all: &all };
        report.judged(verdict::judge(&writes, volumes, manifests::RPO, &handed_over));
        Ok(())
    }

    /// The epochs that a switchover ended in order: their writer gave them back.
    async fn handed_over(&self) -> anyhow::Result<BTreeSet<u64>> {
        let mut epochs = BTreeSet::new();
        for region in self.stage.instance()?.regions() {
            let api: Api<Operation> = Api::namespaced(self.stage.client(region)?, manifests::NAMESPACE);
            for operation in api.list(&ListParams::default()).await?.items {
                let Some(status) = operation.status else { continue };
                let released = status
                    .steps
                    .iter()
                    .any(|step| step.name == "Release" && step.outcome.as_deref() == Some("Done"));
                if operation.spec.type_ == OperationType::Switchover && released {
                    epochs.extend(status.epoch.map(|epoch| epoch - 1));
                }
            }
        }
        Ok(epochs)
    }
}
