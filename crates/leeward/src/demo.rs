//! `leeward demo`: an application survives a fault, and the report says what it cost.
//!
//! Flow: [`stage`] starts the regions and the application; [`client`] sends reads and writes; the fault is made and its end
//! waited for; the lost region comes back and takes over again in order; [`report`] counts. [`picture`] shows it meanwhile.
//! Whatever happens, [`stage::Stage::strike`] ends every process and removes every file.

pub(crate) mod client;
pub(crate) mod fault;
pub(crate) mod oracle;
pub(crate) mod picture;
mod report;
pub(crate) mod stage;
pub(crate) mod volumes;
pub(crate) mod watch;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;

use crate::{
    output::{self, Misused},
    process,
    quorum::Quorum,
    up::Place,
};
use leeward_local::instance::network::{self, Isolated};

use client::Client;
use fault::Made;
use picture::Picture;
use report::Report;
use stage::{Setting, Stage};

/// `leeward demo`
#[derive(Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// The model that the application runs on.
    #[arg(long, value_enum, default_value_t = Model::ActivePassive)]
    model: Model,
    /// What goes wrong.
    #[arg(long, value_enum, default_value_t = FaultKind::KillRegion)]
    fault: FaultKind,
    /// Reads a second, and as many writes a second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long a region's lease lives, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    ttl: u64,
    /// Where leases and decisions live.
    #[arg(long, value_enum, default_value_t = Quorum::Embedded)]
    quorum: Quorum,
    /// Leaves everything running and says what to try next.
    #[arg(long)]
    keep: bool,
    /// Writes the report to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The active region ignores its leases: shows that the report can count two writers. Test builds only.
    #[cfg(feature = "unfenced")]
    #[arg(long)]
    unfenced: bool,
    #[command(flatten)]
    place: Place,
}

/// What runs where.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Model {
    /// One region serves and writes, the other stands by.
    ActivePassive,
    /// Every region serves.
    ActiveActive,
}

/// What goes wrong.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultKind {
    /// Every process of the active region is killed.
    KillRegion,
    /// The node that the application runs on is killed.
    KillNode,
    /// The application's process is killed.
    KillApp,
    /// Every process of the active region stands still until after the failover.
    FreezeRegion,
    /// The active region is cut off from the others and the witness, not from its users. Needs root: each region runs in a network
    /// namespace.
    PartitionRegion,
    /// The witness is killed with its member of the quorum, which must be on etcd.
    Witness,
}

impl FaultKind {
    /// Whether the active region is gone for the others, for a while or for good.
    pub(crate) fn loses_region(self) -> bool {
        match self {
            Self::KillRegion | Self::FreezeRegion | Self::PartitionRegion => true,
            Self::KillNode | Self::KillApp | Self::Witness => false,
        }
    }
}

/// How long the demo waits for anything before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long requests flow before the fault, so that there is something to compare with.
const BEFORE: Duration = Duration::from_secs(6);
/// How long requests flow after the last event.
const AFTER: Duration = Duration::from_secs(3);

/// Runs the demo.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if !cfg!(target_os = "linux") {
        bail!("the demo runs local regions, which need Linux; on this system use Leeward with real clusters");
    }
    let ttl = Duration::from_secs(arguments.ttl);
    arguments.quorum.check(ttl).map_err(Misused)?;
    if arguments.fault == FaultKind::Witness && arguments.quorum == Quorum::Embedded {
        return Err(Misused(anyhow::anyhow!(
            "--fault witness needs --quorum etcd: the embedded quorum is one copy in the witness, so that writers step down without it"
        ))
        .into());
    }
    let isolated = isolate(&arguments)?;
    arguments.json.as_deref().map_or(Ok(()), output::check_report)?;
    process::runtime(2)?.block_on(async {
        let stop = CancellationToken::new();
        // A terminal that is closed ends the demo too, and leaves nothing.
        process::cancel_on_signal(stop.clone(), &[SignalKind::hangup()])?;
        let picture = Picture::new();
        let mut stage = Stage::set(Setting {
            model: arguments.model,
            ttl,
            quorum: arguments.quorum,
            kept: arguments.keep.then(|| arguments.place.dir()).transpose()?,
            isolated,
            #[cfg(feature = "unfenced")]
            unfenced: if arguments.unfenced { &["west"] } else { &[] },
        })?;
        let played = tokio::select! {
            played = play(&arguments, &mut stage, &picture) => played.map(Some),
            () = stop.cancelled() => Ok(None),
        };
        picture.end();
        let keep = arguments.keep && matches!(played, Ok(Some(_)));
        if keep {
            stage.leave()?;
        } else {
            stage.strike()?;
        }
        let Some(report) = played? else {
            output::say("stopped; everything that was started is gone");
            return Ok(ExitCode::from(130));
        };
        // First what is kept, then what is read.
        if let Some(file) = &arguments.json {
            std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")
                .with_context(|| format!("the report cannot be written to {}", file.display()))?;
        }
        report.print()?;
        let missed = report.missed();
        for objective in &missed {
            output::say(format_args!("missed: {objective}"));
        }
        Ok(if missed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

/// Leaves the machine's network where the fault is one of the network; before any thread is started.
fn isolate(arguments: &Arguments) -> anyhow::Result<Option<Isolated>> {
    if arguments.fault != FaultKind::PartitionRegion {
        return Ok(None);
    }
    if arguments.keep {
        return Err(Misused(anyhow::anyhow!(
            "--fault partition-region runs the regions in network namespaces that nothing else reaches, so --keep would leave nothing to \
             look at; leave one of the two out"
        ))
        .into());
    }
    Ok(Some(network::isolate().context("--fault partition-region")?))
}

async fn play(arguments: &Arguments, stage: &mut Stage, picture: &Picture) -> anyhow::Result<Report> {
    let active_active = arguments.model == Model::ActiveActive;
    stage.start(picture).await?;
    stage.measure_idle(picture).await?;
    let client = Client::start(client::Settings {
        edges: stage.edges()?,
        host: crate::manifests::HOST.into(),
        name: "demo".into(),
        rate: arguments.rate,
        writes: !active_active,
    });
    picture.follow(client.live(), stage)?;
    picture.say(&format!(
        "{} reads{} a second",
        arguments.rate,
        if active_active { "" } else { " and writes" }
    ));
    tokio::time::sleep(BEFORE).await;

    let mirrored = stage.mirrored().await;
    let made = fault::make(arguments.fault, stage, &client).await?;
    picture.say(&format!("{}: {}", made.what, made.victim));
    let mut report = Report::new(arguments);
    report.mirrored(mirrored);
    match (arguments.fault.loses_region(), active_active) {
        (true, false) => lost_region(stage, picture, &client, &made, &mut report).await?,
        (true, true) => {
            tokio::time::sleep(AFTER * 2).await;
            picture.say(&format!("{} comes back", made.victim));
            stage.bring_back(&made.victim).await?;
            picture.say("both regions serve again");
        }
        (_, false) => {
            let epoch = 0;
            let healed = client.acknowledged_since(made.at.ended, epoch);
            tokio::time::timeout(PATIENCE, healed)
                .await
                .context("no write was acknowledged after the fault")?;
            picture.say("writes are acknowledged, in the same region");
            if arguments.fault == FaultKind::Witness {
                // Longer than any lease, so that none lives on what the witness did before.
                tokio::time::sleep(Duration::from_secs(arguments.ttl) + AFTER).await;
                stage.instance()?.start_witness()?;
                picture.say("the witness comes back");
                stage.protected(picture, PATIENCE).await?;
            }
        }
        (_, true) => stage.protected(picture, PATIENCE).await?,
    }
    tokio::time::sleep(AFTER).await;
    report.mirrored(stage.mirrored().await);
    let last = stage.active().await;
    let records = client.stop().await;
    report.count(&records, stage, last.as_deref(), &made)?;
    Ok(report)
}

/// The active region is lost: the other one takes over; the lost one returns, follows, and takes over again in order.
async fn lost_region(
    stage: &mut Stage,
    picture: &Picture,
    client: &Client,
    made: &Made,
    report: &mut Report,
) -> anyhow::Result<()> {
    let survivor = stage.other(&made.victim)?;
    let back = client.acknowledged_since(made.at.ended, 2);
    let back = tokio::time::timeout(PATIENCE, back)
        .await
        .context("no region took over the writes in time")?;
    picture.say(&format!(
        "{survivor} serves: a write was acknowledged {} ms after the fault",
        (back.answered_at - made.at.began) / 1000
    ));
    let failover = watch::operation(stage, &survivor, None, PATIENCE).await?;
    report.failover(&failover, made);
    for step in &report.steps() {
        picture.say(&format!(
            "  {:<10} {:>6} ms to {:>6} ms",
            step.name, step.start_ms, step.end_ms
        ));
    }
    tokio::time::sleep(AFTER).await;
    if made.frozen {
        pending(client).await?;
    }
    stage.remember_volumes()?;
    picture.say(&format!("{} comes back, fenced", made.victim));
    let returned = Instant::now();
    stage.bring_back(&made.victim).await?;
    stage.protected(picture, PATIENCE).await?;
    picture.say(&format!(
        "protected again in the new direction after {} ms",
        returned.elapsed().as_millis()
    ));
    tokio::time::sleep(AFTER).await;

    report.mirrored(stage.mirrored().await);
    let asked = client.now();
    picture.say(&format!("planned switchover back to {}", made.victim));
    let id = watch::ask(stage, &format!("switchover-from-{survivor}"), &made.victim).await?;
    let switchover = watch::operation(stage, &made.victim, Some(&id), PATIENCE).await?;
    let after = client.acknowledged_since(asked, made.epoch + 2);
    tokio::time::timeout(PATIENCE, after)
        .await
        .context("no write was acknowledged after the switchover")?;
    report.switched(asked, made.epoch + 1);
    for step in watch::steps(&switchover, switchover_start(&switchover)) {
        picture.say(&format!(
            "  {:<10} {:>6} ms to {:>6} ms",
            step.name, step.start_ms, step.end_ms
        ));
    }
    Ok(())
}

/// Waits until requests that were sent after the failover hang in the frozen region: those are what a thaw could let out.
async fn pending(client: &Client) -> anyhow::Result<()> {
    let mut live = client.live();
    let waited = async {
        live.wait_for(|live| live.in_flight < 5).await?;
        live.wait_for(|live| live.in_flight > 20).await?;
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, waited)
        .await
        .context("no request hangs in the frozen region")?
}

fn switchover_start(operation: &leeward_api::Operation) -> i64 {
    let started = operation.status.as_ref().and_then(|status| status.started.as_ref());
    started.map_or(0, |time| time.0.as_millisecond())
}
