//! The installation, and one fault after the other in it.
//!
//! Flow: [`Rig::set_up`] installs in both clusters with the commands that a person would give, and applies the applications in the first;
//! [`Rig::round`] makes a fault, holds it, ends it, waits until all is Protected, and has what was seen judged. What is in effect is kept in
//! `in_effect` until it is ended, so that a run that stops in between ends it, too.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use kube::ResourceExt as _;
use leeward_api::install::{EDGE_OUTSIDE, EDGE_SERVICE, PEER_PORT, PEER_SERVICE};

use super::{
    Settings, bring,
    client::Users,
    cluster::Cluster,
    judge::{self, Window},
    plan::{self, Before, Fault, Kind},
    reach, remove,
    report::{Made, Report},
    sample,
};
use crate::{apply, output, process};

/// How long all may take to become Protected.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long a load balancer may take to get its address, before the nodes' ports are used.
const BALANCED: Duration = Duration::from_secs(45);
/// How long a drain goes on asking for what a disruption budget holds back.
const DRAIN: Duration = Duration::from_secs(20);
/// How long everything has to be at rest to count.
const STILL: u32 = 3;

/// What has to be done to end what was done.
#[derive(Debug, Clone)]
enum Undo {
    Command(String),
    Uncordon { cluster: String, node: String },
}

/// The clusters and what runs in and beside them.
pub(crate) struct Rig<'a> {
    settings: &'a Settings,
    clusters: &'a [Cluster],
    dir: &'a Path,
    users: Option<Users>,
    edges: Vec<(String, String)>,
    witness: Option<tokio::process::Child>,
    in_effect: Vec<Undo>,
}

impl<'a> Rig<'a> {
    pub(crate) fn new(settings: &'a Settings, clusters: &'a [Cluster], dir: &'a Path) -> Self {
        Self {
            settings,
            clusters,
            dir,
            users: None,
            edges: vec![],
            witness: None,
            in_effect: vec![],
        }
    }

    fn cluster(&self, name: &str) -> anyhow::Result<&'a Cluster> {
        let found = self.clusters.iter().find(|cluster| cluster.name == name);
        found.with_context(|| format!("{name} is none of the clusters"))
    }

    /// Everything of a run, until the faults are through or something does not hold.
    pub(crate) async fn play(&mut self, report: &mut Report) -> anyhow::Result<()> {
        self.set_up().await?;
        for kind in &self.settings.faults {
            let before = self.before().await?;
            let (active, standby) = (before.0.as_str(), before.1.as_str());
            let nodes = before.2;
            let known = Before { active, standby, nodes };
            match plan::fault(*kind, known, &self.settings.hooks) {
                Ok(fault) => {
                    let made = self.round(&fault, active).await;
                    let made = made.with_context(|| format!("{} in {}", kind.name(), fault.target))?;
                    let rested = made.rest_ms.is_some();
                    report.made(made);
                    ensure!(
                        rested,
                        "not all was Protected after {}, so no other fault was made",
                        kind.name()
                    );
                }
                Err(why) => report.skip(kind.name(), why),
            }
        }
        Ok(())
    }

    /// Counts the questions of the users.
    pub(crate) fn count(&self, report: &mut Report) {
        if let Some(users) = &self.users {
            (report.questions, report.answered) = users.counted();
        }
    }

    /// Active cluster, standby, and how many nodes of the active one take pods.
    async fn before(&self) -> anyhow::Result<(String, String, usize)> {
        let first = self.clusters.first().context("there is no cluster")?;
        let status = first.status(sample::PASSIVE).await?;
        let active = status
            .and_then(|(_, status)| status.active)
            .context("nobody is active")?;
        let standby = self.clusters.iter().find(|cluster| cluster.name != active);
        let standby = standby.context("there is no standby")?.name.clone();
        let nodes = self.cluster(&active)?.nodes().await?.len();
        Ok((active, standby, nodes))
    }

    async fn set_up(&mut self) -> anyhow::Result<()> {
        let names: Vec<&str> = self.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        let image = bring::bring(&self.settings.way, &names, self.dir).await?;
        let mut reached = vec![];
        for cluster in self.clusters {
            reached.push(match self.settings.hosts.get(&cluster.name) {
                Some(host) => (reach::join(host, EDGE_OUTSIDE), reach::join(host, PEER_PORT)),
                None => self.find(cluster, &image).await?,
            });
        }
        let witness = self.witness_address(&reached)?;
        self.define(&witness, &reached).await?;
        self.start_witness(&witness).await?;
        for cluster in self.clusters {
            self.install(cluster, &image, true).await?;
            output::say(format_args!("{}: an agent is ready", cluster.name));
        }
        let pairs = self.clusters.iter().zip(reached);
        self.edges = pairs.map(|(cluster, (edge, _))| (cluster.name.clone(), edge)).collect();
        self.apply(&image).await?;
        let users = Users::start(&self.edges, self.clusters)?;
        let asked = users.now();
        self.users = Some(users);
        let limit = self.at_rest().await?;
        ensure!(
            limit.is_none(),
            "not all is Protected after {PATIENCE:?}: {}",
            limit.unwrap_or_default()
        );
        self.answered(asked).await
    }

    /// Waits until every edge answers for both applications.
    async fn answered(&self, since: u64) -> anyhow::Result<()> {
        let users = self.users.as_ref().context("nobody asks")?;
        let until = Instant::now() + self.settings.limit();
        while !users.all_answered(&self.edges, since) {
            ensure!(
                Instant::now() < until,
                "all is Protected, and not every edge answers for every application: {:?}",
                self.edges
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        output::say("all is Protected, and every edge answers");
        Ok(())
    }

    /// Where a cluster's Services are reached: they are made first, and what they were given is read.
    async fn find(&self, cluster: &Cluster, image: &str) -> anyhow::Result<(String, String)> {
        self.install(cluster, image, false).await?;
        let until = Instant::now() + BALANCED;
        let mut found = vec![];
        for name in [EDGE_SERVICE, PEER_SERVICE] {
            loop {
                let (service, nodes) = cluster.service(remove::NAMESPACE, name).await?;
                if reach::is_balanced(&service) || Instant::now() > until {
                    let at = reach::of_service(&service, &nodes);
                    found.push(at.with_context(|| {
                        format!(
                            "where {name} of {0} is reached is not known: it has neither a load balancer nor a port of the nodes; say it with \
                             --host {0}=HOST",
                            cluster.name
                        )
                    })?);
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        let peer = found.pop().unwrap_or_default();
        Ok((found.pop().unwrap_or_default(), peer))
    }

    fn witness_address(&self, reached: &[(String, String)]) -> anyhow::Result<String> {
        let host = match &self.settings.witness_host {
            Some(host) => host.clone(),
            None => {
                let mut towards: Vec<SocketAddr> = vec![];
                for (_, peer) in reached {
                    let mut found = peer
                        .to_socket_addrs()
                        .with_context(|| format!("{peer} is not known here"))?;
                    towards.extend(found.next());
                }
                reach::own(&towards)?.to_string()
            }
        };
        // A free port there; nobody else is expected to take it until the witness does.
        let free = std::net::TcpListener::bind((host.as_str(), 0));
        let free = free.with_context(|| format!("the witness cannot listen at {host}"))?;
        Ok(reach::join(&host, free.local_addr()?.port()))
    }

    fn installation(&self) -> PathBuf {
        self.dir.join("installation")
    }

    /// Makes the authority of the installation.
    async fn define(&self, witness: &str, reached: &[(String, String)]) -> anyhow::Result<()> {
        let (dir, ttl) = (self.installation(), self.settings.ttl.as_secs().to_string());
        let dir = dir.to_string_lossy();
        let init = ["join", "init", "--dir", &dir, "--witness", witness, "--ttl", &ttl];
        leeward(&[&init[..], &["--namespace", remove::NAMESPACE]].concat()).await?;
        for (cluster, (edge, peer)) in self.clusters.iter().zip(reached) {
            // Nobody pulls from an agent's registry here, so where it is reached does not matter.
            let host = peer.rsplit_once(':').map_or(peer.as_str(), |(host, _)| host);
            let registry = format!("{host}:5000");
            let region = ["join", "region", &cluster.name, "--dir", &dir, "--ingress", edge];
            leeward(&[&region[..], &["--peer", peer, "--registry", &registry]].concat()).await?;
        }
        Ok(())
    }

    /// Starts the witness here.
    async fn start_witness(&mut self, address: &str) -> anyhow::Result<()> {
        let (dir, installation) = (self.dir.join("witness"), self.installation());
        let (out, from) = (dir.to_string_lossy(), installation.to_string_lossy());
        leeward(&["join", "witness", "--dir", &from, "--out", &out, "--at", &out]).await?;
        let file = dir.join("witness.json");
        let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
        let mut listens = address.to_socket_addrs()?;
        config["address"] = listens.next().context("the witness has no address")?.to_string().into();
        config["data_dir"] = self.dir.join("witness-data").to_string_lossy().into();
        std::fs::write(&file, config.to_string())?;
        let log = std::fs::File::create(self.dir.join("witness.log"))?;
        let mut witness = tokio::process::Command::from(process::this()?);
        witness.args(["witness", "--config"]).arg(&file).kill_on_drop(true);
        let witness = witness.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        self.witness = Some(witness);
        output::say(format_args!("the witness is at {address}"));
        Ok(())
    }

    /// What the witness has logged.
    pub(crate) fn witness_log(&self) -> Option<String> {
        std::fs::read_to_string(self.dir.join("witness.log")).ok()
    }

    async fn install(&self, cluster: &Cluster, image: &str, joined: bool) -> anyhow::Result<()> {
        let (file, dir) = (cluster.file.to_string_lossy(), self.installation());
        let dir = dir.to_string_lossy();
        let mut arguments = vec!["install", "--kubeconfig", &file, "--image", image];
        match joined {
            true => arguments.extend(["--join", &dir, "--cluster", &cluster.name]),
            false => arguments.extend(["--namespace", remove::NAMESPACE]),
        }
        leeward(&arguments).await
    }

    /// Applies the applications in the first cluster.
    async fn apply(&self, image: &str) -> anyhow::Result<()> {
        let [first, second] = self.clusters else {
            bail!("there are not two clusters")
        };
        for app in sample::APPS {
            let mut objects = sample::objects(app, image);
            let clusters = [first.name.as_str(), second.name.as_str()];
            objects.push(sample::protected(app, clusters, self.settings.ttl));
            for object in &objects {
                apply::apply(&first.client, object, app.name).await?;
            }
        }
        Ok(())
    }

    /// Makes a fault and judges it.
    async fn round(&mut self, fault: &Fault, active: &str) -> anyhow::Result<Made> {
        output::say(format_args!(
            "{} in {}, while {active} is active",
            fault.kind.name(),
            fault.target
        ));
        let kept = match fault.kind {
            Kind::DeleteStandbyNamespace => Some(self.cluster(active)?.known(sample::PASSIVE).await?),
            _ => None,
        };
        let users = self.users.as_ref().context("nobody asks")?;
        let began = users.now();
        self.make(fault).await?;
        let users = self.users.as_ref().context("nobody asks")?;
        let held = began + self.settings.held().as_millis() as u64;
        tokio::time::sleep(Duration::from_millis(held.saturating_sub(users.now()))).await;
        let ended = users.now();
        self.end().await?;
        // What was said before the fault counts no more.
        tokio::time::sleep(self.settings.ttl / 2).await;
        let waits = self.at_rest().await?;
        let users = self.users.as_ref().context("nobody asks")?;
        let rested = users.now();
        let (asks, seen) = users.since(began);
        let limit = self.settings.limit().as_millis() as u64;
        let window = Window { began, ended, rested };
        let mut verdict = judge::judge(fault, active, window, limit, &asks, &seen);
        if let Some(waits) = &waits {
            verdict
                .broken
                .push(format!("not all was Protected within {PATIENCE:?} of its end: {waits}"));
        }
        if let Some(before) = kept {
            let after = self.cluster(active)?.known(sample::PASSIVE).await?;
            for gone in judge::missing(&before, &after) {
                verdict.broken.push(format!("{gone} was deleted in {active}"));
            }
            let back = self.cluster(&fault.target)?.known(sample::PASSIVE).await;
            let back = back.map(|back| {
                back.iter()
                    .any(|(name, _)| name == &format!("Deployment {}", sample::PASSIVE.name))
            });
            if !matches!(back, Ok(true)) {
                verdict.broken.push(format!(
                    "the application's objects did not come back in {}",
                    fault.target
                ));
            }
        }
        for broken in &verdict.broken {
            output::say(format_args!("does not hold: {broken}"));
        }
        Ok(Made {
            fault: fault.kind,
            cluster: fault.target.clone(),
            active: active.to_owned(),
            successor: fault.successor.clone(),
            rest_ms: waits.is_none().then_some(rested - ended),
            verdict,
        })
    }

    async fn make(&mut self, fault: &Fault) -> anyhow::Result<()> {
        let cluster = self.cluster(&fault.target)?;
        if let Some(hooks) = &fault.hooks {
            // Kept before it is made: what is half made is ended, too.
            self.in_effect.push(Undo::Command(hooks.end.clone()));
            return bring::run(&hooks.make).await;
        }
        match fault.kind {
            Kind::DeletePods => {
                let count = cluster.delete_pods(sample::PASSIVE.name, |_| true).await?;
                ensure!(count > 0, "there was no pod to be deleted");
            }
            Kind::DeleteAgent => {
                let acting = cluster.acting().await?;
                let count = cluster
                    .delete_pods(remove::NAMESPACE, |pod| pod.name_any() == acting)
                    .await?;
                ensure!(count == 1, "there is no pod {acting}, which is said to act");
            }
            Kind::DeleteStandbyAgents => {
                let count = cluster.delete_pods(remove::NAMESPACE, |_| true).await?;
                ensure!(count > 0, "there was no agent to be deleted");
            }
            Kind::DeleteStandbyNamespace => cluster.delete_namespace(sample::PASSIVE.name).await?,
            _ => self.drain(cluster).await?,
        }
        Ok(())
    }

    async fn drain(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let node = cluster.node_of(sample::PASSIVE.name).await?;
        self.in_effect.push(Undo::Uncordon {
            cluster: cluster.name.clone(),
            node: node.clone(),
        });
        cluster.cordon(&node, true).await?;
        let until = Instant::now() + DRAIN;
        let namespaces: Vec<&str> = sample::APPS
            .iter()
            .map(|app| app.name)
            .chain([remove::NAMESPACE])
            .collect();
        loop {
            let stay = cluster.evict(&node, &namespaces).await?;
            if stay.is_empty() || Instant::now() > until {
                for stays in stay {
                    output::say(format_args!("{node} is not drained of {stays}"));
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Ends what is in effect.
    ///
    /// # Errors
    /// A command of the user failed, or a cluster does not answer; the others are done all the same.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        let mut failed = None;
        while let Some(undo) = self.in_effect.pop() {
            let ended = match &undo {
                Undo::Command(command) => bring::run(command).await,
                Undo::Uncordon { cluster, node } => self.cluster(cluster)?.cordon(node, false).await,
            };
            failed = failed.or(ended.err().map(|error| error.context(format!("{undo:?}"))));
        }
        failed.map_or(Ok(()), Err)
    }

    /// Waits until all clusters say that all is at rest; what they wait for after too long.
    async fn at_rest(&self) -> anyhow::Result<Option<String>> {
        let until = Instant::now() + PATIENCE;
        let (mut still, mut said) = (0, String::new());
        loop {
            let waits = self.waits().await;
            still = if waits.is_some() { 0 } else { still + 1 };
            if still == STILL {
                return Ok(None);
            }
            if let Some(waits) = waits.filter(|waits| *waits != said) {
                output::say(format_args!("waiting: {waits}"));
                said = waits;
            }
            if Instant::now() > until {
                return Ok(Some(said));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn waits(&self) -> Option<String> {
        for cluster in self.clusters {
            let waits = cluster.waits().await.unwrap_or_else(|error| Some(format!("{error:#}")));
            if let Some(waits) = waits {
                return Some(format!("{} says: {waits}", cluster.name));
            }
        }
        None
    }
}

/// Runs this program with other arguments, as a person would.
async fn leeward(arguments: &[&str]) -> anyhow::Result<()> {
    let mut program = tokio::process::Command::from(process::this()?);
    let said = program
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(
        said.status.success(),
        "`leeward {}` ended with {}: {}",
        arguments.join(" "),
        said.status,
        String::from_utf8_lossy(&said.stderr).trim()
    );
    Ok(())
}
