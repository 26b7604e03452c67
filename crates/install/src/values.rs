//! What a person may say of an installation: little, with defaults that do for most.

use leeward_api::install::NAMESPACE;

/// The image, where nothing else is said: that of this version.
pub const IMAGE: &str = concat!("leeward.dev/leeward:", env!("CARGO_PKG_VERSION"));

/// What a Service may be reached from: its types.
pub(crate) const SERVICE_TYPES: &[&str] = &["LoadBalancer", "NodePort", "ClusterIP"];

/// What a label of DNS is, as a regular expression.
pub(crate) const LABEL: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";

/// What a quantity of bytes is here, as a regular expression.
pub(crate) const BYTES: &str = "^[1-9][0-9]{0,8}(Ki|Mi|Gi|Ti|k|M|G|T)$";

/// What an image is named like, as a regular expression: nothing that would end a quoted word.
pub(crate) const REFERENCE: &str = "^[A-Za-z0-9][A-Za-z0-9._:/@-]*$";

/// What a person may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// The namespace: one of its own, made by the manifests.
    pub namespace: String,
    /// The image.
    pub image: String,
    /// The Secret of the namespace by which the image may be pulled; none where nobody asks.
    pub image_pull_secret: Option<String>,
    /// How many agents run in the cluster.
    pub replicas: i32,
    /// The type of the Service where users' requests enter.
    pub edge_type: String,
    /// The type of the Service where the other regions' agents enter.
    pub peer_type: String,
    /// The most that an agent may keep on its node: images, and points of volumes. A quantity of bytes.
    pub data_size: String,
    /// The most memory that an agent may use. A quantity of bytes.
    pub memory_limit: String,
    /// Whether there are a `ServiceMonitor` and a `PrometheusRule`, for clusters with the Prometheus operator.
    pub monitoring: bool,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            namespace: NAMESPACE.into(),
            image: IMAGE.into(),
            image_pull_secret: None,
            replicas: 2,
            edge_type: "LoadBalancer".into(),
            peer_type: "LoadBalancer".into(),
            data_size: "10Gi".into(),
            memory_limit: "512Mi".into(),
            monitoring: false,
        }
    }
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// It is no label of DNS.
    #[error(
        "the {what} {found:?} is no DNS label: 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or a digit"
    )]
    Label {
        /// What it would name.
        what: &'static str,
        /// What was given.
        found: String,
    },
    /// It is a namespace with others' pods in it.
    #[error(
        "the namespace {0:?} has others' pods in it, and an installation lets its namespace run only what is restricted; give one of its own"
    )]
    Shared(String),
    /// It names no image.
    #[error("{0:?} names no image; give one such as {IMAGE}")]
    Image(String),
    /// It is no number of agents.
    #[error("{0} agents cannot run a region; give 2, or another number from 1 to 9")]
    Replicas(i32),
    /// It is no type of a Service.
    #[error("the {what} Service cannot be of type {found:?}; give LoadBalancer, NodePort or ClusterIP")]
    ServiceType {
        /// Which Service.
        what: &'static str,
        /// What was given.
        found: String,
    },
    /// It is no quantity of bytes.
    #[error("the {what} {found:?} is no number of bytes; give a whole number with a unit, such as 512Mi or 10Gi")]
    Bytes {
        /// What it would limit.
        what: &'static str,
        /// What was given.
        found: String,
    },
}

impl Values {
    /// The most agents in a cluster. One acts; more than a few only cost.
    pub(crate) const MOST_REPLICAS: i32 = 9;

    /// Whether an installation can be made with them.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn check(&self) -> Result<(), BadValue> {
        label("namespace", &self.namespace)?;
        if self.namespace == "default" || self.namespace.starts_with("kube-") {
            return Err(BadValue::Shared(self.namespace.clone()));
        }
        if !is_image(&self.image) {
            return Err(BadValue::Image(self.image.clone()));
        }
        if let Some(secret) = &self.image_pull_secret {
            label("Secret to pull images with", secret)?;
        }
        if !(1..=Self::MOST_REPLICAS).contains(&self.replicas) {
            return Err(BadValue::Replicas(self.replicas));
        }
        for (what, found) in [("edge's", &self.edge_type), ("peer link's", &self.peer_type)] {
            if !SERVICE_TYPES.contains(&found.as_str()) {
                return Err(BadValue::ServiceType {
                    what,
                    found: found.clone(),
                });
            }
        }
        bytes("size of the data", &self.data_size)?;
        bytes("limit of memory", &self.memory_limit)
    }
}

fn label(what: &'static str, text: &str) -> Result<(), BadValue> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good =
        (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-');
    match good {
        true => Ok(()),
        false => Err(BadValue::Label {
            what,
            found: text.into(),
        }),
    }
}

fn is_image(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._:/@-".contains(c))
}

fn bytes(what: &'static str, text: &str) -> Result<(), BadValue> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let good = (1..=9).contains(&number.len())
        && !number.starts_with('0')
        && ["Ki", "Mi", "Gi", "Ti", "k", "M", "G", "T"].contains(&unit);
    match good {
        true => Ok(()),
        false => Err(BadValue::Bytes {
            what,
            found: text.into(),
        }),
    }
}
