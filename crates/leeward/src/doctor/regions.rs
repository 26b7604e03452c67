//! Looks at the local regions: the directory, the processes and their addresses, the APIs.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use futures::future::join_all;
use leeward_controller::{clock, config, quorum::settings};
use leeward_local::instance::{Error, Instance, addresses, config::node_name};

use leeward_quorum::{certificate, etcd::status, pin};

use super::judge::{self, Check, Life};
use crate::{
    belonging::{self, Belonging},
    bring_up, fleet, quorum,
};

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
    let belonging = match belonging::look(&instance) {
        Ok(belonging) => belonging,
        Err(error) => {
            let why = error.to_string();
            checks.push(Check::fail("quorum", why, "until then `leeward up` starts nothing"));
            return checks;
        }
    };
    for expected in expected(&instance, &belonging) {
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
    checks.extend(join_all(belonging.to_it.iter().map(|region| api(&instance, region))).await);
    checks.extend(members(&instance).await);
    let begun = instance.begun().into_iter();
    checks.extend(begun.flat_map(|begun| judge::left_behind(&belonging.to_another, begun)));
    let quorums = belonging.to_it.iter().map(|region| shown(&instance, region));
    checks.extend(join_all(quorums).await.into_iter().flatten());
    checks
}

/// The members of the quorum as they answer, where it is on etcd.
async fn members(instance: &Instance) -> Vec<Check> {
    let file = instance.layout().config(Some(quorum::asked_in(instance)), "serve");
    let Ok(serve) = config::read::<config::Serve>(&file) else {
        return vec![];
    };
    let config::Quorum::Etcd(etcd) = &serve.quorum else {
        return vec![];
    };
    let known = pin::read(&pin::path(&serve.data_dir)).unwrap_or_default();
    let asked = match settings(etcd, &serve, PATIENCE) {
        Ok(settings) => status::ask(&quorum::of(settings, known))
            .await
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let status = match asked {
        Ok(status) => status,
        Err(why) => return vec![Check::fail("quorum", why, "see the error")],
    };
    let places = instance
        .regions()
        .iter()
        .map(|region| Some(region.as_str()))
        .chain([None]);
    let named = places.filter_map(|place| {
        let (clients, _) = instance.member_addresses(place).ok()?;
        let name = format!("{} member", place.unwrap_or("witness"));
        Some((format!("https://{clients}"), name, instance.has_member(place)))
    });
    judge::members(&status, &named.collect::<Vec<_>>())
}

/// What a region's agent and the members of its quorum show each other, and what space and alarms the members tell of, where the quorum is on etcd.
async fn shown(instance: &Instance, region: &str) -> Option<Check> {
    let file = instance.layout().config(Some(region), "serve");
    // Without its configuration the agent does not run, which is said above.
    let serve: config::Serve = config::read(&file).ok()?;
    let config::Quorum::Etcd(etcd) = &serve.quorum else {
        return None;
    };
    let settings = match settings(etcd, &serve, PATIENCE) {
        Ok(settings) => settings,
        Err(error) => return judge::quorum(region, Err(error.to_string()), vec![], &file, 0),
    };
    let looked = certificate::look(&settings).await.map_err(|error| error.to_string());
    // Members that do not answer are processes that do not run, which is said above.
    let members = status::ask(&settings).await.map(|status| status.troubles());
    let now = i64::try_from(clock::wall_ms() / 1000).unwrap_or(i64::MAX);
    judge::quorum(
        region,
        looked.map(|all| all.into_iter().flatten().collect()),
        members.unwrap_or_default(),
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
fn expected(instance: &Instance, belonging: &Belonging) -> Vec<Expected> {
    let one = |name: String, listeners| Expected { name, listeners };
    let member = |region: Option<&str>| {
        let addresses = instance.member_addresses(region).ok();
        let (clients, members) = addresses.filter(|_| instance.has_member(region))?;
        let name = format!("{}-etcd", region.unwrap_or("witness"));
        Some(one(
            name,
            vec![("quorum's clients", clients), ("quorum's members", members)],
        ))
    };
    let of_witness = vec![
        ("witness", instance.witness_address()),
        ("page of metrics", instance.witness_metrics()),
    ];
    let mut all = vec![one("witness".into(), of_witness)];
    all.extend(member(None));
    for region in &belonging.to_it {
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
            ("page of metrics", addresses.metrics()),
        ];
        all.extend(member(Some(region)));
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
