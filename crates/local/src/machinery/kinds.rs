//! The kinds that a local region's API serves: a fixed table of built-in ones; those born of CRDs have the same shape.
//!
//! The order of the table is the order of discovery: a short name belongs to the first kind that claims it.

use std::sync::LazyLock;

/// What may follow an object's name in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `status`: what the controller of the kind writes; everything else of the body is ignored.
    Status,
    /// `scale`: `autoscaling/v1` Scale over the kind's replicas.
    Scale,
    /// `log` of a pod, fetched from its node.
    Log,
    /// `eviction` of a pod.
    Eviction,
    /// `binding` of a pod to a node.
    Binding,
    /// `finalize` of a namespace.
    Finalize,
}

impl Subresource {
    /// The word in the path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Log => "log",
            Self::Eviction => "eviction",
            Self::Binding => "binding",
            Self::Finalize => "finalize",
        }
    }

    /// The subresource that the word in a path names.
    #[must_use]
    pub fn from_path(word: &str) -> Option<Self> {
        use Subresource::{Binding, Eviction, Finalize, Log, Scale, Status};
        [Status, Scale, Log, Eviction, Binding, Finalize]
            .into_iter()
            .find(|s| s.path() == word)
    }
}

/// One version of one resource kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version, such as `v1`.
    pub version: String,
    /// The resource's name in paths, such as `deployments`.
    pub plural: String,
    /// What kubectl accepts for one of them, such as `deployment`.
    pub singular: String,
    /// The kind, such as `Deployment`.
    pub kind: String,
    /// What kubectl accepts in place of the plural, such as `deploy`.
    pub short_names: Vec<String>,
    /// Groups of kinds for kubectl, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What may follow an object's name.
    pub subresources: Vec<Subresource>,
    /// False for a kind that only answers a POST and keeps nothing, such as `SelfSubjectAccessReview`.
    pub stored: bool,
}

impl Kind {
    /// `GROUP/VERSION`, or the bare version in the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `PLURAL.GROUP`, or the bare plural in the core group: the name in messages and, for CRDs, of the definition.
    #[must_use]
    pub fn resource_name(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The kind of a list of these.
    #[must_use]
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// Whether the kind has the subresource.
    #[must_use]
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }
}

/// Every built-in kind, in the order of discovery.
#[must_use]
pub fn builtin() -> &'static [Kind] {
    static TABLE: LazyLock<Vec<Kind>> = LazyLock::new(table);
    &TABLE
}

fn kind(api: &str, plural: &str, kind: &str, namespaced: bool, short: &[&str]) -> Kind {
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    Kind {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        kind: kind.into(),
        short_names: short.iter().map(|s| (*s).into()).collect(),
        categories: Vec::new(),
        namespaced,
        subresources: Vec::new(),
        stored: true,
    }
}

impl Kind {
    fn with(mut self, subresources: &[Subresource]) -> Self {
        self.subresources = subresources.to_vec();
        self
    }

    fn in_all(mut self) -> Self {
        self.categories = vec!["all".into()];
        self
    }

    fn transient(mut self) -> Self {
        self.stored = false;
        self
    }
}

fn table() -> Vec<Kind> {
    use Subresource::{Binding, Eviction, Finalize, Log, Scale, Status};
    vec![
        kind("v1", "configmaps", "ConfigMap", true, &["cm"]),
        kind("v1", "events", "Event", true, &["ev"]),
        kind("v1", "namespaces", "Namespace", false, &["ns"]).with(&[Status, Finalize]),
        kind("v1", "nodes", "Node", false, &["no"]).with(&[Status]),
        kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim", true, &["pvc"]).with(&[Status]),
        kind("v1", "persistentvolumes", "PersistentVolume", false, &["pv"]).with(&[Status]),
        kind("v1", "pods", "Pod", true, &["po"])
            .with(&[Status, Log, Eviction, Binding])
            .in_all(),
        kind("v1", "secrets", "Secret", true, &[]),
        kind("v1", "serviceaccounts", "ServiceAccount", true, &["sa"]),
        kind("v1", "services", "Service", true, &["svc"])
            .with(&[Status])
            .in_all(),
        kind("apps/v1", "controllerrevisions", "ControllerRevision", true, &[]),
        kind("apps/v1", "deployments", "Deployment", true, &["deploy"])
            .with(&[Status, Scale])
            .in_all(),
        kind("apps/v1", "replicasets", "ReplicaSet", true, &["rs"])
            .with(&[Status, Scale])
            .in_all(),
        kind("apps/v1", "statefulsets", "StatefulSet", true, &["sts"])
            .with(&[Status, Scale])
            .in_all(),
        kind("events.k8s.io/v1", "events", "Event", true, &["ev"]),
        kind(
            "authentication.k8s.io/v1",
            "selfsubjectreviews",
            "SelfSubjectReview",
            false,
            &[],
        )
        .transient(),
        kind(
            "authorization.k8s.io/v1",
            "selfsubjectaccessreviews",
            "SelfSubjectAccessReview",
            false,
            &[],
        )
        .transient(),
        kind("storage.k8s.io/v1", "storageclasses", "StorageClass", false, &["sc"]),
        kind(
            "apiextensions.k8s.io/v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
            false,
            &["crd", "crds"],
        )
        .with(&[Status]),
        kind("coordination.k8s.io/v1", "leases", "Lease", true, &[]),
        kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", true, &[]),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Subresource, builtin};

    #[test]
    fn each_resource_of_a_group_version_is_listed_once() {
        let mut seen = BTreeSet::new();
        for k in builtin() {
            assert!(
                seen.insert((k.api_version(), k.plural.clone())),
                "{} twice",
                k.resource_name()
            );
        }
    }

    #[test]
    fn a_subresource_is_found_by_its_word() {
        assert_eq!(Subresource::from_path("scale"), Some(Subresource::Scale));
        assert_eq!(Subresource::from_path("exec"), None);
    }
}
