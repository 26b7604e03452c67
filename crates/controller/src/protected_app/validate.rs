//! From a `ProtectedApp` to the specification that decisions are made from. What the schema and its rules already refuse
//! is not looked at again; what they cannot know is.

use std::time::Duration;

use leeward_api::{
    ProtectedApp,
    app::{FailoverMode, Model, ProtectedAppSpec, WhenStandbyAway},
};
use leeward_core::{
    app::{self, App},
    in_sync::{self, least_rpo},
    lease::Timing,
    name::{AppKey, ClusterName},
    plan::Plan,
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
    /// More would be lost than is allowed while everything is in order.
    #[error(
        "spec.objectives.rpo: {rpo:?} cannot be kept: with role {role}'s interval of {interval:?} and this installation's leases the writer \
         would stop between points; the smallest is {least:?}, or shorten the interval"
    )]
    RpoTooShort {
        /// What is asked for.
        rpo: Duration,
        /// The role.
        role: String,
        /// Its interval.
        interval: Duration,
        /// The smallest that can be kept, in whole tenths of a second.
        least: Duration,
    },
    /// A secret would be in the specification, which every region and every backup of the quorum has.
    #[error(
        "spec.placements[{placement}].overrides[{index}]: it holds the values of Secret {name}; keep them in a Secret of that cluster, and \
         leave `data` and `stringData` out of the patch"
    )]
    InlineSecret {
        /// Which placement.
        placement: usize,
        /// Which override of it.
        index: usize,
        /// The Secret.
        name: String,
    },
    /// The cluster that is active, or that the application moves from or to, would be no placement any more.
    #[error(
        "spec.placements: {cluster} cannot be taken out, {why}; what runs on is the specification before. Move the application with \
         `leeward switchover` and take it out then"
    )]
    InUse {
        /// Which one.
        cluster: ClusterName,
        /// What it does.
        why: &'static str,
    },
    /// The specification cannot be written as JSON.
    #[error("spec: {0}")]
    Unwritable(String),
}

/// Whether the placements that are in use stay. Of an ActiveActive application none is: another one is followed then.
///
/// # Errors
/// Which one would not.
pub fn keeps_active(app: &App, plan: Option<&Plan>) -> Result<(), Invalid> {
    let Some(plan) = plan.filter(|_| app.model == app::Model::ActivePassive) else {
        return Ok(());
    };
    let operation = plan.operation.as_ref();
    let moving = operation.map(|operation| (&operation.from, "the application moves away from it"));
    let used = [(&plan.active, "it is the active cluster")].into_iter().chain(moving);
    for (cluster, why) in used {
        if app.placement(cluster).is_none() {
            let cluster = cluster.clone();
            return Err(Invalid::InUse { cluster, why });
        }
    }
    Ok(())
}

/// Checks a resource of this cluster and turns it into a specification with this cluster as its authority.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn validate<'a>(
    resource: &ProtectedApp,
    me: &ClusterName,
    clusters: &[String],
    timing: &Timing,
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
    no_inline_secrets(spec)?;
    rpo_can_be_kept(spec, timing)?;
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
        when_standby_away: match spec.objectives.when_standby_away {
            WhenStandbyAway::Serve => in_sync::WhenStandbyAway::Serve,
            WhenStandbyAway::Stop => in_sync::WhenStandbyAway::Stop,
        },
        rto: spec.objectives.rto.into(),
        automatic: spec.failover.mode == FailoverMode::Automatic,
        paused: spec.paused,
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

fn no_inline_secrets(spec: &ProtectedAppSpec) -> Result<(), Invalid> {
    for (placement, of) in spec.placements.iter().enumerate() {
        let holds = |patch: &leeward_api::app::Override| {
            patch.kind == "Secret"
                && ["data", "stringData"]
                    .iter()
                    .any(|field| patch.patch.contains_key(*field))
        };
        if let Some((index, patch)) = of.overrides.iter().enumerate().find(|(_, patch)| holds(patch)) {
            return Err(Invalid::InlineSecret {
                placement,
                index,
                name: patch.name.clone(),
            });
        }
    }
    Ok(())
}

fn rpo_can_be_kept(spec: &ProtectedAppSpec, timing: &Timing) -> Result<(), Invalid> {
    let rpo: Duration = spec.objectives.rpo.into();
    for role in &spec.roles {
        let interval: Duration = role.interval.into();
        let least = least_rpo(interval, timing);
        if rpo < least {
            let tenths = least.as_millis().div_ceil(100);
            return Err(Invalid::RpoTooShort {
                rpo,
                role: role.name.clone(),
                interval,
                least: Duration::from_millis(u64::try_from(tenths * 100).unwrap_or(u64::MAX)),
            });
        }
    }
    Ok(())
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
    use leeward_core::lease::Delays;
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
                "objectives": { "rpo": "4s" },
                "roles": [{ "name": "data", "claims": ["data"], "interval": "1s" }],
                "traffic": { "hosts": ["shop.example"], "service": "web", "port": 80 },
            },
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn validate_here(resource: &ProtectedApp, others: &[App]) -> Result<App, Invalid> {
        validate(
            resource,
            &"west".into(),
            &["east".into(), "west".into()],
            &Timing::new(Duration::from_secs(3), Delays::WITHOUT_ELECTIONS).unwrap(),
            others,
        )
    }

    #[test]
    fn defaults_are_filled_in() {
        let app = validate_here(&resource(|_| {}), &[]).unwrap();
        assert_eq!((app.placements[0].priority, app.placements[0].weight), (1, 100));
        assert_eq!(
            (app.rpo.as_secs(), app.rto.as_secs(), app.automatic, app.paused),
            (4, 60, true, false)
        );
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
    fn a_secret_in_a_specification_is_refused() {
        let with = |patch: serde_json::Value| {
            let overrides = json!([{"kind": "Secret", "name": "db", "patch": patch}]);
            validate_here(&resource(|v| v["spec"]["placements"][1]["overrides"] = overrides), &[])
        };
        for field in ["data", "stringData"] {
            let refused = with(json!({field: {"password": "hunter2"}})).unwrap_err().to_string();
            assert!(refused.contains("spec.placements[1].overrides[0]"), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        assert!(with(json!({"metadata": {"labels": {"a": "b"}}})).is_ok());
    }

    #[test]
    fn an_rpo_that_cannot_be_kept_is_refused_with_the_smallest_that_can() {
        let asked = |rpo: &str| validate_here(&resource(|v| v["spec"]["objectives"]["rpo"] = rpo.into()), &[]);
        // Twice the interval of 1 s, half a second for a transfer and for a commit, 0.3 s to stop, and a hundredth for the clock.
        let refused = asked("3300ms").unwrap_err().to_string();
        assert!(refused.contains("the smallest is 3.4s"), "{refused}");
        assert!(asked("3400ms").is_ok());
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
