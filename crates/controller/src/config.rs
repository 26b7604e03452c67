//! The configuration files of the agent and of the witness.

use std::{net::SocketAddr, path::PathBuf};

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
    /// The authority that signed the peers' certificates, PEM.
    pub peer_ca: PathBuf,
    /// This agent's certificate, PEM.
    pub peer_cert: PathBuf,
    /// Its key, PEM.
    pub peer_key: PathBuf,
    /// The quorum.
    pub quorum_url: String,
    /// The witness.
    pub witness_url: String,
    /// A lease's time to live, in milliseconds.
    pub lease_ttl_ms: u64,
    /// The token of the local nodes' kubelet endpoint, where volumes are frozen through it.
    #[serde(default)]
    pub kubelet_token: Option<PathBuf>,
    /// Test builds only: whatever the leases say, nothing is fenced.
    #[cfg(feature = "unfenced")]
    #[serde(default)]
    pub unfenced: bool,
}

/// What `leeward witness` is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Witness {
    /// Where it is served.
    pub address: SocketAddr,
    /// Where it keeps the quorum's file.
    pub data_dir: PathBuf,
    /// The authority that signed the peers' certificates, PEM.
    pub ca: PathBuf,
    /// Its certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
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
