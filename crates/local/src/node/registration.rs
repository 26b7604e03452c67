//! Tells the API that the node is there: the Node object once, its lease every second.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node as Object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};

use super::{Config, Node};

/// Where nodes renew their leases.
const LEASES: &str = "kube-node-lease";
/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(1);
/// For how long it counts.
const LEASE_SECONDS: i32 = 2;
/// Every so many renewals the conditions are written again, in case somebody else changed them.
const REFRESH: u32 = 15;

/// Registers and renews for as long as the node lives.
pub(super) async fn keep(node: Arc<Node>) {
    let since = Timestamp::now();
    let mut round = 0_u32;
    let mut renewed = tokio::time::Instant::now();
    let mut away = false;
    let mut tick = tokio::time::interval(RENEW);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let late = renewed.elapsed() >= Duration::from_secs(LEASE_SECONDS.unsigned_abs().into());
        if round == 0 || late || round.is_multiple_of(REFRESH) {
            match register(&node, since).await {
                Ok(()) => round = round.max(1),
                Err(error) => {
                    // At the beginning the API may be a moment later than its nodes.
                    if round > 0 && !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "the node cannot be registered");
                    }
                    round = 0;
                    tick.reset_after(Duration::from_millis(100));
                    continue;
                }
            }
        }
        match renew(&node).await {
            Ok(()) => {
                if std::mem::take(&mut away) {
                    let after_s = renewed.elapsed().as_secs();
                    tracing::info!(after_s, "the node's lease is renewed again");
                }
                renewed = tokio::time::Instant::now();
                round = round.wrapping_add(1).max(1);
            }
            // Said once: the API is away, as a rule, and everything else waits for it too.
            Err(error) if !away => {
                away = true;
                tracing::warn!(%error, "the node's lease cannot be renewed");
            }
            Err(_) => {}
        }
    }
}

async fn register(node: &Node, since: Timestamp) -> Result<(), kube::Error> {
    let api: Api<Object> = Api::all(node.client.clone());
    let name = &node.config.name;
    let wanted = object(&node.config);
    if api.get_opt(name).await?.is_none() {
        let created: Object = serde_json::from_value(wanted.clone()).map_err(kube::Error::SerdeError)?;
        match api.create(&PostParams::default(), &created).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
    } else {
        let labels = json!({"metadata": {"labels": wanted["metadata"]["labels"]}, "spec": wanted["spec"]});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&labels)).await?;
    }
    let status = json!({"status": status(&node.config, since, Timestamp::now())});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

async fn renew(node: &Node) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(node.client.clone(), LEASES);
    let name = &node.config.name;
    let renewal = json!({"spec": {"renewTime": MicroTime(Timestamp::now())}});
    let answer = api.patch(name, &PatchParams::default(), &Patch::Merge(&renewal)).await;
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let namespaces: Api<Namespace> = Api::all(node.client.clone());
    if namespaces.get_opt(LEASES).await?.is_none() {
        let namespace =
            serde_json::from_value(json!({"metadata": {"name": LEASES}})).map_err(kube::Error::SerdeError)?;
        // Another node may have been faster.
        let _ = namespaces.create(&PostParams::default(), &namespace).await;
    }
    let lease = json!({"metadata": {"name": name}, "spec": {
        "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": MicroTime(Timestamp::now())}});
    let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &lease).await.map(drop)
}

fn object(config: &Config) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": config.name, "labels": {
            "topology.kubernetes.io/region": config.region,
            "topology.kubernetes.io/zone": config.region,
            "kubernetes.io/hostname": config.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture(),
        }},
        "spec": {"podCIDR": config.pod_cidr, "podCIDRs": [config.pod_cidr], "providerID": format!("leeward://{}/{}", config.region, config.name)},
    })
}

fn status(config: &Config, since: Timestamp, now: Timestamp) -> Value {
    let resources = json!({
        "cpu": std::thread::available_parallelism().map_or(1, std::num::NonZero::get).to_string(),
        "memory": format!("{}Ki", memory_bytes() / 1024),
        "ephemeral-storage": format!("{}Ki", disk_bytes(&config.dir) / 1024),
        "pods": "110",
    });
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": Time(now), "lastTransitionTime": Time(since)})
    };
    json!({
        "capacity": resources,
        "allocatable": resources,
        "addresses": [
            {"type": "InternalIP", "address": config.kubelet_address.ip().to_string()},
            {"type": "Hostname", "address": config.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.kubelet_address.port()}},
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "not watched in a local region"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "not watched in a local region"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "not watched in a local region"),
            condition("Ready", "True", "KubeletReady", "the node's process runs and renews its lease"),
        ],
        "nodeInfo": {
            "architecture": architecture(),
            "bootID": since.to_string(),
            "containerRuntimeVersion": concat!("leeward://", env!("CARGO_PKG_VERSION")),
            "kernelVersion": read("/proc/sys/kernel/osrelease"),
            "kubeProxyVersion": "",
            "kubeletVersion": concat!("v1.36.0+leeward-", env!("CARGO_PKG_VERSION")),
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": "local region",
            "systemUUID": "",
        },
    })
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The memory of this machine in bytes.
pub(super) fn memory_bytes() -> u64 {
    let text = read("/proc/meminfo");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// The size in bytes of the file system that the node keeps its files on; zero while that cannot be asked.
fn disk_bytes(dir: &Path) -> u64 {
    statvfs(dir).map_or(0, |stat| stat.blocks() * stat.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_says_where_it_is_and_what_it_has() {
        let config: Config = serde_json::from_value(json!({
            "region": "west", "name": "west-a", "dir": "/d", "kubeconfig": "/k", "kubelet_address": "127.1.16.10:10250",
            "kubelet_token": "/t", "pod_cidr": "127.1.17.0/24", "registry": "http://127.1.16.2:5000"}))
        .unwrap();
        let node = object(&config);
        assert_eq!(node["metadata"]["labels"]["topology.kubernetes.io/region"], "west");
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let status = status(&config, now, now);
        assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
        assert_eq!(status["addresses"][0]["address"], "127.1.16.10");
        // What is sent is what the typed object reads back.
        let whole: Object = serde_json::from_value(json!({"metadata": node["metadata"], "status": status})).unwrap();
        assert_eq!(whole.status.unwrap().conditions.unwrap().len(), 4);
        assert!(memory_bytes() > 1 << 20);
        assert!(disk_bytes(Path::new("/")) > 1 << 20);
    }
}
