//! Which objects are carried, and how they are named.

use std::fmt;

use leeward_core::name::AppKey;
use serde_json::Value;

/// A kind that is carried, in the order in which objects are applied: what a kind refers to comes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The application's namespace: made where it is absent, never changed or deleted.
    Namespace,
    /// `v1` ServiceAccount.
    ServiceAccount,
    /// `v1` Secret.
    Secret,
    /// `v1` ConfigMap.
    ConfigMap,
    /// `v1` PersistentVolumeClaim.
    PersistentVolumeClaim,
    /// `v1` Service.
    Service,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `apps/v1` Deployment.
    Deployment,
    /// `autoscaling/v2` HorizontalPodAutoscaler.
    HorizontalPodAutoscaler,
}

impl Kind {
    /// Every kind, in the order in which objects are applied.
    pub const ALL: [Self; 9] = [
        Self::Namespace,
        Self::ServiceAccount,
        Self::Secret,
        Self::ConfigMap,
        Self::PersistentVolumeClaim,
        Self::Service,
        Self::StatefulSet,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
    ];

    /// The kind's name in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::Service => "Service",
            Self::StatefulSet => "StatefulSet",
            Self::Deployment => "Deployment",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
        }
    }

    /// Its group and version, as in a manifest.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::HorizontalPodAutoscaler => "autoscaling/v2",
            _ if self.is_workload() => "apps/v1",
            _ => "v1",
        }
    }

    /// Whether it runs pods.
    pub fn is_workload(self) -> bool {
        matches!(self, Self::StatefulSet | Self::Deployment)
    }

    fn of(object: &Value) -> Option<Self> {
        let (kind, version) = (object["kind"].as_str()?, object["apiVersion"].as_str()?);
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == kind && known.api_version() == version)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An object's kind and name within the application's namespace. Sorts into the order in which objects are applied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: String,
}

impl Id {
    /// The object of this kind and name.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }

    /// What an object is; none for one of a kind that is not carried.
    pub fn of(object: &Value) -> Option<Self> {
        Some(Self::new(Kind::of(object)?, object["metadata"]["name"].as_str()?))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The ConfigMap that tells the application's pods where they run. Each cluster has its own.
fn writer_config_map(app: &AppKey) -> Id {
    Id::new(Kind::ConfigMap, leeward_api::writer_config_map(&app.name))
}

/// Whether an object is what each cluster's own agent writes for the application.
pub(super) fn is_own(id: &Id, app: &AppKey) -> bool {
    *id == writer_config_map(app) || *id == Id::new(Kind::Secret, leeward_api::gate_secret(&app.name))
}

/// Whether an object of a carried kind stays where it is: each cluster makes its own.
pub(super) fn stays(object: &Value, app: &AppKey) -> bool {
    let Some(id) = Id::of(object) else { return true };
    let made_by_cluster = match id.kind {
        Kind::ServiceAccount => id.name == "default",
        Kind::ConfigMap => id.name == "kube-root-ca.crt" || is_own(&id, app),
        Kind::Secret => {
            is_own(&id, app)
                || matches!(
                    object["type"].as_str(),
                    Some(
                        "kubernetes.io/service-account-token" | "helm.sh/release.v1" | "bootstrap.kubernetes.io/token"
                    )
                )
        }
        Kind::Service => id.name == "kubernetes" && app.namespace == "default",
        _ => false,
    };
    made_by_cluster || object["metadata"]["deletionTimestamp"].is_string()
}

/// Whether a controller in the cluster makes the object, so that its owner's copy makes it again.
pub(super) fn has_controller(object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true))
}

/// The controller that makes the object, as `KIND NAME`.
pub(super) fn controller(object: &Value) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some(format!("{} {}", owner["kind"].as_str()?, owner["name"].as_str()?))
}

/// A label's value.
pub(super) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"].get(key)?.as_str()
}

/// An annotation's value.
pub(super) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"].get(key)?.as_str()
}
