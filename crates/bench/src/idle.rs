//! What an agent takes while nothing happens: memory, processor time, and requests, in each of two local regions that are each active for half of the
//! applications and stand by for the others. Only the agent's own process counts; applications, nodes and API are beside it.

mod apps;
mod counts;
mod limits;

use std::collections::BTreeMap;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Request;
use kube::Client;
use leeward_images::pack::{self, Entry};
use leeward_images::reference::Reference;
use leeward_local::instance::Instance;
use leeward_local::instance::processes::{Record, Usage, cpu_percent, usage};
use serde_json::Value;

use self::counts::Counts;
use self::limits::Taken;
use crate::api::create;
use crate::figure::{self, Figure};
use crate::region::Home;

/// How long the applications may take to be protected.
const PATIENCE: Duration = Duration::from_secs(300);

/// How many applications, and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The program `leeward`.
    #[arg(long)]
    program: PathBuf,
    /// Applications that are protected, in both regions.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=200))]
    apps: u16,
    /// How long to wait before the measurement, in seconds, so that what was begun has ended.
    #[arg(long, default_value_t = 30)]
    settle: u64,
    /// How long is measured, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How long a region's lease lives, in seconds; as `leeward up` has it where nothing is said.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// Where leases and decisions live, `embedded` or `etcd`; as `leeward up` has it where nothing is said.
    #[arg(long)]
    quorum: Option<String>,
    /// Where the figures are written as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    /// How the regions are started.
    fn up(&self) -> Vec<String> {
        let ttl = self.ttl.iter().map(|ttl| format!("--ttl={ttl}"));
        let quorum = self.quorum.iter().map(|quorum| format!("--quorum={quorum}"));
        iter::once("up".to_owned()).chain(ttl).chain(quorum).collect()
    }
}

/// One region's agent.
struct Watched {
    region: String,
    process: Record,
    metrics: String,
}

/// Starts regions and applications and measures the agents. Fails when one is over a limit.
pub(crate) async fn run(options: &Options) -> Result<ExitCode> {
    let home = Home::new(&options.program)?;
    home.run(&options.up())?;
    let instance = Instance::open(&home.dir())?;
    let apps = usize::from(options.apps);
    let clients = protect(&instance, &options.program, apps).await?;
    protected(&clients, apps).await?;
    println!(
        "{apps} applications are protected; waiting {} s, then measuring {} s",
        options.settle, options.seconds
    );
    let agents = agents(&instance)?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    tokio::time::sleep(Duration::from_secs(options.settle)).await;
    let (began, before) = (Instant::now(), look(&http, &agents).await?);
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let (lasted, after) = (began.elapsed(), look(&http, &agents).await?);

    let (mut figures, mut missed) = (Vec::new(), Vec::new());
    for ((agent, before), after) in agents.iter().zip(&before).zip(&after) {
        let region = &agent.region;
        let taken = say(region, lasted, before, after, &mut figures);
        missed.extend(limits::missed(region, apps, taken));
    }
    figure::write(options.json.as_deref(), &figures)?;
    for missed in &missed {
        println!("missed: {missed}");
    }
    Ok(if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints what one agent took, and keeps the figures.
fn say(
    region: &str,
    lasted: Duration,
    before: &(Usage, Counts),
    after: &(Usage, Counts),
    figures: &mut Vec<Figure>,
) -> Taken {
    let minutes = lasted.as_secs_f64() / 60.0;
    let counts = after.1.since(&before.1);
    let taken = Taken {
        memory: after.0.rss_mib,
        cpu: cpu_percent(before.0, after.0, lasted),
        requests: counts.requests() / minutes,
    };
    let quorum = counts.quorum / minutes;
    println!(
        "\n{region}: {:.1} MiB RSS, {:.1} MiB PSS, {:.2} % of a core\n  {:>8.1} transactions of the quorum a minute\n  {:>8.1} requests to the \
         Kubernetes API a minute, of these:",
        taken.memory, after.0.pss_mib, taken.cpu, quorum, taken.requests
    );
    let mut note =
        |what: &str, ours: f64, unit| figures.push(Figure::alone(format!("idle/{region}/{what}"), ours, unit));
    note("memory-rss", taken.memory, "MiB");
    note("memory-pss", after.0.pss_mib, "MiB");
    note("cpu", taken.cpu, "% of a core");
    note("quorum-transactions", quorum, "1/min");
    note("kubernetes-requests", taken.requests, "1/min");
    for (what, count) in &counts.kubernetes {
        println!("  {:>8.1}   {what}", count / minutes);
        note(&format!("kubernetes-requests/{what}"), count / minutes, "1/min");
    }
    taken
}

/// Makes the applications, the first in the first region, the second in the second one, and so on.
async fn protect(instance: &Instance, program: &Path, apps: usize) -> Result<BTreeMap<String, Client>> {
    let regions = instance.regions();
    let image = image(program)?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut clients = BTreeMap::new();
    for region in regions {
        let registry = format!("http://{}", instance.addresses(region)?.registry());
        pack::push(&http, &registry, &Reference::parse(apps::IMAGE)?, &image).await?;
        clients.insert(
            region.clone(),
            leeward_testing::client(&instance.kubeconfig(region)?).await?,
        );
    }
    for index in 0..apps {
        let mut clusters: Vec<&str> = regions.iter().map(String::as_str).collect();
        let count = clusters.len();
        clusters.rotate_left(index % count);
        let client = clients.get(clusters[0]).context("no client of a region")?;
        for (path, object) in apps::objects(&apps::name(index), &clusters) {
            create(client, &path, &object).await?;
        }
    }
    Ok(clients)
}

/// The program as the applications' image.
fn image(program: &Path) -> Result<pack::OciImage> {
    let mut entries = pack::executable(program, "/leeward")?;
    entries.push(Entry::directory("/data", 0o777));
    entries.push(Entry::directory("/tmp", 0o1777));
    let config = pack::Config {
        labels: [("dev.leeward.plain-process".to_owned(), "true".to_owned())].into(),
        ..pack::Config::default()
    };
    Ok(pack::image(vec![entries], &config)?)
}

/// Waits until each region says of each application that it is protected.
async fn protected(clients: &BTreeMap<String, Client>, apps: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut waits = Vec::new();
        for (region, client) in clients {
            let request = Request::get("/apis/leeward.dev/v1alpha1/protectedapps").body(vec![])?;
            let list: Value = client.request(request).await?;
            let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let unprotected: Vec<_> = items.iter().filter(|app| !is_protected(app)).collect();
            if items.len() != apps || !unprotected.is_empty() {
                let first = unprotected.first().map(|app| app["status"]["waitingFor"].to_string());
                waits.push(format!(
                    "{region} has {} of {apps}: {first:?}",
                    items.len() - unprotected.len()
                ));
            }
        }
        if waits.is_empty() {
            return Ok(());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "not everything was protected within {} s: {}",
            PATIENCE.as_secs(),
            waits.join("; ")
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn is_protected(app: &Value) -> bool {
    let mut conditions = app["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Protected" && condition["status"] == "True")
}

fn agents(instance: &Instance) -> Result<Vec<Watched>> {
    let mut processes = instance.processes()?;
    let agents = instance.regions().iter().map(|region| {
        let name = format!("{region}-serve");
        let found = processes.iter().position(|process| process.name == name);
        Ok(Watched {
            region: region.clone(),
            process: processes.swap_remove(found.with_context(|| format!("{name} does not run"))?),
            metrics: format!("http://{}/metrics", instance.addresses(region)?.metrics()),
        })
    });
    agents.collect()
}

/// What each agent has taken until now.
async fn look(http: &reqwest::Client, agents: &[Watched]) -> Result<Vec<(Usage, Counts)>> {
    let mut all = Vec::new();
    for agent in agents {
        ensure!(agent.process.is_alive(), "the agent of {} has ended", agent.region);
        let page = http
            .get(&agent.metrics)
            .send()
            .await?
            .error_for_status()?
            .text()
            .await?;
        all.push((usage(std::slice::from_ref(&agent.process)), Counts::parse(&page)));
    }
    Ok(all)
}
