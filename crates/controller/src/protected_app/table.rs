//! The routing table of this cluster's edge: a pure function of the plans and of where the clusters are.

use std::net::SocketAddr;

use leeward_core::{
    app::{App, Model},
    name::{AppKey, ClusterName, Epoch, Generation},
    routing::{Endpoint, Probe, Profile, Table, Writer},
};

use leeward_quorum::known::Situation;

/// Builds the table. `ingress` says where each cluster's edge is; a cluster that is not known has no endpoint.
pub fn build<'a>(
    situations: impl IntoIterator<Item = &'a Situation>,
    ingress: impl Fn(&ClusterName) -> Option<SocketAddr>,
) -> Table {
    let mut table = Table {
        generation: Generation(0),
        profiles: vec![],
    };
    for situation in situations {
        let Some(plan) = &situation.plan else { continue };
        table.generation = table
            .generation
            .max(Generation(plan.revision.max(situation.app.revision)));
        table.profiles.extend(profile(situation, &plan.value.active, &ingress));
    }
    table
}

fn profile(
    situation: &Situation,
    active: &ClusterName,
    ingress: impl Fn(&ClusterName) -> Option<SocketAddr>,
) -> Option<Profile> {
    let app = &situation.app.value;
    let traffic = app.traffic.as_ref()?;
    let endpoints: Vec<_> = app
        .placements
        .iter()
        .filter_map(|placement| {
            Some(Endpoint {
                cluster: placement.cluster.clone(),
                address: ingress(&placement.cluster)?,
                priority: placement.priority,
                weight: placement.weight,
                enabled: app.model == Model::ActiveActive || placement.cluster == *active,
            })
        })
        .collect();
    if endpoints.is_empty() {
        return None;
    }
    Some(Profile {
        app: app.key.clone(),
        hosts: traffic.hosts.clone(),
        writer: writer(situation, app, active),
        endpoints,
        prefer_local: app.model == Model::ActiveActive,
        probe: Probe {
            path: traffic.path.clone(),
            interval_ms: traffic.interval.as_millis() as u64,
            timeout_ms: traffic.timeout.as_millis() as u64,
            tolerated_failures: u32::from(traffic.tolerated_failures),
            successes_required: 1,
        },
        timing: leeward_core::routing::Timing::default(),
    })
}

/// Who writes, and at which epoch: the running operation's while it moves there, else the roles' own.
fn writer(situation: &Situation, app: &App, active: &ClusterName) -> Option<Writer> {
    if app.roles.is_empty() {
        return None;
    }
    let held = situation
        .roles
        .values()
        .map(|role| role.value.epoch)
        .max()
        .unwrap_or_default();
    let operation = situation.plan.as_ref().and_then(|plan| plan.value.operation.as_ref());
    let epoch = operation.map_or(held, |operation| held.max(operation.epoch));
    Some(Writer {
        cluster: active.clone(),
        epoch: Epoch(epoch.0),
    })
}

/// The roles of each application, for the edge's question whether it may answer.
pub fn roles<'a>(
    situations: impl IntoIterator<Item = &'a Situation>,
) -> std::collections::HashMap<AppKey, Vec<leeward_core::name::RoleKey>> {
    situations
        .into_iter()
        .map(|situation| {
            (
                situation.app.value.key.clone(),
                situation.app.value.role_keys().collect(),
            )
        })
        .collect()
}
