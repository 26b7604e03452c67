//! The routing table of a cluster's edge: a pure function of the plans and roles, and of where the clusters are.
//!
//! Invariant: a writer is named with the epoch at which the role names it, so that an edge that was told of an epoch asks whom it was given to.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{Endpoint, Probe, Profile, Table, Timing, Writer};
use crate::{
    app::{App, Model},
    handover::Roles,
    maintenance::Maintenance,
    name::{ClusterName, Generation, Incarnation},
    plan::{Plan, Versioned},
};

/// What the table says of an application rests on this, as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// The accepted specification.
    pub app: &'a Versioned<App>,
    /// The newest plan.
    pub plan: &'a Versioned<Plan>,
    /// Its roles.
    pub roles: &'a Roles,
}

/// Builds the table. `ingress` says where each cluster's edge is; a cluster that is not known has no endpoint. A new incarnation's revisions may
/// be below those that an edge saw in the one before.
pub fn build<'a>(
    incarnation: Incarnation,
    applications: impl IntoIterator<Item = Basis<'a>>,
    maintenance: &BTreeMap<ClusterName, Versioned<Maintenance>>,
    ingress: impl Fn(&ClusterName) -> Option<SocketAddr>,
) -> Table {
    let mut table = Table {
        generation: Generation(0).in_incarnation(incarnation),
        profiles: vec![],
    };
    for basis in applications {
        let said = maintenance.values().map(|said| said.revision).max().unwrap_or_default();
        let newest = Generation(basis.plan.revision.max(basis.app.revision).max(said));
        table.generation = table.generation.max(newest.in_incarnation(incarnation));
        table.profiles.extend(profile(&basis, maintenance, &ingress));
    }
    table
}

fn profile(
    basis: &Basis<'_>,
    maintenance: &BTreeMap<ClusterName, Versioned<Maintenance>>,
    ingress: impl Fn(&ClusterName) -> Option<SocketAddr>,
) -> Option<Profile> {
    let app = &basis.app.value;
    let serving = serving(basis.roles, &basis.plan.value.active);
    let traffic = app.traffic.as_ref()?;
    let drained = |cluster: &ClusterName| {
        let said = maintenance.get(cluster);
        said.is_some_and(|said| said.value == Maintenance::Drain)
    };
    // Where every cluster is drained, users are better served than not.
    let all_drained = app.placements.iter().all(|placement| drained(&placement.cluster));
    let enabled = |cluster: &ClusterName| match app.model {
        Model::ActiveActive => all_drained || !drained(cluster),
        Model::ActivePassive => cluster == serving,
    };
    let endpoints: Vec<_> = app
        .placements
        .iter()
        .filter_map(|placement| {
            Some(Endpoint {
                cluster: placement.cluster.clone(),
                address: ingress(&placement.cluster)?,
                priority: placement.priority,
                weight: placement.weight,
                enabled: enabled(&placement.cluster),
            })
        })
        .collect();
    if endpoints.is_empty() {
        return None;
    }
    Some(Profile {
        app: app.key.clone(),
        hosts: traffic.hosts.clone(),
        writer: writer(basis.roles, app, serving),
        endpoints,
        prefer_local: app.model == Model::ActiveActive,
        probe: Probe {
            path: traffic.path.clone(),
            interval_ms: traffic.interval.as_millis() as u64,
            timeout_ms: traffic.timeout.as_millis() as u64,
            tolerated_failures: u32::from(traffic.tolerated_failures),
            successes_required: 1,
        },
        timing: Timing::default(),
    })
}

/// The cluster that is asked: the one that has the roles, also while a switchover that may still be called off makes another one the active
/// one. Edges never go back to a lower epoch, so they are told of one only when it was given.
pub fn serving<'a>(roles: &'a Roles, active: &'a ClusterName) -> &'a ClusterName {
    let newest = roles.values().max_by_key(|role| role.value.epoch);
    newest.map_or(active, |role| &role.value.owner)
}

/// Who writes, and at which epoch: as the roles say.
fn writer(roles: &Roles, app: &App, serving: &ClusterName) -> Option<Writer> {
    if app.roles.is_empty() {
        return None;
    }
    let held = roles.values().map(|role| role.value.epoch).max();
    Some(Writer {
        cluster: serving.clone(),
        epoch: held.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::{Hold, Role},
        name::Epoch,
    };

    #[test]
    fn a_switchover_is_told_to_edges_only_once_the_roles_were_given() {
        let (west, east) = (ClusterName::new("west"), ClusterName::new("east"));
        let roles = |owner: &ClusterName, epoch, hold| -> Roles {
            let value = Role {
                hold,
                ..Role::held(owner.clone(), Epoch(epoch))
            };
            let key = "shop/web/data".parse().unwrap();
            [(key, Versioned { value, revision: 7 })].into()
        };
        assert_eq!(serving(&Roles::new(), &west), &west);
        for hold in [Hold::Held, Hold::Revoking, Hold::Released] {
            assert_eq!(serving(&roles(&west, 1, hold), &east), &west, "{hold:?}");
        }
        assert_eq!(serving(&roles(&east, 2, Hold::Held), &east), &east);
    }
}
