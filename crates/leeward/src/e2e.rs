//! `leeward e2e`, behind `cargo xtask e2e`: two clusters that a person names get an installation and the sample applications, one fault is made
//! after the other, users ask both edges all the while, and everything is removed in the end.
//!
//! Flow: [`Arguments::settings`] says what is to be done, before anything is; [`rig`] does it; [`plan`] and [`judge`], pure, say which fault is
//! made next and whether what was seen holds; [`remove`] clears the clusters, also after a failure and after Ctrl-C.

mod bring;
mod client;
mod cluster;
mod judge;
mod plan;
mod reach;
mod remove;
mod report;
mod rig;
mod sample;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::{
    install, join,
    output::{self, Misused},
    process, values,
};
use bring::Way;
use cluster::Cluster;
use plan::{Hooks, Kind};
use report::Report;
use rig::Rig;

/// How much longer than a lease users may not be answered.
const ALLOWED: Duration = Duration::from_secs(15);
/// How much longer than that a fault is held, so that what comes too late is seen.
const LONGER: Duration = Duration::from_secs(5);

/// `leeward e2e`
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Arguments {
    /// A cluster and its kubeconfig, whose current context is meant; two of them. The applications begin in the first.
    #[arg(long = "cluster", value_name = "NAME=KUBECONFIG", required = true, value_parser = named)]
    clusters: Vec<(String, String)>,
    /// A registry that the clusters pull from: the image is pushed there. One that asks who pushes is not served; push there yourself, and use --image.
    #[arg(long, value_name = "HOST")]
    registry: Option<String>,
    /// A command that brings an image archive to a cluster's nodes; {tar} and {cluster} stand for the archive and the cluster.
    #[arg(long, value_name = "COMMAND")]
    load: Option<String>,
    /// The image, where the nodes have it or can pull it.
    #[arg(long, value_name = "NAME:TAG")]
    image: Option<String>,
    /// A host where a cluster's edge is reached at port 80 and its agents at 7443, from here and from the other cluster; without it the Services' load balancers, or else ports of the nodes.
    #[arg(long = "host", value_name = "NAME=HOST", value_parser = named)]
    hosts: Vec<(String, String)>,
    /// The address of this machine at which the clusters' pods reach the witness, which runs here; without it the one that leads to the clusters.
    #[arg(long, value_name = "ADDRESS")]
    witness_host: Option<std::net::IpAddr>,
    /// A command that cuts a cluster off from everybody.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = named)]
    cut: Vec<(String, String)>,
    /// The one that ends that.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = named)]
    heal: Vec<(String, String)>,
    /// A command that ends everything of a cluster, its control plane and its nodes.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = named)]
    kill: Vec<(String, String)>,
    /// The one that starts it again.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = named)]
    start: Vec<(String, String)>,
    /// A command that stops a cluster's API server.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = named)]
    stop_api: Vec<(String, String)>,
    /// The one that starts it again.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = named)]
    start_api: Vec<(String, String)>,
    /// How long a region's lease lives, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=60))]
    ttl: u64,
    /// Only faults with this in their name.
    #[arg(long)]
    only: Option<String>,
    /// Writes the report to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes what agents and witness logged to this directory, before they are removed.
    #[arg(long, value_name = "DIR", value_parser = values::path)]
    logs: Option<PathBuf>,
    /// Only removes what an earlier run left that was killed.
    #[arg(long)]
    remove: bool,
}

/// `NAME=SOMETHING`.
fn named(text: &str) -> Result<(String, String), String> {
    let (name, of) = text.split_once('=').ok_or("write it as NAME=...")?;
    match of.is_empty() {
        true => Err(format!("there is nothing after {name}=")),
        false => Ok((join::cluster(name)?, of.to_owned())),
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    way: Way,
    hosts: BTreeMap<String, String>,
    witness_host: Option<String>,
    hooks: Hooks,
    ttl: Duration,
    faults: Vec<Kind>,
}

impl Settings {
    /// The longest that users may not be answered.
    fn limit(&self) -> Duration {
        self.ttl + ALLOWED
    }

    /// How long a fault is held.
    fn held(&self) -> Duration {
        self.limit() + LONGER
    }
}

impl Arguments {
    /// What they ask for.
    ///
    /// # Errors
    /// They make no sense as a whole.
    fn settings(&self) -> Result<Settings, String> {
        let names: Vec<&str> = self.clusters.iter().map(|(name, _)| name.as_str()).collect();
        if !matches!(names[..], [first, second] if first != second) {
            return Err("give two clusters, each once: --cluster west=KUBECONFIG --cluster east=KUBECONFIG".to_owned());
        }
        let hooks = Hooks {
            cut: once("--cut", &self.cut)?,
            heal: once("--heal", &self.heal)?,
            kill: once("--kill", &self.kill)?,
            start: once("--start", &self.start)?,
            stop_api: once("--stop-api", &self.stop_api)?,
            start_api: once("--start-api", &self.start_api)?,
        };
        if let Some(flaw) = hooks.flaw(&names) {
            return Err(flaw);
        }
        let hosts = once("--host", &self.hosts)?;
        if let Some(name) = hosts.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(format!("--host {name}=...: there is no --cluster {name}"));
        }
        Ok(Settings {
            way: bring::way(self.image.as_deref(), self.registry.as_deref(), self.load.as_deref())?,
            hosts,
            witness_host: self.witness_host.map(|host| host.to_string()),
            hooks,
            ttl: Duration::from_secs(self.ttl),
            faults: plan::chosen(self.only.as_deref())?,
        })
    }
}

fn once(option: &str, pairs: &[(String, String)]) -> Result<BTreeMap<String, String>, String> {
    let mut map = BTreeMap::new();
    for (name, value) in pairs {
        if map.insert(name.clone(), value.clone()).is_some() {
            return Err(format!("{option} {name}=... is given twice"));
        }
    }
    Ok(map)
}

/// Installs, makes faults and removes. Exits 1 when something did not hold.
///
/// # Errors
/// The arguments make no sense, a cluster cannot be asked, or the report cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = match arguments.remove {
        true => None,
        false => Some(arguments.settings().map_err(|why| Misused(anyhow!(why)))?),
    };
    arguments.json.as_deref().map_or(Ok(()), output::check_report)?;
    process::runtime(2)?.block_on(async {
        let stop = CancellationToken::new();
        process::cancel_on_signal(stop.clone(), &[tokio::signal::unix::SignalKind::hangup()])?;
        let clusters = open(&arguments.clusters).await?;
        let Some(settings) = settings else {
            remove::everything(&clusters).await?;
            return Ok(ExitCode::SUCCESS);
        };
        for cluster in &clusters {
            cluster.is_empty().await?;
        }
        played(arguments, &settings, &clusters, stop).await
    })
}

async fn open(named: &[(String, String)]) -> anyhow::Result<Vec<Cluster>> {
    let mut clusters = vec![];
    for (name, file) in named {
        let file = PathBuf::from(file);
        let opened = install::cluster::open(Some(&file), None).await?;
        let client = opened.client().await?;
        let name = name.clone();
        clusters.push(Cluster { name, file, client });
    }
    Ok(clusters)
}

async fn played(
    arguments: &Arguments,
    settings: &Settings,
    clusters: &[Cluster],
    stop: CancellationToken,
) -> anyhow::Result<ExitCode> {
    // Private keys lie in it; it goes with the run.
    let dir = tempfile::tempdir().context("no directory for the installation's authority")?;
    let mut report = Report {
        lease_ms: settings.ttl.as_millis() as u64,
        limit_ms: settings.limit().as_millis() as u64,
        ..Report::default()
    };
    report.skip(
        "ActivePassive with writer roles",
        "the applications here only answer reads: an agent in a pod does not read volumes of its cluster",
    );
    let mut rig = Rig::new(settings, clusters, dir.path());
    let stopped = tokio::select! {
        played = rig.play(&mut report) => {
            if let Err(error) = played {
                report.broken.push(format!("{error:#}"));
            }
            false
        }
        () = stop.cancelled() => true,
    };
    rig.count(&mut report);
    if let Err(error) = rig.end().await {
        report.broken.push(format!("a fault was not ended: {error:#}"));
    }
    if let Some(logs) = &arguments.logs
        && let Err(error) = keep_logs(logs, &rig, clusters).await
    {
        output::say(format_args!("the logs are not all kept: {error:#}"));
    }
    output::say("removing everything");
    match remove::everything(clusters).await {
        Ok(()) => report.removed = true,
        Err(error) => report.broken.push(format!("{error:#}")),
    }
    drop(rig);
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("the report cannot be written to {}", file.display()))?;
    }
    report.print()?;
    for broken in &report.broken {
        output::say(format_args!("does not hold: {broken}"));
    }
    Ok(match (stopped, report.broken.is_empty()) {
        (true, true) => ExitCode::from(130),
        (false, true) => ExitCode::SUCCESS,
        (_, false) => ExitCode::FAILURE,
    })
}

async fn keep_logs(dir: &Path, rig: &Rig<'_>, clusters: &[Cluster]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    if let Some(text) = rig.witness_log() {
        std::fs::write(dir.join("witness.log"), text)?;
    }
    for cluster in clusters {
        for (name, text) in cluster.logs(remove::NAMESPACE).await? {
            std::fs::write(dir.join(name), text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn arguments() -> Arguments {
        Arguments {
            clusters: vec![pair("west", "w.yaml"), pair("east", "e.yaml")],
            image: Some("leeward:1".into()),
            ttl: 15,
            ..Arguments::default()
        }
    }

    #[test]
    fn a_fault_is_held_longer_than_users_may_wait() {
        let settings = arguments().settings().unwrap();
        assert_eq!(settings.limit(), Duration::from_secs(30));
        assert!(settings.held() > settings.limit());
        assert_eq!(settings.faults, plan::ALL);
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_done() {
        type Change = fn(&mut Arguments);
        let cases: [(Change, &str); 8] = [
            (|it| it.clusters.truncate(1), "two clusters"),
            (|it| it.clusters.push(pair("north", "n.yaml")), "two clusters"),
            (|it| it.clusters[1].0 = "west".into(), "two clusters"),
            (|it| it.image = None, "--registry HOST"),
            (|it| it.hosts.push(pair("north", "n")), "no --cluster north"),
            (|it| it.cut.push(pair("west", "down")), "--heal west"),
            (|it| it.kill = vec![pair("west", "a"), pair("west", "b")], "twice"),
            (|it| it.only = Some("flood".into()), "delete-pods"),
        ];
        for (change, said) in cases {
            let mut arguments = arguments();
            change(&mut arguments);
            let refused = arguments.settings().unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn what_belongs_to_a_cluster_has_its_name_in_front() {
        assert_eq!(
            named("west=ip link set west down"),
            Ok(pair("west", "ip link set west down"))
        );
        assert_eq!(named("west=a=b"), Ok(pair("west", "a=b")));
        for bad in ["west", "west=", "=x", "We st=x", "witness=x"] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
