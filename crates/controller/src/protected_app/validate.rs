//! From a `ProtectedApp` to the specification that decisions are made from. What the schema and its rules already refuse
//! is not looked at again; what they cannot know is.

use leeward_api::{
    ProtectedApp,
    app::{FailoverMode, Model},
};
use leeward_core::{
    app::{self, App},
    name::{AppKey, ClusterName},
};

/// Why a resource is not accepted. The person who wrote it has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The resource has no namespace or name.
    #[error("the resource has no {0}")]
    Unnamed(&'static str),
    /// A placement names a cluster that is not known here.
    #[error("spec.placements[{index}].cluster: there is no Cluster {cluster}; the known ones are {known}")]
    UnknownCluster {
        /// Which placement.
        index: usize,
        /// What it names.
        cluster: String,
        /// The known ones.
        known: String,
    },
    /// A role names no claim that another does not name.
    #[error("spec.roles: claim {0} belongs to two roles; a claim has one writer role")]
    SharedClaim(String),
    /// The selector selects everything.
    #[error("spec.selector is empty: it would select every object of the namespace; name a label")]
    SelectsAll,
    /// A host is served by another application.
    #[error("spec.traffic.hosts: {host} is already served by {other}")]
    HostTaken {
        /// The host.
        host: String,
        /// Who serves it.
        other: AppKey,
    },
    /// The specification cannot be written as JSON.
    #[error("spec: {0}")]
    Unwritable(String),
}

/// Checks a resource of this cluster and turns it into a specification with this cluster as its authority.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn validate<'a>(
    resource: &ProtectedApp,
    me: &ClusterName,
    clusters: &[String],
    others: impl IntoIterator<Item = &'a App>,
) -> Result<App, Invalid> {
    let name = resource.metadata.name.clone().ok_or(Invalid::Unnamed("name"))?;
    let namespace = resource
        .metadata
        .namespace
        .clone()
        .ok_or(Invalid::Unnamed("namespace"))?;
    let key = AppKey::new(namespace, name);
    let spec = &resource.spec;
    for (index, placement) in spec.placements.iter().enumerate() {
        if !clusters.contains(&placement.cluster) {
            let known = if clusters.is_empty() {
                "none".to_owned()
            } else {
                clusters.join(", ")
            };
            return Err(Invalid::UnknownCluster {
                index,
                cluster: placement.cluster.clone(),
                known,
            });
        }
    }
    let mut claims: Vec<&String> = spec.roles.iter().flat_map(|role| &role.claims).collect();
    claims.sort();
    if let Some(twice) = claims.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Invalid::SharedClaim(twice[0].clone()));
    }
    let labels = spec
        .selector
        .match_labels
        .as_ref()
        .is_some_and(|labels| !labels.is_empty());
    let expressions = spec
        .selector
        .match_expressions
        .as_ref()
        .is_some_and(|list| !list.is_empty());
    if !labels && !expressions {
        return Err(Invalid::SelectsAll);
    }
    let hosts = spec.traffic.iter().flat_map(|traffic| &traffic.hosts);
    let others: Vec<_> = others.into_iter().filter(|other| other.key != key).collect();
    for host in hosts {
        let taken = |other: &&&App| other.traffic.iter().any(|traffic| traffic.hosts.contains(host));
        if let Some(other) = others.iter().find(taken) {
            return Err(Invalid::HostTaken {
                host: host.clone(),
                other: other.key.clone(),
            });
        }
    }
    Ok(App {
        authority: me.clone(),
        observed: resource.metadata.generation.unwrap_or_default(),
        model: match spec.model {
            Model::ActiveActive => app::Model::ActiveActive,
            Model::ActivePassive => app::Model::ActivePassive,
        },
        placements: spec.placements.iter().map(placement).collect(),
        rpo: spec.objectives.rpo.into(),
        rto: spec.objectives.rto.into(),
        automatic: spec.failover.mode == FailoverMode::Automatic,
        roles: spec
            .roles
            .iter()
            .map(|role| app::WriterRole {
                name: role.name.clone(),
                claims: role.claims.clone(),
                interval: role.interval.into(),
            })
            .collect(),
        traffic: spec.traffic.as_ref().map(|traffic| app::Traffic {
            hosts: traffic.hosts.clone(),
            service: traffic.service.clone(),
            port: traffic.port,
            path: traffic.probe.path.clone(),
            interval: traffic.probe.interval.into(),
            timeout: traffic.probe.timeout.into(),
            tolerated_failures: traffic.probe.tolerated_failures,
        }),
        selector: serde_json::to_value(&spec.selector).map_err(|e| Invalid::Unwritable(e.to_string()))?,
        resource: serde_json::to_value(spec).map_err(|e| Invalid::Unwritable(e.to_string()))?,
        key,
    })
}

fn placement(placement: &leeward_api::app::Placement) -> app::Placement {
    app::Placement {
        cluster: ClusterName::new(&placement.cluster),
        priority: placement.priority,
        weight: placement.weight,
        standby_replicas: placement.standby_replicas,
        overrides: placement
            .overrides
            .iter()
            .map(|change| {
                let patch = change.patch.clone().into_iter().collect();
                (
                    change.kind.clone(),
                    change.name.clone(),
                    serde_json::Value::Object(patch),
                )
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(change: impl FnOnce(&mut serde_json::Value)) -> ProtectedApp {
        let mut value = json!({
            "apiVersion": "leeward.dev/v1alpha1",
            "kind": "ProtectedApp",
            "metadata": { "name": "web", "namespace": "shop", "generation": 3 },
            "spec": {
                "selector": { "matchLabels": { "app": "web" } },
                "model": "ActivePassive",
                "placements": [{ "cluster": "west" }, { "cluster": "east" }],
                "objectives": { "rpo": "3s" },
                "roles": [{ "name": "data", "claims": ["data"], "interval": "1s" }],
                "traffic": { "hosts": ["shop.example"], "service": "web", "port": 80 },
            },
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn validate_here(resource: &ProtectedApp, others: &[App]) -> Result<App, Invalid> {
        validate(resource, &"west".into(), &["east".into(), "west".into()], others)
    }

    #[test]
    fn defaults_are_filled_in() {
        let app = validate_here(&resource(|_| {}), &[]).unwrap();
        assert_eq!((app.placements[0].priority, app.placements[0].weight), (1, 100));
        assert_eq!((app.rpo.as_secs(), app.rto.as_secs(), app.automatic), (3, 60, true));
        assert_eq!((app.authority.as_str(), app.observed), ("west", 3));
    }

    #[test]
    fn what_only_the_program_can_know_is_refused_with_the_field() {
        let unknown = resource(|v| v["spec"]["placements"][1]["cluster"] = "mars".into());
        assert!(
            validate_here(&unknown, &[])
                .unwrap_err()
                .to_string()
                .contains("spec.placements[1].cluster")
        );
        let all = resource(|v| v["spec"]["selector"] = json!({}));
        assert_eq!(validate_here(&all, &[]), Err(Invalid::SelectsAll));
        let shared = resource(|v| {
            v["spec"]["roles"] = json!([{ "name": "a", "claims": ["data"] }, { "name": "b", "claims": ["data"] }]);
        });
        assert_eq!(validate_here(&shared, &[]), Err(Invalid::SharedClaim("data".into())));
    }

    #[test]
    fn a_host_has_one_application() {
        let first = validate_here(&resource(|_| {}), &[]).unwrap();
        let second = resource(|v| v["metadata"]["name"] = "other".into());
        assert!(matches!(
            validate_here(&second, std::slice::from_ref(&first)),
            Err(Invalid::HostTaken { .. })
        ));
        assert!(validate_here(&resource(|_| {}), &[first]).is_ok());
    }
}
