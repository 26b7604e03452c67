//! Where an agent that runs in its cluster finds what it is told, and where it listens: the same in every region, so that the manifests
//! of an installation are the same everywhere, too. What differs from one region to the next is in the ConfigMap [`CONFIG_MAP`] and in
//! the Secret [`IDENTITY`].

/// The namespace of an installation, where nothing else is said.
pub const NAMESPACE: &str = "leeward-system";
/// What an installation's objects are called, and what their names begin with.
pub const NAME: &str = "leeward";

/// The label `app.kubernetes.io/component` of the agents' pods.
pub const AGENT: &str = "agent";

/// The ConfigMap with what this region's agents are told.
pub const CONFIG_MAP: &str = "leeward-config";
/// Its key: the configuration file of `leeward serve`.
pub const CONFIG_KEY: &str = "serve.json";
/// Where it is mounted.
pub const CONFIG_DIR: &str = "/etc/leeward/config";

/// The Secret by which this region's agents prove who they are.
pub const IDENTITY: &str = "leeward-identity";
/// Its key for the authorities that signed the peers' certificates, PEM.
pub const IDENTITY_CA: &str = "ca.crt";
/// Its key for the certificate, PEM.
pub const IDENTITY_CERT: &str = "tls.crt";
/// Its key for the certificate's key, PEM.
pub const IDENTITY_KEY: &str = "tls.key";
/// Its key for what the gates' tokens are derived from.
pub const IDENTITY_GATE: &str = "gate.key";
/// Its key for the authority of etcd's members, PEM, where that is another one than the peers'.
pub const IDENTITY_ETCD_CA: &str = "etcd-ca.crt";
/// What its keys for the keys of specifications begin with; a number from 0 and `.key` follow.
pub const IDENTITY_SPEC: &str = "spec-";
/// Where it is mounted.
pub const IDENTITY_DIR: &str = "/etc/leeward/identity";

/// Where an agent keeps its state.
pub const DATA_DIR: &str = "/var/lib/leeward";

/// The port at which users' requests enter.
pub const EDGE_PORT: u16 = 8080;
/// The port of the peer link.
pub const PEER_PORT: u16 = 7443;
/// The port at which gates ask.
pub const GATE_PORT: u16 = 7444;
/// The port of the registry.
pub const REGISTRY_PORT: u16 = 5000;
/// The port for `/metrics`, `/livez` and `/readyz`.
pub const METRICS_PORT: u16 = 9464;

/// The Service where users' requests enter, at [`EDGE_OUTSIDE`].
pub const EDGE_SERVICE: &str = "leeward-edge";
/// The port of that Service: what users and the other regions' edges are sent to.
pub const EDGE_OUTSIDE: u16 = 80;
/// The Service of the peer link; like the ones below, at the port that the pods have.
pub const PEER_SERVICE: &str = "leeward-peer";
/// The Service at which gates ask.
pub const GATE_SERVICE: &str = "leeward-gate";
/// The Service of the registry.
pub const REGISTRY_SERVICE: &str = "leeward-registry";
/// The Service for `/metrics`.
pub const METRICS_SERVICE: &str = "leeward-metrics";
/// The Service at which the API server asks whether a pod is to run behind its gate, and the MutatingWebhookConfiguration that says so. The peer
/// certificate has the name of it, see [`webhook_host`].
pub const WEBHOOK: &str = "leeward-webhook";
/// The port of the webhook; the Service has 443 for it.
pub const WEBHOOK_PORT: u16 = 7445;
/// What the API server asks for there.
pub const WEBHOOK_PATH: &str = "/v1/inject";
/// The environment variable with the image that an agent runs from: gates are brought from the same one.
pub const IMAGE_ENV: &str = "LEEWARD_IMAGE";

/// The name by which the API server knows the webhook: a DNS name of the certificate.
pub fn webhook_host(namespace: &str) -> String {
    format!("{WEBHOOK}.{namespace}.svc")
}
