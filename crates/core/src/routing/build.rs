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
    operation::{Journal, Kind, StepName, is_done},
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
    /// How far the operation of the plan is.
    pub journal: &'a Journal,
}

impl<'a> Basis<'a> {
    /// The cluster that is asked, and that serves an ActivePassive application.
    pub fn serving(&self) -> &'a ClusterName {
        serving(&self.plan.value, self.roles, self.journal)
    }
}

/// The one that has the roles, also while a switchover that may still be called off makes another one the active one. Edges never go back to a
/// lower epoch, so they are told of one only when it was given. Without roles the old one serves until the new one does.
fn serving<'a>(plan: &'a Plan, roles: &'a Roles, journal: &Journal) -> &'a ClusterName {
    if let Some(newest) = roles.values().max_by_key(|role| role.value.epoch) {
        return &newest.value.owner;
    }
    match &plan.operation {
        Some(running) if running.kind == Kind::Switchover && !is_done(journal, StepName::Start) => &running.from,
        _ => &plan.active,
    }
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
    let serving = basis.serving();
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
        name::{AppKey, Epoch},
        operation::{Operation, StepRecord},
    };

    fn moving(kind: Kind) -> Plan {
        let (from, to) = (ClusterName::new("west"), ClusterName::new("east"));
        Plan {
            generation: Generation(2),
            app: AppKey::new("shop", "web"),
            active: to.clone(),
            operation: Some(Operation {
                id: "move".into(),
                kind,
                from,
                to,
                epoch: Epoch(2),
                began_ms: 0,
                decided_ms: 0,
                steps: vec![],
                accepted_loss_ms: None,
            }),
            finished: None,
        }
    }

    #[test]
    fn a_switchover_is_told_to_edges_only_once_the_roles_were_given() {
        let plan = moving(Kind::Switchover);
        let serving = |owner: &str, epoch, hold| {
            let value = Role {
                hold,
                ..Role::held(owner.into(), Epoch(epoch))
            };
            let key = "shop/web/data".parse().unwrap();
            let roles = [(key, Versioned { value, revision: 7 })].into();
            serving(&plan, &roles, &Journal::new()).to_string()
        };
        for hold in [Hold::Held, Hold::Revoking, Hold::Released] {
            assert_eq!(serving("west", 1, hold), "west", "{hold:?}");
        }
        assert_eq!(serving("east", 2, Hold::Held), "east");
    }

    #[test]
    fn without_roles_edges_ask_the_old_cluster_until_the_new_one_has_started() {
        let serving = |plan: &Plan, journal: &Journal| serving(plan, &Roles::new(), journal).to_string();
        let (plan, begun) = (moving(Kind::Switchover), Journal::new());
        assert_eq!(serving(&plan, &begun), "west");
        let record = StepRecord {
            started_ms: 1,
            ended_ms: Some(2),
            trouble: None,
            point_ms: None,
        };
        assert_eq!(serving(&plan, &[(StepName::Start, record)].into()), "east");
        assert_eq!(serving(&moving(Kind::Failover), &begun), "east");
    }
}
