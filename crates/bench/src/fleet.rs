//! What the loss of a region with many applications costs the leader: every decision planned, checked and committed in a quorum of three
//! members, by the code that agents run, with specifications encrypted as agents do. And what the quorum is written: meanwhile, and while nothing
//! happens, when only leases are renewed.

mod limits;
mod rest;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use leeward_controller::agent::decide::{Decision, Look, commit_all, plan_all};
use leeward_core::{
    app::{App, Model, Placement, WriterRole},
    in_sync::WhenStandbyAway,
    lease::{Delays, Lease, Moment, Role, Timing},
    name::{AppKey, ClusterName, Epoch, Generation, RoleKey},
    plan::Plan,
    report::{AppReport, PointReport, RoleReport, Seen},
};
use leeward_quorum::{
    Store, Txn,
    encrypted::{Encrypted, Keys},
    etcd, key,
    known::Known,
};
use leeward_testing::Etcd;
use serde_json::json;

use crate::figure::{self, Figure};

/// How many applications and regions.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The program `leeward`; it is not needed here.
    #[arg(long, hide = true)]
    program: Option<PathBuf>,
    /// The numbers of applications in the lost region.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,5000")]
    apps: Vec<usize>,
    /// The numbers of regions.
    #[arg(long, value_delimiter = ',', default_value = "3,10")]
    regions: Vec<usize>,
    /// Where the figures are written as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The lost region.
const LOST: &str = "region-0";

/// How long leases live here.
const TTL: Duration = Duration::from_secs(15);
/// Applications that are there while the quorum is at rest.
const APPS_AT_REST: usize = 100;
/// What specifications are encrypted with: they are nobody's.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Measures each combination on a fresh quorum. Fails when a figure is over its limit.
pub(crate) async fn run(options: &Options) -> Result<ExitCode> {
    for regions in &options.regions {
        ensure!((2..=100).contains(regions), "from 2 to 100 regions");
    }
    let (mut figures, mut losses, mut missed) = (Vec::new(), Vec::new(), Vec::new());
    println!(
        "{:>8} {:>8} {:>12} {:>14} {:>14} {:>14}",
        "regions", "apps", "in all", "planned alone", "writes/s", "memory an app"
    );
    for regions in &options.regions {
        let rest = at_rest(*regions).await?;
        println!(
            "{regions:>8} {:>8} {:>12} {:>14} {rest:>14.2} {:>14}",
            "at rest", "", "", ""
        );
        figures.push(Figure::alone(
            format!("fleet/{regions}-regions/at-rest/quorum-writes-a-second"),
            rest,
            "1/s",
        ));
        missed.extend(limits::of_rest(*regions, rest, TTL));
        for apps in &options.apps {
            let loss = measure(*regions, *apps).await?;
            println!(
                "{regions:>8} {apps:>8} {:>9.0} ms {:>11.1} ms {:>14.0} {:>10.1} KiB",
                loss.all.as_secs_f64() * 1000.0,
                loss.planned.as_secs_f64() * 1000.0,
                loss.writes_a_second(),
                loss.memory / 1024.0
            );
            let name = |what: &str| format!("fleet/{regions}-regions/{apps}-apps/{what}");
            let ms = |time: Duration| time.as_secs_f64() * 1000.0;
            figures.push(Figure::alone(name("planned-and-committed"), ms(loss.all), "ms"));
            figures.push(Figure::alone(name("planned"), ms(loss.planned), "ms"));
            figures.push(Figure::alone(
                name("quorum-writes-a-second"),
                loss.writes_a_second(),
                "1/s",
            ));
            figures.push(Figure::alone(name("memory-an-app"), loss.memory, "bytes"));
            losses.push(limits::Loss {
                regions: *regions,
                apps: *apps,
                all: loss.all,
            });
        }
    }
    figure::write(options.json.as_deref(), &figures)?;
    missed.extend(limits::of_losses(&losses));
    for missed in &missed {
        println!("missed: {missed}");
    }
    Ok(if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What it took.
struct Loss {
    /// From the first look to the last commit.
    all: Duration,
    /// Of that, deciding.
    planned: Duration,
    /// How often the quorum was written.
    writes: u64,
    /// What the copy of the quorum takes for each application, bytes.
    memory: f64,
}

impl Loss {
    fn writes_a_second(&self) -> f64 {
        self.writes as f64 / self.all.as_secs_f64()
    }
}

/// A quorum of three members, with the store as agents have it.
async fn quorum() -> Result<(Etcd, Arc<dyn Store>)> {
    let flags = ["--heartbeat-interval", "50", "--election-timeout", "300"];
    let etcd = Etcd::start(3, &flags, |_, _| Ok(())).await?;
    let etcd =
        etcd.context("etcd is not found in PATH: apt-get install etcd-server, or let `cargo xtask test` get it")?;
    let store = etcd::Etcd::new(etcd::Config {
        endpoints: etcd.endpoints(),
        tls: None,
        login: None,
        prefix: "fleet/".into(),
        timeout: Duration::from_secs(10),
        cluster: 0,
        revision: 0,
    })?;
    let store = Encrypted::new(Arc::new(store), Keys::new([KEY])?);
    Ok((etcd, Arc::new(store)))
}

fn timing() -> Result<Timing> {
    Ok(Timing::new(TTL, Delays::with_election(Duration::from_millis(300)))?)
}

fn names(regions: usize) -> Vec<ClusterName> {
    (0..regions).map(|n| ClusterName::new(format!("region-{n}"))).collect()
}

/// The writes a second while nothing happens.
async fn at_rest(regions: usize) -> Result<f64> {
    let (_etcd, store) = quorum().await?;
    let names = names(regions);
    fill(&*store, &names, APPS_AT_REST).await?;
    rest::writes_a_second(&store, &names, timing()?).await
}

async fn measure(regions: usize, apps: usize) -> Result<Loss> {
    let (_etcd, store) = quorum().await?;
    let (timing, names) = (timing()?, names(regions));
    fill(&*store, &names, apps).await?;
    let before = resident()?;
    let mut known = Known::default();
    known.follow(store.changes(0, Duration::ZERO).await?, Moment::default());
    let memory = (resident()? - before) / apps as f64;
    ensure!(known.situations().len() == apps, "not every application is known");

    let unseen_by: BTreeMap<ClusterName, BTreeSet<String>> =
        [(LOST.into(), ["region-1".to_owned(), "witness".to_owned()].into())].into();
    let now = timing.taken_from(Moment::default()).after(Duration::from_millis(1));
    for region in names.iter().filter(|name| name.as_str() != LOST) {
        let renewed = Txn::default().put(key::lease(region), &lease(region, 2))?;
        let renewed = store.txn(renewed.read(key::lease(region))).await?;
        known.take(renewed.entries, now);
    }
    let report = report();
    let reports = |_: &AppKey| -> BTreeMap<ClusterName, Seen<AppReport>> {
        let heard = names.iter().map(|name| {
            let age = if name.as_str() == LOST {
                timing.ttl
            } else {
                Duration::ZERO
            };
            (
                name.clone(),
                Seen {
                    value: report.clone(),
                    age,
                },
            )
        });
        heard.collect()
    };
    let written_before = rest::revision(&*store).await?;
    let (began, mut planned, mut moved) = (Instant::now(), Duration::ZERO, 0);
    loop {
        let look_began = Instant::now();
        let decisions = plan_all(&Look {
            known: &known,
            unseen_by: &unseen_by,
            holders: &BTreeMap::new(),
            reports: &reports,
            timing: &timing,
            drains: usize::MAX,
            now,
            wall_ms: 1_000_000,
        });
        planned += look_began.elapsed();
        let decisions = decisions.into_iter().collect::<Result<Vec<_>, _>>()?;
        if decisions.is_empty() {
            break;
        }
        moved += commit_all(&*store, decisions, |entries| known.take(entries, now)).await;
    }
    let all = began.elapsed();
    ensure!(moved == apps, "{moved} of {apps} applications were moved");
    Ok(Loss {
        all,
        planned,
        writes: rest::revision(&*store).await? - written_before,
        memory,
    })
}

fn lease(region: &ClusterName, sequence: u64) -> Lease {
    Lease {
        cluster: region.clone(),
        holder: region.to_string(),
        sequence,
        sealed: false,
    }
}

/// Every application is active in the lost region and in sync in one of the others.
async fn fill(store: &dyn Store, regions: &[ClusterName], apps: usize) -> Result<()> {
    for region in regions {
        store
            .txn(Txn::default().put(key::lease(region), &lease(region, 1))?)
            .await?;
    }
    let mut accepted = Vec::new();
    for index in 0..apps {
        let app = app(index, &regions[1 + index % (regions.len() - 1)]);
        let plan = Plan {
            generation: Generation(1),
            app: app.key.clone(),
            active: LOST.into(),
            operation: None,
            finished: None,
        };
        let role = Role {
            in_sync: app.placements.iter().skip(1).map(|p| p.cluster.clone()).collect(),
            ..Role::held(LOST.into(), Epoch(1))
        };
        accepted.push(Decision {
            why: String::new(),
            txn: Txn::default()
                .put(key::spec(&app.key), &app)?
                .put(key::plan(&app.key), &plan)?
                .put(key::role(&RoleKey::new(app.key.clone(), "data")), &role)?,
        });
    }
    let written = commit_all(store, accepted, |_| {}).await;
    ensure!(written == apps, "{written} of {apps} applications were written");
    Ok(())
}

fn app(index: usize, standby: &ClusterName) -> App {
    let placement = |cluster: ClusterName, priority| Placement {
        cluster,
        priority,
        weight: 100,
        standby_replicas: 0,
        overrides: vec![],
    };
    App {
        key: AppKey::new(format!("team-{}", index % 50), format!("app-{index}")),
        authority: LOST.into(),
        observed: 1,
        model: Model::ActivePassive,
        placements: vec![placement(LOST.into(), 1), placement(standby.clone(), 2)],
        rpo: Duration::from_secs(60),
        when_standby_away: WhenStandbyAway::Serve,
        rto: Duration::from_secs(60),
        automatic: true,
        paused: false,
        roles: vec![WriterRole {
            name: "data".into(),
            claims: vec!["data".into()],
            interval: Duration::from_secs(5),
        }],
        traffic: None,
        selector: json!({"matchLabels": {"app": format!("app-{index}")}}),
        // As much as a usual resource has.
        resource: json!({"model": "ActivePassive", "placements": [{"cluster": LOST}, {"cluster": standby.as_str()}],
            "objectives": {"rpo": "60s", "rto": "60s"}, "roles": [{"name": "data", "claims": ["data"], "interval": "5s"}],
            "traffic": {"hosts": [format!("app-{index}.example")], "service": "web", "port": 80, "probe": {"path": "/healthz"}}}),
    }
}

fn report() -> AppReport {
    let point = PointReport {
        epoch: Epoch(1),
        sequence: 1,
        source_ms: 1,
    };
    let role = RoleReport {
        point: Some(point),
        ..RoleReport::default()
    };
    AppReport {
        roles: [("data".to_owned(), role)].into(),
        ..AppReport::default()
    }
}

/// What this process has for itself, bytes.
fn resident() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find(|line| line.starts_with("Anonymous:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    Ok(kib.context("/proc/self/smaps_rollup has no line Anonymous")? * 1024.0)
}
