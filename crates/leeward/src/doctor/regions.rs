//! Looks at the local regions: the directory, the processes and their addresses, the APIs.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use futures::future::join_all;
use leeward_controller::{clock, config, quorum::settings};
use leeward_local::instance::{Error, Instance, addresses, config::node_name};

use leeward_quorum::certificate;

use super::judge::{self, Check, Life};
use crate::{bring_up, fleet};

/// An API that has not answered by then is not ready.
const PATIENCE: Duration = Duration::from_secs(3);

/// A process of an instance and where it listens.
struct Expected {
    name: String,
    listeners: Vec<(&'static str, SocketAddr)>,
}

/// Everything about the instance in `dir`.
pub(super) async fn look(dir: &Path) -> Vec<Check> {
    let instance = match Instance::open(dir) {
        Ok(instance) => instance,
        Err(Error::Missing(_)) => {
            let finding = format!("none in {}; `leeward up` makes some", dir.display());
            return vec![Check::ok("local regions", finding), room()];
        }
        Err(error) => return vec![Check::fail("local regions", error.to_string(), broken(&error, dir))],
    };
    let running = match instance.processes() {
        Ok(running) => running,
        Err(error) => return vec![Check::fail("local regions", error.to_string(), broken(&error, dir))],
    };
    let finding = format!("{} in {}", instance.regions().join(", "), dir.display());
    let mut checks = vec![Check::ok("local regions", finding)];
    for expected in expected(&instance) {
        let alive = running.iter().find(|record| record.name == expected.name);
        let life = match alive {
            Some(record) => Life::Alive(record.pid),
            None => Life::Dead(
                addresses::check_free(&expected.listeners)
                    .err()
                    .map(|taken| taken.to_string()),
            ),
        };
        checks.push(judge::process(&expected.name, &life));
    }
    checks.extend(join_all(instance.regions().iter().map(|region| api(&instance, region))).await);
    let certificates = instance.regions().iter().map(|region| certificates(&instance, region));
    checks.extend(join_all(certificates).await.into_iter().flatten());
    checks
}

/// What a region's agent and the members of its quorum show each other, where the quorum is on etcd.
async fn certificates(instance: &Instance, region: &str) -> Option<Check> {
    let file = instance.layout().config(Some(region), "serve");
    // Without its configuration the agent does not run, which is said above.
    let serve: config::Serve = config::read(&file).ok()?;
    let config::Quorum::Etcd(etcd) = &serve.quorum else {
        return None;
    };
    let looked = match settings(etcd, &serve, PATIENCE) {
        Ok(settings) => certificate::look(&settings).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let now = i64::try_from(clock::wall_ms() / 1000).unwrap_or(i64::MAX);
    judge::certificates(
        region,
        looked.map(|all| all.into_iter().flatten().collect()),
        &file,
        now,
    )
}

/// Whether a new instance would find addresses.
fn room() -> Check {
    match addresses::free_octet(1, 2, 2) {
        Ok(octet) => Check::ok(
            "ports",
            format!("those of two regions are free in 127.{}.0.0/16", octet.0),
        ),
        Err(taken) => Check::fail("ports", taken.to_string(), "end what listens there"),
    }
}

fn broken(error: &Error, dir: &Path) -> String {
    match error {
        Error::Foreign(_) => "give another directory with --home DIR".to_owned(),
        Error::Incomplete(_) | Error::Corrupt { .. } => {
            format!("leeward down --home {}; leeward up --home {0}", dir.display())
        }
        _ => "see what the error says; `leeward down` removes the local regions".to_owned(),
    }
}

/// Every process that the instance should have.
fn expected(instance: &Instance) -> Vec<Expected> {
    let one = |name: String, listeners| Expected { name, listeners };
    let mut all = vec![one("witness".into(), vec![("witness", instance.witness_address())])];
    for region in instance.regions() {
        let Ok(addresses) = instance.addresses(region) else {
            continue;
        };
        all.push(one(format!("{region}-api"), vec![("Kubernetes API", addresses.api())]));
        for node in 0..instance.nodes_per_region() {
            let kubelet = addresses.kubelet(node).into();
            all.push(one(node_name(region, node), vec![("kubelet", kubelet)]));
        }
        let listeners = vec![
            ("registry", addresses.registry()),
            ("ingress", addresses.ingress()),
            ("peer link", addresses.peer()),
        ];
        all.push(one(format!("{region}-serve"), listeners));
    }
    all
}

async fn api(instance: &Instance, region: &str) -> Check {
    let began = Instant::now();
    let asked = async {
        let client = bring_up::client(instance, region)
            .await
            .map_err(|error| format!("{error:#}"))?;
        let request = hyper::Request::get("/readyz")
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        client
            .request_text(request)
            .await
            .map_err(|error| fleet::reason(&error))
    };
    let answer = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map(|_| began.elapsed()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    judge::api(region, answer)
}
