//! What may follow an object's name in a path, and what discovery says about it.

use super::{Kind, Verb};

/// What may follow an object's name in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `approval` of a certificate signing request.
    Approval,
    /// `attach` to a pod's container; refused.
    Attach,
    /// `binding` of a pod to a node.
    Binding,
    /// `ephemeralcontainers` of a pod.
    EphemeralContainers,
    /// `eviction` of a pod.
    Eviction,
    /// `exec` in a pod's container; refused.
    Exec,
    /// `finalize` of a namespace.
    Finalize,
    /// `log` of a pod, fetched from its node.
    Log,
    /// `portforward` to a pod.
    PortForward,
    /// `proxy` to a node, a pod or a service; refused.
    Proxy,
    /// `resize` of a pod's resources.
    Resize,
    /// `scale`: `autoscaling/v1` Scale over the kind's replicas.
    Scale,
    /// `status`: what the controller of the kind writes; everything else of the body is ignored.
    Status,
    /// `token` of a service account.
    Token,
}

use Subresource::{
    Approval, Attach, Binding, EphemeralContainers, Eviction, Exec, Finalize, Log, PortForward, Proxy, Resize, Scale,
    Status, Token,
};

const ALL: [Subresource; 14] = [
    Approval,
    Attach,
    Binding,
    EphemeralContainers,
    Eviction,
    Exec,
    Finalize,
    Log,
    PortForward,
    Proxy,
    Resize,
    Scale,
    Status,
    Token,
];

impl Subresource {
    /// The word in the path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Approval => "approval",
            Attach => "attach",
            Binding => "binding",
            EphemeralContainers => "ephemeralcontainers",
            Eviction => "eviction",
            Exec => "exec",
            Finalize => "finalize",
            Log => "log",
            PortForward => "portforward",
            Proxy => "proxy",
            Resize => "resize",
            Scale => "scale",
            Status => "status",
            Token => "token",
        }
    }

    /// The subresource that the word in a path names.
    #[must_use]
    pub fn from_path(word: &str) -> Option<Self> {
        ALL.into_iter().find(|s| s.path() == word)
    }

    /// What clients may do with it.
    #[must_use]
    pub fn verbs(self) -> &'static [Verb] {
        use Verb::{Create, Delete, Get, Patch, Update};
        match self {
            Attach | Exec | PortForward => &[Create, Get],
            Binding | Eviction | Token => &[Create],
            Finalize => &[Update],
            Log => &[Get],
            Proxy => &[Create, Delete, Get, Patch, Update],
            Approval | EphemeralContainers | Resize | Scale | Status => &[Get, Patch, Update],
        }
    }

    /// The group and version of the kind that it carries, where they are not those of the object, and that kind.
    #[must_use]
    pub fn carried(self, of: &Kind) -> (Option<(&'static str, &'static str)>, String) {
        let options = |word: &str| format!("{}{word}Options", of.kind);
        match self {
            Attach => (None, options("Attach")),
            Binding => (None, "Binding".into()),
            Eviction => (Some(("policy", "v1")), "Eviction".into()),
            Exec => (None, options("Exec")),
            PortForward => (None, options("PortForward")),
            Proxy => (None, options("Proxy")),
            Scale => (Some(("autoscaling", "v1")), "Scale".into()),
            Token => (Some(("authentication.k8s.io", "v1")), "TokenRequest".into()),
            Approval | EphemeralContainers | Finalize | Log | Resize | Status => (None, of.kind.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Subresource;

    #[test]
    fn a_subresource_is_found_by_its_word() {
        assert_eq!(Subresource::from_path("scale"), Some(Subresource::Scale));
        assert_eq!(Subresource::from_path("nonsense"), None);
    }
}
