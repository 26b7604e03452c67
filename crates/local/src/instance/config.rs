//! The configuration files that an instance writes for its processes, and where everything lies in its directory.
//!
//! Pure: from the instance's addresses and directory to values. [`Layout`] knows every path, so that no other module joins one.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::addresses::{Octet, RegionAddresses};
use super::quorum::{Endpoints, Member};
use crate::{apiserver, node, process};

/// Where the files of an instance lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout under this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The instance's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the instance is; written last, so that its presence says that all else is complete.
    pub fn state(&self) -> PathBuf {
        self.dir.join("instance.json")
    }

    /// Written first: says that the directory is an instance's, complete or not.
    pub fn marker(&self) -> PathBuf {
        self.dir.join(".leeward-instance")
    }

    /// The processes that were started.
    pub fn processes(&self) -> PathBuf {
        self.dir.join("processes.json")
    }

    /// The file that a command locks while it changes the instance.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The witness's directory.
    pub fn witness(&self) -> PathBuf {
        self.dir.join("witness")
    }

    /// A region's directory.
    pub fn region(&self, region: &str) -> PathBuf {
        self.dir.join("regions").join(region)
    }

    /// A region's kubeconfig.
    pub fn kubeconfig(&self, region: &str) -> PathBuf {
        self.region(region).join("kubeconfig")
    }

    /// A file among a region's certificates, keys and tokens.
    pub fn pki(&self, region: &str, file: &str) -> PathBuf {
        self.region(region).join("pki").join(file)
    }

    /// The directory of a region's volumes.
    pub fn volumes(&self, region: &str) -> PathBuf {
        self.region(region).join("volumes")
    }

    /// What a process writes to its standard output and error; `region` is none for the witness.
    pub fn log(&self, region: Option<&str>, process: &str) -> PathBuf {
        let home = region.map_or_else(|| self.witness(), |region| self.region(region));
        home.join("logs").join(format!("{process}.log"))
    }

    /// The configuration file of a process.
    pub fn config(&self, region: Option<&str>, process: &str) -> PathBuf {
        let home = region.map_or_else(|| self.witness(), |region| self.region(region));
        home.join(format!("{process}.json"))
    }
}

/// The file of the key that specifications are encrypted with; the witness has none.
pub const SPEC_KEY: &str = "spec.key";

/// A region as an instance knows it.
#[derive(Debug, Clone, Copy)]
pub struct Region<'a> {
    /// Its name, which is also its cluster's.
    pub name: &'a str,
    /// Its addresses.
    pub addresses: RegionAddresses,
}

/// The name of node `index` of a region.
pub fn node_name(region: &str, index: u8) -> String {
    format!("{region}-node-{index}")
}

/// For `leeward serve`.
#[derive(Debug, Serialize)]
pub struct Serve {
    region: String,
    cluster: String,
    instance_dir: PathBuf,
    kubeconfig: PathBuf,
    data_dir: PathBuf,
    registry_dir: PathBuf,
    registry_address: String,
    ingress_address: String,
    peer_address: String,
    gate_address: String,
    metrics_address: String,
    peer_ca: PathBuf,
    peer_cert: PathBuf,
    peer_key: PathBuf,
    quorum: Quorum,
    spec_keys: Vec<PathBuf>,
    witness_url: String,
    lease_ttl_ms: u64,
    kubelet_token: PathBuf,
}

/// Where the quorum is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Quorum {
    Embedded { url: String },
    Etcd(Endpoints),
}

/// For `leeward witness`.
#[derive(Debug, Serialize)]
pub struct Witness {
    address: String,
    metrics_address: String,
    data_dir: PathBuf,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    regions: Vec<Peer>,
    /// Whether it keeps the embedded quorum.
    quorum: bool,
}

/// A region as the witness sees it.
#[derive(Debug, Serialize)]
pub struct Peer {
    name: String,
    peer_url: String,
}

/// For `leeward local api`: the configuration of a region's API process.
pub fn api(layout: &Layout, region: Region<'_>) -> process::ApiConfig {
    process::ApiConfig {
        server: apiserver::Config {
            region: region.name.to_owned(),
            address: region.addresses.api(),
            data_dir: layout.region(region.name).join("api"),
            tls_cert: layout.pki(region.name, "api.crt"),
            tls_key: layout.pki(region.name, "api.key"),
            ca_cert: Some(layout.pki(region.name, "ca.crt")),
            tokens: layout.pki(region.name, "tokens.json"),
            kubelet_token: layout.pki(region.name, "kubelet.token"),
            service_cidr: region.addresses.service_cidr(),
        },
        volumes_dir: layout.volumes(region.name),
    }
}

/// For `leeward local node`: the configuration of a region's node with this index.
pub fn node(layout: &Layout, region: Region<'_>, index: u8) -> node::Config {
    let name = node_name(region.name, index);
    node::Config {
        region: region.name.to_owned(),
        dir: layout.region(region.name).join("nodes").join(&name),
        name,
        kubeconfig: layout.kubeconfig(region.name),
        kubelet_address: region.addresses.kubelet(index),
        kubelet_token: layout.pki(region.name, "kubelet.token"),
        pod_cidr: region.addresses.pod_cidr(index),
        registry: format!("http://{}", region.addresses.registry()),
    }
}

impl Serve {
    /// The configuration of a region's agent.
    pub fn new(layout: &Layout, region: Region<'_>, octet: Octet, lease_ttl_ms: u64, members: &[Member]) -> Self {
        let witness = format!("https://{}", octet.witness());
        Self {
            region: region.name.to_owned(),
            cluster: region.name.to_owned(),
            instance_dir: layout.dir().to_owned(),
            kubeconfig: layout.kubeconfig(region.name),
            data_dir: layout.region(region.name).join("agent"),
            registry_dir: layout.region(region.name).join("registry"),
            registry_address: region.addresses.registry().to_string(),
            ingress_address: region.addresses.ingress().to_string(),
            peer_address: region.addresses.peer().to_string(),
            gate_address: region.addresses.gate().to_string(),
            metrics_address: region.addresses.metrics().to_string(),
            peer_ca: layout.pki(region.name, "peer-ca.crt"),
            peer_cert: layout.pki(region.name, "peer.crt"),
            peer_key: layout.pki(region.name, "peer.key"),
            quorum: match members {
                [] => Quorum::Embedded { url: witness.clone() },
                members => Quorum::Etcd(Endpoints::new(members, region.name)),
            },
            spec_keys: vec![layout.pki(region.name, SPEC_KEY)],
            witness_url: witness,
            lease_ttl_ms,
            kubelet_token: layout.pki(region.name, "kubelet.token"),
        }
    }
}

impl Witness {
    /// The configuration of the witness of these regions.
    pub fn new<'a>(layout: &Layout, octet: Octet, regions: impl Iterator<Item = Region<'a>>, quorum: bool) -> Self {
        let home = layout.witness();
        Self {
            address: octet.witness().to_string(),
            metrics_address: octet.witness_metrics().to_string(),
            data_dir: home.join("data"),
            ca: home.join("pki/peer-ca.crt"),
            cert: home.join("pki/peer.crt"),
            key: home.join("pki/peer.key"),
            regions: regions
                .map(|region| Peer {
                    name: region.name.to_owned(),
                    peer_url: format!("https://{}", region.addresses.peer()),
                })
                .collect(),
            quorum,
        }
    }
}

/// The kubeconfig by which a person or Leeward's agent administers a region, as YAML would have it.
pub fn kubeconfig(region: Region<'_>, ca_pem: &str, token: &str) -> serde_json::Value {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let name = region.name;
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {
            "server": format!("https://{}", region.addresses.api()),
            "certificate-authority-data": STANDARD.encode(ca_pem),
        }}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_told_addresses_and_files_of_its_own_region() {
        let octet = Octet(5);
        let region = Region {
            name: "west",
            addresses: octet.region(1).unwrap(),
        };
        let serve = serde_json::to_value(Serve::new(&Layout::new("/d"), region, octet, 3000, &[])).unwrap();
        assert_eq!(serve["registry_address"], "127.5.16.2:5000");
        assert_eq!(serve["metrics_address"], "127.5.16.4:9464");
        assert_eq!(serve["quorum"]["embedded"]["url"], "https://127.5.0.1:7443");
        assert_eq!(serve["kubeconfig"], "/d/regions/west/kubeconfig");
        assert_eq!(serve["lease_ttl_ms"], 3000);
    }

    #[test]
    fn kube_reads_the_kubeconfig() {
        let region = Region {
            name: "west",
            addresses: Octet(5).region(1).unwrap(),
        };
        let text = serde_saphyr::to_string(&kubeconfig(region, "CA", "secret")).unwrap();
        let config = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("west"));
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.5.16.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("Q0E="));
    }
}
