//! Which cluster answers a request: the routing table, the check that a new table must pass, and the choice itself.
//!
//! Flow: [`build`] turns the committed plans into a [`Table`]; [`check`] refuses one that would answer nothing or take a writer back;
//! [`route`] picks one endpoint of a [`Profile`] for one request. Health comes from [`health`]: a pure state machine fed
//! by probes and by failures of live requests.
//!
//! Rules of the choice, in order:
//! 1. An application with a writer role is answered by the writer's cluster only, whatever its health: no other
//!    cluster may answer for it.
//! 2. Disabled endpoints and those already tried are left out.
//! 3. Healthy endpoints go before the rest. When none is healthy all count as healthy: an answer that may fail is
//!    better than a refusal that is certain.
//! 4. The local cluster, where the profile prefers it and it survived rule 3.
//! 5. The lowest priority number, then by weight among equals.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::name::{AppKey, ClusterName, Epoch, Generation};

mod build;
pub mod health;
mod table;

pub use build::{Basis, build};
pub use table::{Index, Problem, TableError, check, salvage};

/// Everything that an edge needs to answer: immutable, replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The plan that the table was made from. Never goes back.
    pub generation: Generation,
    /// One profile an application.
    pub profiles: Vec<Profile>,
}

/// How requests of one application are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The application.
    pub app: AppKey,
    /// Host names (lower case, without port) that lead to it. Each belongs to one profile of the table.
    pub hosts: Vec<String>,
    /// Who alone may answer, for an application with a writer role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<Writer>,
    /// The clusters that can serve it.
    pub endpoints: Vec<Endpoint>,
    /// Whether an edge prefers its own cluster, when healthy, to those of a lower priority number.
    #[serde(default)]
    pub prefer_local: bool,
    /// How its endpoints are probed.
    #[serde(default)]
    pub probe: Probe,
    /// How long a request may take.
    #[serde(default)]
    pub timing: Timing,
}

/// The one cluster that may answer for a writer role, and since which epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The cluster of the writer.
    pub cluster: ClusterName,
    /// Its epoch. Answers of a lower one are not let out.
    pub epoch: Epoch,
}

/// A cluster that can serve an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The cluster.
    pub cluster: ClusterName,
    /// The address of its edge.
    pub address: SocketAddr,
    /// 1 (first) to 5.
    pub priority: u8,
    /// 1 to 1000: its share among endpoints of the same priority.
    pub weight: u16,
    /// A person's switch: a disabled endpoint gets no request and no probe.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// How endpoints of a profile are probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Requested with GET; 200 to 399 is success.
    pub path: String,
    /// Milliseconds between two probes of one endpoint; at least 1,000.
    pub interval_ms: u64,
    /// Milliseconds until a probe counts as failed; at most the interval.
    pub timeout_ms: u64,
    /// Failures in a row that are still tolerated: one more and the endpoint is unhealthy.
    pub tolerated_failures: u32,
    /// Successes in a row that make an unhealthy endpoint healthy; at least 1.
    pub successes_required: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            interval_ms: 1_000,
            timeout_ms: 500,
            tolerated_failures: 1,
            successes_required: 1,
        }
    }
}

/// How long a request may take, in milliseconds until the head of the answer. The body of an answer takes as long as it
/// takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// One try of a request that is safe to repeat, where another endpoint or backend is left to try.
    pub try_ms: u64,
    /// All tries of a request that is safe to repeat.
    pub safe_ms: u64,
    /// A request that is not safe to repeat.
    pub unsafe_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            try_ms: 400,
            safe_ms: 2_000,
            unsafe_ms: 30_000,
        }
    }
}

fn yes() -> bool {
    true
}

impl Profile {
    /// The endpoint in a cluster.
    pub fn endpoint(&self, cluster: &ClusterName) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.cluster == *cluster)
    }
}

/// Picks the endpoint for one request by the rules of the module; `None` when every endpoint was tried, is disabled, or
/// may not answer.
///
/// `random` decides among equals: equal numbers give equal answers.
pub fn route<'a>(
    profile: &'a Profile,
    healthy: impl Fn(&ClusterName) -> bool,
    local: &ClusterName,
    tried: &[ClusterName],
    random: u64,
) -> Option<&'a Endpoint> {
    let open = |e: &Endpoint| e.enabled && !tried.contains(&e.cluster);
    if let Some(writer) = &profile.writer {
        return profile.endpoint(&writer.cluster).filter(|e| open(e));
    }
    let any_healthy = profile.endpoints.iter().any(|e| open(e) && healthy(&e.cluster));
    let usable = |e: &Endpoint| open(e) && (!any_healthy || healthy(&e.cluster));

    if profile.prefer_local
        && let Some(own) = profile.endpoint(local).filter(|e| usable(e))
    {
        return Some(own);
    }
    let first = profile
        .endpoints
        .iter()
        .filter(|e| usable(e))
        .map(|e| e.priority)
        .min()?;
    let equals = || profile.endpoints.iter().filter(|e| usable(e) && e.priority == first);
    let total: u64 = equals().map(|e| u64::from(e.weight)).sum();
    let mut left = random.checked_rem(total)?;
    equals().find(|e| {
        let weight = u64::from(e.weight);
        let chosen = left < weight;
        left = left.saturating_sub(weight);
        chosen
    })
}

#[cfg(test)]
mod tests;
