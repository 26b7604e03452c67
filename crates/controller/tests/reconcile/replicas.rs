//! Two replicas of a region's agent in one cluster, as a Deployment runs them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use kube::api::{ListParams, Patch};
use leeward_api::{Cluster as ClusterResource, Operation, ProtectedApp, condition};
use leeward_controller::holder::Holder;
use leeward_testing::Cluster;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::resource::{condition_of, person_of, protect, protected};
use crate::stage::{LEASE, Region, Stage, until};

/// The pod whose agent wrote a cluster's status.
fn acts(cluster: &ClusterResource) -> Option<String> {
    let agent = cluster.status.as_ref()?.agent.as_deref()?;
    Some(agent.parse::<Holder>().ok()?.process)
}

fn is_ready(cluster: &ClusterResource) -> bool {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|c| c.type_ == condition::READY && c.status == "True")
}

/// Two replicas in west, of which the first one acts; what the east says to west reaches the second one.
async fn two(stage: &mut Stage) {
    stage.west.stop().await;
    stage.west.be_replica("leeward-a");
    stage.west.start();
    let clusters = stage.west.all::<ClusterResource>();
    let by =
        |pod: &'static str| move |cluster: &ClusterResource| acts(cluster).as_deref() == Some(pod) && is_ready(cluster);
    until(&clusters, "west", "the first one acts", by("leeward-a")).await;
    let second = stage.west.start_replica("leeward-b").await;
    let peer = Patch::Merge(json!({ "spec": { "peer": second } }));
    stage
        .east
        .all::<ClusterResource>()
        .patch("west", &person_of("kubectl-edit"), &peer)
        .await
        .unwrap();
}

pub(crate) async fn of_two_replicas_one_acts_and_the_other_one_takes_over_without_a_failover(cluster: Arc<Cluster>) {
    let mut stage = Stage::open(&cluster, "west").await;
    two(&mut stage).await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    let apps = stage.west.api::<ProtectedApp>();
    let before = until(&apps, "web", "protected", protected).await.status.unwrap();
    // East hears of west by the replica that does not act, and west of east by the one that does.
    let seen_in_east = stage.east.all::<ClusterResource>();
    until(&seen_in_east, "west", "heard of", is_ready).await;
    let clusters = stage.west.all::<ClusterResource>();
    until(&clusters, "east", "heard of", is_ready).await;
    // Whoever wrote is one: two would write their names over one another.
    let version = |resource: &ClusterResource| resource.metadata.resource_version.clone();
    let quiet = clusters.get("west").await.unwrap();
    tokio::time::sleep(LEASE).await;
    let later = clusters.get("west").await.unwrap();
    assert_eq!(
        (acts(&later).as_deref(), version(&later)),
        (Some("leeward-a"), version(&quiet))
    );
    // What is killed gives nothing back.
    stage.west.stop().await;
    let began = Instant::now();
    until(&clusters, "west", "the second one acts", |west| {
        acts(west).as_deref() == Some("leeward-b")
    })
    .await;
    let acts_after = began.elapsed();
    until(&clusters, "west", "and has the lease", is_ready).await;
    let holds_after = began.elapsed();
    eprintln!("with a lease of {LEASE:?} it acts after {acts_after:?} and has the lease after {holds_after:?}");
    until(&seen_in_east, "west", "heard of again", is_ready).await;
    let after = until(&apps, "web", "protected", protected).await.status.unwrap();
    assert_eq!((&after.active, after.generation), (&before.active, before.generation));
    assert!(no_operation(&stage.west).await && no_operation(&stage.east).await);
    // It does what an agent does.
    let change = Patch::Merge(json!({ "spec": { "failover": { "mode": "Manual" } } }));
    let changed = apps.patch("web", &person_of("kubectl-edit"), &change).await.unwrap();
    let generation = changed.metadata.generation;
    until(&apps, "web", "accepted", |app| {
        condition_of(app, condition::SERVING).is_some_and(|c| c.observed_generation == generation)
    })
    .await;
    stage.close().await;
}

async fn no_operation(region: &Region) -> bool {
    region
        .api::<Operation>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .is_empty()
}

/// The way to an API server, which can be cut.
struct Cable {
    address: SocketAddr,
    whole: watch::Sender<bool>,
}

impl Cable {
    async fn to(server: SocketAddr) -> Self {
        // The server's certificate names its address.
        let listener = TcpListener::bind((server.ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (whole, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let mut state = state.clone();
                if !*state.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(server).await?;
                    tokio::select! {
                        ended = copy_bidirectional(&mut from, &mut to) => ended.map(drop),
                        _ = state.changed() => Ok(()),
                    }
                });
            }
        });
        Self { address, whole }
    }
}

pub(crate) async fn an_outage_of_the_api_server_moves_nothing_between_replicas_or_regions(cluster: Arc<Cluster>) {
    let mut stage = Stage::open(&cluster, "west").await;
    let cable = Cable::to(stage.west.api_server()).await;
    stage.west.reach_api_at(cable.address);
    two(&mut stage).await;
    protect(&stage.west, &stage.namespace, json!([])).await;
    let apps = stage.west.api::<ProtectedApp>();
    let before = until(&apps, "web", "protected", protected).await.status.unwrap();
    let seen_in_east = stage.east.all::<ClusterResource>();
    cable.whole.send(false).unwrap();
    // Longer than any lease.
    tokio::time::sleep(2 * LEASE).await;
    assert!(
        is_ready(&seen_in_east.get("west").await.unwrap()),
        "its agent is heard of"
    );
    cable.whole.send(true).unwrap();
    // What is changed then is seen by the one that acted before.
    let change = Patch::Merge(json!({ "spec": { "failover": { "mode": "Manual" } } }));
    let changed = apps.patch("web", &person_of("kubectl-edit"), &change).await.unwrap();
    let generation = changed.metadata.generation;
    let after = until(&apps, "web", "accepted", |app| {
        condition_of(app, condition::SERVING).is_some_and(|c| c.observed_generation == generation)
    })
    .await
    .status
    .unwrap();
    assert_eq!(after.active, before.active);
    assert!(no_operation(&stage.west).await && no_operation(&stage.east).await);
    let west = stage.west.all::<ClusterResource>().get("west").await.unwrap();
    assert_eq!(acts(&west).as_deref(), Some("leeward-a"));
    stage.close().await;
}
