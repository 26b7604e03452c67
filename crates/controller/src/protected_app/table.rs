//! What this cluster's edge is told of the applications: the routing table, and the roles that are asked for before each answer.

use std::{collections::BTreeMap, collections::HashMap, net::SocketAddr};

use leeward_core::{
    maintenance::Maintenance,
    name::{AppKey, ClusterName, Incarnation, RoleKey},
    plan::Versioned,
    routing::{self, Table},
};
use leeward_quorum::known::Situation;

/// The routing table, of the applications that have a plan; see [`routing::build`].
pub fn build<'a>(
    incarnation: Incarnation,
    situations: impl IntoIterator<Item = &'a Situation>,
    maintenance: &BTreeMap<ClusterName, Versioned<Maintenance>>,
    ingress: impl Fn(&ClusterName) -> Option<SocketAddr>,
) -> Table {
    let planned = situations.into_iter().filter_map(Situation::routed);
    routing::build(incarnation, planned, maintenance, ingress)
}

/// The roles of each application, for the edge's question whether it may answer.
pub fn roles<'a>(situations: impl IntoIterator<Item = &'a Situation>) -> HashMap<AppKey, Vec<RoleKey>> {
    situations
        .into_iter()
        .map(|situation| {
            let app = &situation.app.value;
            (app.key.clone(), app.role_keys().collect())
        })
        .collect()
}
