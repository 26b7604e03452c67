//! The edge of a region, of which each replica of the agent has one: it holds the routing table that the real code builds from what the agent
//! knows, and takes a new one only as the real edge does. The table is on disk, so that an edge that is started anew begins with the last one.

use std::net::{Ipv4Addr, SocketAddr};

use leeward_core::{
    name::ClusterName,
    routing::{Profile, Table, build, check, route, salvage},
};

use crate::{agent::Agent, mutant::Mutant};

/// The table that an edge answers by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edge {
    table: Table,
}

/// Where the edge of each region is.
fn ingress(cluster: &ClusterName) -> Option<SocketAddr> {
    let last = match cluster.as_str() {
        "west" => 1,
        "east" => 2,
        _ => return None,
    };
    Some((Ipv4Addr::new(192, 0, 2, last), 80).into())
}

impl Edge {
    /// The agent has heard something: the edge is told.
    pub(crate) fn is_told(&mut self, agent: &Agent) {
        let (incarnation, _) = agent.known.incarnation();
        let cheated = agent.cheated_situation();
        let situations = agent
            .known
            .situations()
            .map(|situation| cheated.as_ref().unwrap_or(situation));
        let planned = situations.filter_map(|situation| situation.routed());
        let table = build(incarnation, planned, &agent.known.maintenance, ingress);
        // Without the quorum nothing is known; the last table goes on.
        if table.profiles.is_empty() && agent.known.situations().len() == 0 {
            return;
        }
        let (table, _) = salvage(table, Some(&self.table));
        let is_of_an_old_plan = table.generation <= self.table.generation;
        if agent.mutant == Some(Mutant::EdgeTakesNewerPlansOnly) && is_of_an_old_plan {
            return;
        }
        if check(&table, Some(&self.table)).is_ok() {
            self.table = table;
        }
    }

    /// How it answers for the application.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.table.profiles.first()
    }

    /// Whom it sends a request to that comes to the edge of this cluster.
    pub(crate) fn asks(&self, local: &ClusterName) -> Option<&ClusterName> {
        let endpoint = route(self.profile()?, |_| true, local, &[], 0)?;
        Some(&endpoint.cluster)
    }
}
