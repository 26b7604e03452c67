//! Starts an instance and makes its regions know each other: Kubernetes first, then the kinds and the `Cluster`s, then the
//! agents. Each step may be repeated, so a start that was cut short is finished by the next one.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use futures::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use leeward_api::{Cluster, FIELD_MANAGER, condition};
use leeward_controller::holder::Holder;
use leeward_local::instance::Instance;
use serde_json::json;

use crate::{READY_LIMIT, belonging};

/// A region that is ready.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    /// Its name.
    pub(crate) region: String,
    /// From the start of its first process until its `Cluster` was Ready, in milliseconds.
    pub(crate) ready_ms: u64,
}

/// A client of a region's API.
pub(crate) async fn client(instance: &Instance, region: &str) -> anyhow::Result<Client> {
    let path = instance.kubeconfig(region)?;
    client_of(&path).await
}

/// A client by a kubeconfig.
pub(crate) async fn client_of(path: &std::path::Path) -> anyhow::Result<Client> {
    // The library's errors say their causes themselves, and the path.
    let fault = |error: &dyn std::error::Error| anyhow!("kubeconfig {}: {}", path.display(), innermost(error));
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| fault(&error))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.map_err(|error| fault(&error))?;
    Client::try_from(config).map_err(|error| fault(&error))
}

/// The cause behind all others.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Starts everything, and waits until every region is Ready. What is not of the quorum's newest incarnation stays off, and that is said.
pub(crate) async fn bring_up(instance: &Instance, progress: impl Fn(&str)) -> anyhow::Result<Vec<Ready>> {
    let began = Instant::now();
    let belonging = belonging::look(instance)?;
    let regions = &belonging.to_it;
    instance.start_witness()?;
    progress("the witness runs");
    for region in regions {
        instance.start_kubernetes(region)?;
    }
    try_join_all(regions.iter().map(|region| introduce(instance, region))).await?;
    progress("the Kubernetes APIs are ready");
    for region in regions {
        instance.start_agent(region)?;
    }
    let ready = try_join_all(regions.iter().map(|region| wait_ready(instance, region, began))).await?;
    progress("the agents hold their leases");
    for line in belonging::told(instance, &belonging) {
        progress(&line);
    }
    Ok(ready)
}

/// Brings one region back.
pub(crate) async fn bring_back(instance: &Instance, region: &str) -> anyhow::Result<Ready> {
    let began = Instant::now();
    instance.start_region(region)?;
    wait_ready(instance, region, began).await
}

/// Gives a region the kinds and the `Cluster` of every region.
async fn introduce(instance: &Instance, region: &str) -> anyhow::Result<()> {
    instance.wait_api_ready(region, READY_LIMIT).await?;
    let client = client(instance, region).await?;
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in leeward_api::crds() {
        let name = definition.name_any();
        definitions
            .patch(&name, &params, &Patch::Apply(&definition))
            .await
            .with_context(|| format!("CRD {name}"))?;
    }
    let clusters: Api<Cluster> = Api::all(client);
    for name in instance.regions() {
        let addresses = instance.addresses(name)?;
        let cluster = json!({
            "apiVersion": "leeward.dev/v1alpha1",
            "kind": "Cluster",
            "metadata": { "name": name },
            "spec": {
                "region": name,
                "ingress": addresses.ingress().to_string(),
                "registry": addresses.registry().to_string(),
                "peer": addresses.peer().to_string(),
            },
        });
        apply_cluster(&clusters, name, &params, &cluster).await?;
    }
    Ok(())
}

/// The kinds were defined a moment ago; a real API server may need another one to serve them.
async fn apply_cluster(
    clusters: &Api<Cluster>,
    name: &str,
    params: &PatchParams,
    cluster: &serde_json::Value,
) -> anyhow::Result<()> {
    let end = Instant::now() + READY_LIMIT;
    loop {
        match clusters.patch(name, params, &Patch::Apply(cluster)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error).with_context(|| format!("Cluster {name}")),
        }
    }
}

async fn wait_ready(instance: &Instance, region: &str, began: Instant) -> anyhow::Result<Ready> {
    let clusters: Api<Cluster> = Api::all(client(instance, region).await?);
    // An agent that was killed is followed by one that waits for the end of its lease.
    let limit = READY_LIMIT + instance.lease_ttl();
    let end = began + limit;
    loop {
        let processes = instance.processes()?;
        let Some(agent) = processes
            .iter()
            .find(|process| process.name == format!("{region}-serve"))
        else {
            bail!(
                "the agent of {region} has ended; see {}",
                instance.layout().log(Some(region), "serve").display()
            );
        };
        if let Ok(cluster) = clusters.get(region).await
            && is_ready(&cluster, region, agent.pid)
        {
            return Ok(Ready {
                region: region.to_owned(),
                ready_ms: began.elapsed().as_millis() as u64,
            });
        }
        if Instant::now() > end {
            bail!(
                "region {region} was not ready within {} s; see the logs in {}",
                limit.as_secs(),
                instance.layout().region(region).join("logs").display()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether the agent that runs as this process says so; what its predecessor said does not count.
fn is_ready(cluster: &Cluster, region: &str, pid: i32) -> bool {
    let Some(status) = &cluster.status else { return false };
    let by = status.agent.as_deref().unwrap_or_default();
    let runs = |by: Holder| by.cluster.as_str() == region && by.process == pid.to_string();
    by.parse().is_ok_and(runs)
        && status
            .conditions
            .iter()
            .any(|c| c.type_ == condition::READY && c.status == "True")
}

#[cfg(test)]
mod tests {
    use leeward_api::Cluster;
    use serde_json::json;

    use super::is_ready;

    #[test]
    fn a_region_is_ready_when_the_agent_that_runs_says_so_not_the_one_before_it() {
        let cluster = |agent: &str, ready: &str| -> Cluster {
            let condition = json!({"type": "Ready", "status": ready, "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            serde_json::from_value(json!({"apiVersion": "leeward.dev/v1alpha1", "kind": "Cluster",
                "metadata": {"name": "west"},
                "spec": {"region": "west", "ingress": "a:1", "registry": "a:2", "peer": "a:3"},
                "status": {"agent": agent, "conditions": [condition]}}))
            .unwrap()
        };
        assert!(is_ready(&cluster("west/42/1700", "True"), "west", 42));
        for (agent, ready) in [
            ("west/42/1700", "False"),
            ("west/41/1699", "True"),
            ("west/421/1", "True"),
            ("", "True"),
        ] {
            assert!(!is_ready(&cluster(agent, ready), "west", 42), "{agent} {ready}");
        }
    }
}
