//! What a controller wants done: data that a plan returns and the executor carries out as it stands.

use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::{ApiResource, DynamicObject, ObjectMeta, Resource};
use serde_json::{Value, json};

/// The kinds that controllers write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is named as Kubernetes names it")]
pub enum Kind {
    ControllerRevision,
    DaemonSet,
    Deployment,
    EndpointSlice,
    Event,
    Job,
    Namespace,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    StatefulSet,
    StorageClass,
}

impl Kind {
    /// Group, version and plural of the kind.
    pub fn resource(self) -> ApiResource {
        use k8s_openapi::api::{
            apps::v1 as apps, batch::v1 as batch, core::v1 as core, discovery::v1 as discovery, policy::v1 as policy,
            storage::v1 as storage,
        };
        match self {
            Self::ControllerRevision => ApiResource::erase::<apps::ControllerRevision>(&()),
            Self::DaemonSet => ApiResource::erase::<apps::DaemonSet>(&()),
            Self::Deployment => ApiResource::erase::<apps::Deployment>(&()),
            Self::EndpointSlice => ApiResource::erase::<discovery::EndpointSlice>(&()),
            Self::Event => ApiResource::erase::<core::Event>(&()),
            Self::Job => ApiResource::erase::<batch::Job>(&()),
            Self::Namespace => ApiResource::erase::<core::Namespace>(&()),
            Self::Node => ApiResource::erase::<core::Node>(&()),
            Self::PersistentVolume => ApiResource::erase::<core::PersistentVolume>(&()),
            Self::PersistentVolumeClaim => ApiResource::erase::<core::PersistentVolumeClaim>(&()),
            Self::Pod => ApiResource::erase::<core::Pod>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<policy::PodDisruptionBudget>(&()),
            Self::ReplicaSet => ApiResource::erase::<apps::ReplicaSet>(&()),
            Self::StatefulSet => ApiResource::erase::<apps::StatefulSet>(&()),
            Self::StorageClass => ApiResource::erase::<storage::StorageClass>(&()),
        }
    }
}

/// One object, this very one: an action on it does nothing to a later object of the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; none for a kind without.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Target {
    /// The object with this metadata.
    pub fn new(kind: Kind, meta: &ObjectMeta) -> Self {
        Self {
            kind,
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }

    /// As an event refers to it.
    pub fn reference(&self) -> ObjectReference {
        let resource = self.kind.resource();
        ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: self.namespace.clone(),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Who says it, by the name that the controller has in a real cluster.
    pub from: &'static str,
    /// A warning, or only normal.
    pub warning: bool,
    /// The machine-readable reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl News {
    /// What is as it should be.
    pub fn normal(from: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            from,
            warning: false,
            reason,
            message: message.into(),
        }
    }

    /// What somebody should look at.
    pub fn warning(from: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            ..Self::normal(from, reason, message)
        }
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create an object.
    Create {
        /// What it is.
        kind: Kind,
        /// The object as it is sent.
        object: Value,
    },
    /// Change an object by a JSON merge patch (RFC 7396).
    Patch {
        /// The object.
        target: Target,
        /// Whether its status is changed, and nothing else.
        status: bool,
        /// The patch.
        patch: Value,
    },
    /// Delete an object.
    Delete {
        /// The object.
        target: Target,
        /// Without any grace: what it stands for is known to be gone.
        now: bool,
    },
    /// Bind a pod to a node.
    Bind {
        /// The pod.
        pod: Target,
        /// The node's name.
        node: String,
    },
    /// Tell about something that happened to an object.
    Tell {
        /// The object.
        about: Target,
        /// What is told.
        news: News,
        /// Only if the action before this one succeeded: it is what is told about.
        once_done: bool,
    },
    /// Make the directory of a volume, then create the volume.
    Provision {
        /// The directory.
        path: PathBuf,
        /// The PersistentVolume.
        volume: Value,
    },
    /// Remove a volume and its directory, if its claim is gone for certain.
    Reclaim {
        /// The PersistentVolume.
        volume: Target,
        /// Its directory.
        path: PathBuf,
        /// Namespace, name and uid of the claim that it belonged to.
        claim: (String, String, String),
    },
    /// Plan again at this time, though nothing may have changed.
    LookAgain(Timestamp),
}

impl Action {
    /// A merge patch of the object itself.
    pub fn patch(target: Target, patch: Value) -> Self {
        Self::Patch {
            target,
            status: false,
            patch,
        }
    }

    /// A merge patch of the object's status.
    pub fn status(target: Target, status: Value) -> Self {
        Self::Patch {
            target,
            status: true,
            patch: json!({ "status": status }),
        }
    }

    /// Deletes with the object's own grace.
    pub fn delete(target: Target) -> Self {
        Self::Delete { target, now: false }
    }

    /// Tells in any case.
    pub fn tell(about: Target, news: News) -> Self {
        Self::Tell {
            about,
            news,
            once_done: false,
        }
    }

    /// Tells once the action before it has succeeded.
    pub fn told(about: Target, news: News) -> Self {
        Self::Tell {
            about,
            news,
            once_done: true,
        }
    }

    /// The object that it changes, where it changes one that exists.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Patch { target, .. } | Self::Delete { target, .. } => Some(target),
            Self::Bind { pod, .. } => Some(pod),
            Self::Reclaim { volume, .. } => Some(volume),
            Self::Create { .. } | Self::Tell { .. } | Self::Provision { .. } | Self::LookAgain(_) => None,
        }
    }
}

/// A typed object as JSON. Every type of the Kubernetes API has such a form.
pub fn value(object: &impl serde::Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Creates a typed object.
pub fn create<K: Resource<DynamicType = ()> + serde::Serialize>(kind: Kind, object: &K) -> Action {
    Action::Create {
        kind,
        object: value(object),
    }
}

/// Reads what the API returned as this type.
pub fn typed<K: Resource + serde::de::DeserializeOwned>(object: DynamicObject) -> Option<K> {
    object.try_parse().ok()
}
