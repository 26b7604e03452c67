//! Whether an endpoint is healthy: a pure state machine, and the report of all endpoints that travels to the leader.
//!
//! An endpoint starts unknown and counts as healthy until it is proven otherwise, so that a fresh table serves at
//! once; the first sample decides. After that it turns unhealthy after `tolerated_failures + 1` failures in a row and
//! healthy again after `successes_required` successes in a row. A failure of a live request makes it suspect for one
//! probe interval: it gets no new requests, but its state does not change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Probe;
use crate::name::{AppKey, ClusterName};

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sample {
    /// It answered as it should.
    Success {
        /// Milliseconds from sending the probe to the head of the answer.
        rtt_ms: u64,
    },
    /// It did not, and why.
    Failure(String),
}

/// What is known of one endpoint. All times are milliseconds of the caller's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    healthy: bool,
    known: bool,
    since_ms: u64,
    /// Samples in a row that speak against `healthy`.
    against: u32,
    suspect_until_ms: u64,
    last_error: Option<String>,
    rtt_ms: Option<u64>,
}

impl State {
    /// Not looked at yet: counts as healthy.
    pub fn unknown(now_ms: u64) -> Self {
        Self {
            healthy: true,
            known: false,
            since_ms: now_ms,
            against: 0,
            suspect_until_ms: 0,
            last_error: None,
            rtt_ms: None,
        }
    }

    /// The state after a live request failed: no new requests for one probe interval, or until a probe succeeds.
    #[must_use]
    pub fn suspect(mut self, error: String, policy: &Probe, now_ms: u64) -> Self {
        self.suspect_until_ms = now_ms.saturating_add(policy.interval_ms);
        self.last_error = Some(error);
        self
    }

    /// Whether it should get requests.
    pub fn usable(&self, now_ms: u64) -> bool {
        self.healthy && now_ms >= self.suspect_until_ms
    }

    /// When a suspicion ends.
    pub fn suspect_until_ms(&self) -> u64 {
        self.suspect_until_ms
    }

    /// What is reported of it.
    pub fn health(&self, now_ms: u64) -> Health {
        Health {
            healthy: self.usable(now_ms),
            known: self.known,
            since_ms: self.since_ms,
            last_error: self.last_error.clone(),
            rtt_ms: self.rtt_ms,
        }
    }
}

/// The state after a sample.
#[must_use]
pub fn observe(mut state: State, sample: Sample, policy: &Probe, now_ms: u64) -> State {
    let good = match sample {
        Sample::Success { rtt_ms } => {
            state.rtt_ms = Some(rtt_ms);
            state.suspect_until_ms = 0;
            true
        }
        Sample::Failure(error) => {
            state.last_error = Some(error);
            false
        }
    };
    let limit = match (state.known, state.healthy) {
        (false, _) => 1,
        (true, true) => policy.tolerated_failures.saturating_add(1),
        (true, false) => policy.successes_required,
    };
    state.known = true;
    if good == state.healthy {
        state.against = 0;
        return state;
    }
    state.against = state.against.saturating_add(1);
    if state.against >= limit {
        state.healthy = good;
        state.since_ms = now_ms;
        state.against = 0;
    }
    state
}

/// What one observer knows of an application in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it should get requests.
    pub healthy: bool,
    /// Whether any probe has come back yet.
    pub known: bool,
    /// When it last changed, in milliseconds since the Unix epoch, by the observer's clock.
    pub since_ms: u64,
    /// The last failure, also when it has recovered since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The last good probe's round trip in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u64>,
}

/// What one observer knows of every endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HealthReport {
    /// By cluster and application.
    pub clusters: BTreeMap<ClusterName, BTreeMap<AppKey, Health>>,
}

impl HealthReport {
    /// What is known of an application in a cluster.
    pub fn get(&self, cluster: &ClusterName, app: &AppKey) -> Option<&Health> {
        self.clusters.get(cluster)?.get(app)
    }

    /// Whether an application in a cluster should get requests. What was never looked at should.
    pub fn healthy(&self, cluster: &ClusterName, app: &AppKey) -> bool {
        self.get(cluster, app).is_none_or(|h| h.healthy)
    }
}
