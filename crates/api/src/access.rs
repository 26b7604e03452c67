//! What an agent may do in its own cluster's Kubernetes API, and why: nothing else is asked for.
//!
//! Tests give an agent on a real API server these rights and no others, and the reference page is made from this table. A rule is here only
//! together with the code that needs it.

/// Rights on some resources of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// Plural names; a subresource after a slash.
    pub resources: &'static [&'static str],
    /// What may be done with them.
    pub verbs: &'static [&'static str],
    /// What needs it.
    pub reason: &'static str,
}

const READ: &[&str] = &["get", "list", "watch"];

/// Every right of an agent, in all namespaces of its cluster.
pub const RULES: &[Rule] = &[
    Rule {
        group: crate::GROUP,
        resources: &["clusters"],
        verbs: &["get", "list", "watch", "patch"],
        reason: "To know the regions; patched for the finalizer, which keeps a cluster while something is placed in it.",
    },
    Rule {
        group: crate::GROUP,
        resources: &["protectedapps", "operations"],
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        reason: "What a person says in one cluster is shown as a copy in the others; a failover that begins by itself leaves an Operation; \
                 the oldest ended ones are removed.",
    },
    Rule {
        group: crate::GROUP,
        resources: &["clusters/status", "protectedapps/status", "operations/status"],
        verbs: &["patch"],
        reason: "To say what is seen.",
    },
    Rule {
        group: "",
        resources: &["namespaces"],
        verbs: &["get", "create", "patch"],
        reason: "An application's namespace is made on a standby where there is none.",
    },
    Rule {
        group: "",
        resources: &[
            "serviceaccounts",
            "secrets",
            "configmaps",
            "persistentvolumeclaims",
            "services",
        ],
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        reason: "They are carried to standbys; Services are read for routing; Secrets and ConfigMaps tell an application's pods where they run \
                 and how their gate asks.",
    },
    Rule {
        group: "apps",
        resources: &["deployments", "statefulsets"],
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        reason: "They are carried to standbys, and scaled by the plan.",
    },
    Rule {
        group: "autoscaling",
        resources: &["horizontalpodautoscalers"],
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        reason: "They are carried to standbys; after a failover their minimum is raised for a while.",
    },
    Rule {
        group: "",
        resources: &["pods"],
        verbs: READ,
        reason: "Whether an application runs, has ended, and which pod is granted a writer role.",
    },
    Rule {
        group: "",
        resources: &["nodes"],
        verbs: READ,
        reason: "Whether there is room for what would have to start here; where a node is asked to freeze a pod for a point.",
    },
    Rule {
        group: "discovery.k8s.io",
        resources: &["endpointslices"],
        verbs: READ,
        reason: "Where the edge sends users.",
    },
    Rule {
        group: "",
        resources: &["persistentvolumes"],
        verbs: &["get"],
        reason: "Where the data of a claim is.",
    },
    Rule {
        group: "storage.k8s.io",
        resources: &["storageclasses"],
        verbs: &["list"],
        reason: "Whether the class that a claim asks for is here.",
    },
    Rule {
        group: "scheduling.k8s.io",
        resources: &["priorityclasses"],
        verbs: &["list"],
        reason: "Whether the class that a workload's pods name is here.",
    },
    Rule {
        group: "",
        resources: &["resourcequotas"],
        verbs: READ,
        reason: "Whether the quotas of a namespace let in what would have to start here.",
    },
    Rule {
        group: "events.k8s.io",
        resources: &["events"],
        verbs: &["create", "patch"],
        reason: "To say what changed.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_right_is_asked_for_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for rule in RULES {
            for resource in rule.resources {
                assert!(seen.insert((rule.group, resource)), "{resource}");
            }
        }
    }

    #[test]
    fn nothing_is_asked_for_with_a_wildcard() {
        for rule in RULES {
            let words = rule.resources.iter().chain(rule.verbs).chain([&rule.group]);
            assert!(words.into_iter().all(|word| !word.contains('*')), "{rule:?}");
            assert!(rule.reason.ends_with('.'), "{rule:?}");
        }
    }
}
