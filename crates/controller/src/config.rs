//! The configuration files of the agent and of the witness.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use leeward_core::lease::Delays;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("configuration {path}: {reason}")]
pub struct ConfigError {
    path: PathBuf,
    reason: String,
}

/// What `leeward serve` is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Serve {
    /// The failure domain.
    pub region: String,
    /// The name of this cluster's `Cluster` resource.
    pub cluster: String,
    /// How to reach this cluster's Kubernetes API.
    pub kubeconfig: PathBuf,
    /// Where the agent keeps its state.
    pub data_dir: PathBuf,
    /// Where the region's images are.
    pub registry_dir: PathBuf,
    /// Where the registry is served.
    pub registry_address: SocketAddr,
    /// Where users' requests enter.
    pub ingress_address: SocketAddr,
    /// Where other agents reach this one.
    pub peer_address: SocketAddr,
    /// Where the gates of this region's pods ask; none where there are no gates.
    #[serde(default)]
    pub gate_address: Option<SocketAddr>,
    /// The authority that signed the peers' certificates, PEM.
    pub peer_ca: PathBuf,
    /// This agent's certificate, PEM.
    pub peer_cert: PathBuf,
    /// Its key, PEM.
    pub peer_key: PathBuf,
    /// What the tokens of this region's gates are derived from; what `peer_key` holds at the start where nothing is said, so that they change at a
    /// restart after it was replaced.
    #[serde(default)]
    pub gate_key: Option<PathBuf>,
    /// The quorum.
    pub quorum: Quorum,
    /// The keys that specifications are encrypted with in the quorum, a file each, the same in every region and not with the witness: the first
    /// one encrypts, all of them decrypt. Where there is none, they are not encrypted.
    #[serde(default)]
    pub spec_keys: Vec<PathBuf>,
    /// The witness.
    pub witness_url: String,
    /// A lease's time to live, in milliseconds.
    pub lease_ttl_ms: u64,
    /// How many applications may be moving at the same time: off drained clusters, as far as this agent decides it, and into this one. The
    /// roles of all that a lost cluster had move at once; this many of them are started at a time.
    #[serde(default = "moves_together")]
    pub moves_together: NonZeroUsize,
    /// The token of the local nodes' kubelet endpoint, where volumes are frozen through it.
    #[serde(default)]
    pub kubelet_token: Option<PathBuf>,
    /// Test builds only: whatever the leases say, nothing is fenced.
    #[cfg(feature = "unfenced")]
    #[serde(default)]
    pub unfenced: bool,
}

/// Where the quorum is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Quorum {
    /// The stand-in in the witness's process.
    Embedded {
        /// `https://HOST:PORT` of the witness.
        url: String,
    },
    /// etcd, with a member in each failure domain.
    Etcd(Etcd),
}

/// How etcd is reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// `https://HOST:PORT` of each member, this region's own first.
    pub endpoints: Vec<String>,
    /// What every key of this installation begins with; it ends with a slash.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// The members' election time-out, in milliseconds; etcd's own default where nothing is said.
    #[serde(default = "election_ms")]
    pub election_ms: u64,
    /// The authority that signed the members' certificates, PEM; the peers' where nothing is said.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The certificate to show, PEM; the one for peers where nothing is said.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// A user of etcd's own authentication.
    #[serde(default)]
    pub user: Option<String>,
    /// The file with that user's password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

impl Quorum {
    /// What a renewal may have to wait for.
    pub fn delays(&self) -> Delays {
        match self {
            Self::Embedded { .. } => Delays::WITHOUT_ELECTIONS,
            Self::Etcd(etcd) => Delays::with_election(Duration::from_millis(etcd.election_ms)),
        }
    }
}

fn moves_together() -> NonZeroUsize {
    const TOGETHER: NonZeroUsize = NonZeroUsize::new(32).unwrap();
    TOGETHER
}

fn election_ms() -> u64 {
    1000
}

fn prefix() -> String {
    "leeward/".into()
}

/// What `leeward witness` is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Witness {
    /// Where it is served.
    pub address: SocketAddr,
    /// Where it keeps the quorum's file.
    pub data_dir: PathBuf,
    /// Whether it keeps the embedded quorum; not where the quorum is on etcd.
    #[serde(default = "yes")]
    pub quorum: bool,
    /// The authority that signed the peers' certificates, PEM.
    pub ca: PathBuf,
    /// Its certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

fn yes() -> bool {
    true
}

/// Reads a configuration file.
///
/// # Errors
/// When it cannot be read or does not have the expected form.
pub fn read<T: DeserializeOwned>(path: &std::path::Path) -> Result<T, ConfigError> {
    let error = |reason: String| ConfigError {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| error(e.to_string()))
}
