//! `leeward chaos`, behind `cargo xtask chaos`: one fault after the other in real regions on real etcd, each in a network and on a disk of
//! its own, while clients write through the edges and, pinned to each region, around them. After each fault everything must come to rest
//! Protected, and what the clients were told must be what the volumes have.
//!
//! Flow: [`kind::Deck`] deals a fault; [`make`] makes it, holds it and ends it; the regions come to rest; [`verdict`] judges all writes so far.
//! The first thing that does not hold ends the run, and its regions' files stay.

mod disk;
mod kind;
mod make;
mod pinned;
mod report;
mod round;
mod verdict;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use leeward_local::instance::network::{self, Isolated};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;

use crate::{
    demo::{
        Model,
        picture::Picture,
        stage::{Setting, Stage},
    },
    output, process,
    quorum::Quorum,
};
use disk::Disk;
use kind::Deck;
use report::Report;
use round::Rig;

/// `leeward chaos`
#[derive(Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// What decides which faults are made, in which order and for how long; drawn and printed without it.
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults are made. The last one is played to its end.
    #[arg(long, default_value = "10", value_parser = minutes)]
    minutes: Duration,
    /// How long a region's lease lives, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    ttl: u64,
    /// Only faults with this in their name.
    #[arg(long)]
    only: Option<String>,
    /// Writes the report to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The regions ignore their leases and every gate stays open: shows that two writers are noticed.
    #[arg(long)]
    unfenced: bool,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let wrong = || "it is no number of minutes from 0 to 10000".to_owned();
    let minutes: f64 = text.parse().map_err(|_| wrong())?;
    match (0.0..=10_000.0).contains(&minutes) {
        true => Ok(Duration::from_secs_f64(minutes * 60.0)),
        false => Err(wrong()),
    }
}

/// Makes faults. Exits 1 when something did not hold.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let ttl = Duration::from_secs(arguments.ttl);
    Quorum::Etcd.check(ttl).map_err(output::Misused)?;
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let deck = Deck::new(StdRng::seed_from_u64(seed), ttl, arguments.only.as_deref()).map_err(output::Misused)?;
    arguments.json.as_deref().map_or(Ok(()), output::check_report)?;
    let isolated = network::isolate().context("faults of networks and disks")?;
    disk::isolate()?;
    process::runtime(2)?.block_on(async {
        let stop = CancellationToken::new();
        process::cancel_on_signal(stop.clone(), &[SignalKind::hangup()])?;
        output::say(format_args!("seed {seed}"));
        let picture = Picture::new();
        let mut report = Report::new(seed);
        let (mut stage, disks) = set(arguments, isolated)?;
        let played = tokio::select! {
            played = play(arguments, &mut stage, &disks, deck, &picture, &mut report) => played.map(Some),
            () = stop.cancelled() => Ok(None),
        };
        picture.end();
        if let Err(error) = &played {
            report.broke(format!("{error:#}"));
        }
        if !report.broken().is_empty() {
            let logs = stage.keep_logs()?;
            output::say(format_args!("the regions' logs are in {}", logs.display()));
        }
        drop(disks);
        stage.strike()?;
        if matches!(played, Ok(None)) {
            output::say("stopped; everything that was started is gone");
            return Ok(ExitCode::from(130));
        }
        if let Some(file) = &arguments.json {
            std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")
                .with_context(|| format!("the report cannot be written to {}", file.display()))?;
        }
        report.print()?;
        for broken in report.broken() {
            output::say(format_args!("does not hold: {broken}"));
        }
        Ok(if report.broken().is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

fn set(arguments: &Arguments, isolated: Isolated) -> anyhow::Result<(Stage, BTreeMap<String, Disk>)> {
    let stage = Stage::set(Setting {
        model: Model::ActivePassive,
        ttl: Duration::from_secs(arguments.ttl),
        quorum: Quorum::Etcd,
        kept: None,
        isolated: Some(isolated),
        unfenced: if arguments.unfenced { &["west", "east"] } else { &[] },
    })?;
    let mut disks = BTreeMap::new();
    for region in stage.instance()?.regions() {
        let disk = Disk::mount(&stage.instance()?.layout().region(region))?;
        disks.insert(region.clone(), disk);
    }
    Ok((stage, disks))
}

async fn play(
    arguments: &Arguments,
    stage: &mut Stage,
    disks: &BTreeMap<String, Disk>,
    mut deck: Deck,
    picture: &Picture,
    report: &mut Report,
) -> anyhow::Result<()> {
    stage.start(picture).await?;
    let mut rig = Rig::start(stage, disks, picture, Duration::from_secs(arguments.ttl))?;
    let end = Instant::now() + arguments.minutes;
    let mut broken = false;
    while Instant::now() < end && !broken {
        let fault = deck.deal();
        report.made(fault);
        rig.round(fault, report).await.with_context(|| format!("{fault:?}"))?;
        // Without fencing much does not hold; what has to be noticed is two writers.
        broken = match arguments.unfenced {
            true => report.has_two_writers(),
            false => !report.broken().is_empty(),
        };
    }
    if !broken {
        rig.rest(report).await.context("at the end")?;
    }
    rig.stop().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::minutes;

    #[test]
    fn minutes_are_a_number_that_a_clock_can_count() {
        assert_eq!(minutes("0.5").unwrap().as_secs(), 30);
        for bad in ["", "ten", "-1", "nan", "inf", "1e9"] {
            assert!(minutes(bad).is_err(), "{bad}");
        }
    }
}
