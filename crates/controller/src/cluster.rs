//! `Cluster` resources: where the other clusters are, and what is seen of them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use leeward_api::{Cluster, ClusterStatus, FIELD_MANAGER, condition};
use leeward_core::name::ClusterName;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Peer},
    cache::Cache,
    clock,
};

/// The other clusters, from this cluster's resources.
pub fn peers(cache: &Cache, me: &ClusterName) -> Vec<Peer> {
    let mut peers: Vec<_> = cache
        .clusters
        .state()
        .into_iter()
        .filter(|cluster| cluster.name_any() != me.as_str())
        .map(|cluster| Peer {
            cluster: ClusterName::new(cluster.name_any()),
            url: format!("https://{}", cluster.spec.peer),
            ingress: cluster.spec.ingress.clone(),
        })
        .collect();
    peers.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    peers
}

/// Where a cluster's edge is.
pub fn ingress(cache: &Cache, cluster: &ClusterName) -> Option<SocketAddr> {
    let found = cache
        .clusters
        .state()
        .into_iter()
        .find(|c| c.name_any() == cluster.as_str())?;
    found.spec.ingress.parse().ok()
}

/// Keeps the peers and the resources' status up to date until `stop`.
pub async fn run(agent: Arc<Agent>, client: Client, cache: Cache, stop: CancellationToken) {
    let mut changes = agent.changes();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => { changes.borrow_and_update(); }
            _ = ticks.tick() => {}
        }
        // An empty list may only mean that the API has not answered yet; what was known goes on.
        let peers = peers(&cache, &agent.me);
        if !peers.is_empty() {
            agent.set_peers(peers);
        }
        for cluster in cache.clusters.state() {
            let status = status(&agent, &cluster);
            if cluster.status.as_ref() == Some(&status) {
                continue;
            }
            let patch = json!({
                "apiVersion": "leeward.dev/v1alpha1",
                "kind": "Cluster",
                "metadata": { "name": cluster.name_any() },
                "status": status,
            });
            let api: Api<Cluster> = Api::all(client.clone());
            let params = PatchParams::apply(FIELD_MANAGER).force();
            if let Err(error) = api
                .patch_status(&cluster.name_any(), &params, &Patch::Apply(&patch))
                .await
            {
                tracing::debug!(cluster = cluster.name_any(), %error, "its status was not written");
            }
        }
    }
}

fn status(agent: &Agent, cluster: &Cluster) -> ClusterStatus {
    let name = ClusterName::new(cluster.name_any());
    let known = agent.known();
    let now = clock::now();
    let holders = agent.holders();
    let lease = match known.sights.get(&name) {
        None => "Waiting",
        Some(sight) if sight.over(&agent.timing, now) => "Lost",
        Some(sight) if sight.is_of_another(holders.get(&name)) => "Waiting",
        Some(_) => "Held",
    };
    let seen = name == agent.me || !agent.unseen().contains(&name);
    let (reason, message) = match (lease, seen) {
        ("Held", true) => ("Reporting", "its agent reports and holds its lease"),
        ("Held", false) => ("Silent", "its agent is not heard of here; its lease is not over"),
        ("Waiting", true) => (
            "Waiting",
            "its agent has begun and waits for the lease, until the one of the agent before it has ended: what it serves with a writer \
             role is fenced",
        ),
        (_, true) => (
            "NoLease",
            "its agent reports and has no lease: what it serves with a writer role is fenced",
        ),
        (_, false) => ("Silent", "its agent is not heard of and its lease is over"),
    };
    let mut status = cluster.status.clone().unwrap_or_default();
    status.lease = Some(lease.to_owned());
    status.agent = Some(agent.holder.clone());
    let wall = jiff::Timestamp::from_millisecond(clock::wall_ms() as i64).unwrap_or_default();
    let ready = lease == "Held" && seen;
    let generation = cluster.metadata.generation;
    condition::set(
        &mut status.conditions,
        condition::READY,
        ready,
        reason,
        message,
        generation,
        wall,
    );
    status
}
