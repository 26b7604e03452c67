//! The configuration files of the agent and of the witness.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

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
    /// How to reach this cluster's Kubernetes API; by the service account of the pod that it runs in where nothing is said.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
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
    /// What gates are told to ask, `HOST:PORT`: a name where the agent has replicas or listens on all addresses; `gate_address` where nothing
    /// is said.
    #[serde(default)]
    pub gate_url: Option<String>,
    /// The pod that it runs in, by which its name among the replicas of a region's agent is known. `POD_NAME` where nothing is said.
    #[serde(default)]
    pub pod_name: Option<String>,
    /// Where other replicas of this region's agent reach this one, each at a port that it listens on. `POD_IP` where nothing is said; where there is
    /// none, it is the only agent of its region.
    #[serde(default)]
    pub pod_ip: Option<IpAddr>,
    /// Where `/metrics`, `/livez` and `/readyz` are served, plain HTTP; none where they are not.
    #[serde(default)]
    pub metrics_address: Option<SocketAddr>,
    /// Where traces of operations are sent by OTLP over HTTP, `http://HOST:PORT/v1/traces`; where nothing is said, what the environment variables
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and `OTEL_EXPORTER_OTLP_ENDPOINT` say, else nowhere.
    #[serde(default)]
    pub traces_url: Option<String>,
    /// Where the API server asks whether a pod is to run behind its gate; none where the webhook is not used. It shows the peer certificate, which
    /// then has the name `leeward-webhook.NAMESPACE.svc`.
    #[serde(default)]
    pub webhook_address: Option<SocketAddr>,
    /// The image that the webhook brings gates from; where nothing is said, what the environment variable `LEEWARD_IMAGE` says.
    #[serde(default)]
    pub gate_image: Option<String>,
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
    /// Whether the nodes pull every image from the region's own registry, as local regions do: then an image that is not there is lacking, and whoever
    /// reaches the registry pushes to it; else it only reads. Yes where
    /// a kubeconfig is given; the nodes of a cluster that the agent runs in pull images from where they are named.
    #[serde(default)]
    pub images_from_registry: Option<bool>,
    /// Whether the directories of volumes are this machine's, at the paths that PersistentVolumes name. Yes where a kubeconfig is given; in a pod
    /// such a path is another one's.
    #[serde(default)]
    pub volumes_are_here: Option<bool>,
    /// The token of the local nodes' kubelet endpoint, where volumes are frozen through it.
    #[serde(default)]
    pub kubelet_token: Option<PathBuf>,
    /// Test builds only: whatever the leases say, nothing is fenced.
    #[cfg(feature = "unfenced")]
    #[serde(default)]
    pub unfenced: bool,
}

/// An address that says nothing to others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAddress {
    /// It is listened on, and leads nowhere.
    #[error(
        "{field}: {address} is every address of this machine, which leads others nowhere; give {instead} a name or address at which they reach it"
    )]
    Everywhere {
        /// Where it is said.
        field: &'static str,
        /// The address.
        address: String,
        /// Where to say another one.
        instead: &'static str,
    },
    /// It is not `HOST:PORT`.
    #[error("{field}: {text:?} is not HOST:PORT")]
    Malformed {
        /// Where it is said.
        field: &'static str,
        /// What is said.
        text: String,
    },
    /// The environment says something that is no address.
    #[error("POD_IP: {0:?} is not an IP address; take it from the field status.podIP")]
    PodIp(String),
}

impl Serve {
    /// Where gates are told to ask; none where there are none.
    ///
    /// # Errors
    /// What is said leads nowhere.
    pub fn asked_by_gates(&self) -> Result<Option<String>, NotAnAddress> {
        let Some(listens) = self.gate_address else {
            return Ok(None);
        };
        let Some(said) = &self.gate_url else {
            let told = told("gate_address", "gate_url", &listens.to_string())?;
            return Ok(Some(told));
        };
        let bare = said.strip_prefix("https://").unwrap_or(said).trim_end_matches('/');
        told("gate_url", "gate_url", bare).map(Some)
    }

    /// Whether an image that is not in the region's registry is lacking.
    pub fn images_from_registry(&self) -> bool {
        self.images_from_registry.unwrap_or(self.kubeconfig.is_some())
    }

    /// Whether the directories of volumes can be read where this runs.
    pub fn volumes_are_here(&self) -> bool {
        self.volumes_are_here.unwrap_or(self.kubeconfig.is_some())
    }

    /// Takes from the environment what the file does not say of the pod.
    ///
    /// # Errors
    /// `POD_IP` is no address.
    pub fn with_pod(mut self, name: Option<String>, ip: Option<String>) -> Result<Self, NotAnAddress> {
        self.pod_name = self.pod_name.or(name.filter(|name| !name.is_empty()));
        if let Some(ip) = ip.filter(|ip| !ip.is_empty() && self.pod_ip.is_none()) {
            self.pod_ip = Some(ip.parse().map_err(|_| NotAnAddress::PodIp(ip))?);
        }
        Ok(self)
    }
}

/// What others are told: `HOST:PORT` that leads somewhere.
fn told(field: &'static str, instead: &'static str, text: &str) -> Result<String, NotAnAddress> {
    let malformed = || NotAnAddress::Malformed {
        field,
        text: text.to_owned(),
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let bare = host.trim_matches(['[', ']']);
    let port: u16 = port.parse().map_err(|_| malformed())?;
    if bare.is_empty() || port == 0 || bare.contains('/') {
        return Err(malformed());
    }
    match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(NotAnAddress::Everywhere {
            field,
            address: text.to_owned(),
            instead,
        }),
        _ => Ok(text.to_owned()),
    }
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
    /// Where `/metrics`, `/livez` and `/readyz` are served, plain HTTP; none where they are not.
    #[serde(default)]
    pub metrics_address: Option<SocketAddr>,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn serve(gate_address: &str, gate_url: Option<&str>) -> Serve {
        let config = json!({
            "region": "west", "cluster": "west", "data_dir": "/d", "registry_dir": "/r",
            "registry_address": "0.0.0.0:5000", "ingress_address": "0.0.0.0:8080", "peer_address": "0.0.0.0:7443",
            "gate_address": gate_address, "gate_url": gate_url,
            "peer_ca": "/ca", "peer_cert": "/crt", "peer_key": "/key",
            "quorum": { "embedded": { "url": "https://witness:7443" } }, "witness_url": "https://witness:7443", "lease_ttl_ms": 3000,
        });
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn what_gates_are_told_leads_somewhere() {
        let told = |listens: &str, url: Option<&str>| serve(listens, url).asked_by_gates();
        assert_eq!(told("127.0.0.1:7444", None), Ok(Some("127.0.0.1:7444".into())));
        let name = "leeward-gate.leeward-system.svc:7444";
        assert_eq!(told("0.0.0.0:7444", Some(name)), Ok(Some(name.into())));
        assert_eq!(
            told("0.0.0.0:7444", Some(&format!("https://{name}"))),
            Ok(Some(name.into()))
        );
        for (listens, url) in [
            ("0.0.0.0:7444", None),
            ("[::]:7444", None),
            ("10.0.0.1:7444", Some("0.0.0.0:7444")),
            ("10.0.0.1:7444", Some("https://[::]:7444")),
        ] {
            let refused = told(listens, url).unwrap_err().to_string();
            assert!(refused.contains("leads others nowhere; give gate_url"), "{refused}");
        }
        for url in ["leeward-gate", ":7444", "leeward-gate:x", "leeward-gate:7444/v1"] {
            assert!(
                matches!(told("0.0.0.0:7444", Some(url)), Err(NotAnAddress::Malformed { .. })),
                "{url}"
            );
        }
    }

    #[test]
    fn the_file_counts_for_more_than_the_environment() {
        let plain = || serve("127.0.0.1:7444", None);
        let pod = |serve: Serve| serve.with_pod(Some("leeward-0".into()), Some("10.244.0.7".into()));
        let by_environment = pod(plain()).unwrap();
        assert_eq!(by_environment.pod_name.as_deref(), Some("leeward-0"));
        assert_eq!(by_environment.pod_ip, Some("10.244.0.7".parse().unwrap()));
        let own = Some("10.0.0.1".parse().unwrap());
        assert_eq!(pod(Serve { pod_ip: own, ..plain() }).unwrap().pod_ip, own);
        let bad = plain().with_pod(None, Some("leeward-0".into())).unwrap_err();
        assert!(bad.to_string().contains("status.podIP"));
        assert_eq!(
            plain()
                .with_pod(Some(String::new()), Some(String::new()))
                .unwrap()
                .pod_ip,
            None
        );
    }
}
