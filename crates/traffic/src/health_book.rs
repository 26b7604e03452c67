//! What this observer knows of every endpoint: written by probes and by failures of live requests, read by the edge.
//!
//! Writers share a mutex; the edge reads an immutable view that is replaced only when something that routing looks at
//! has changed.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use leeward_core::{
    name::{AppKey, ClusterName},
    routing::{
        Probe, Table,
        health::{HealthReport, Sample, State, observe},
    },
};
use tokio::time::Instant;

type ByCluster<T> = HashMap<ClusterName, T>;

/// The health of every endpoint as seen from here.
#[derive(Debug)]
pub struct HealthBook {
    states: Mutex<HashMap<AppKey, ByCluster<State>>>,
    view: ArcSwap<HashMap<AppKey, ByCluster<State>>>,
    start: Instant,
    start_unix_ms: u64,
}

impl HealthBook {
    pub(crate) fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            states: Mutex::default(),
            view: ArcSwap::default(),
            start: Instant::now(),
            start_unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Milliseconds since the Unix epoch by a clock that does not go back.
    fn now_ms(&self) -> u64 {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.start_unix_ms.saturating_add(passed)
    }

    /// Whether an endpoint should get requests now. What was never looked at should.
    pub fn usable(&self, cluster: &ClusterName, app: &AppKey) -> bool {
        let view = self.view.load();
        match view.get(app).and_then(|clusters| clusters.get(cluster)) {
            Some(state) => state.usable(self.now_ms()),
            None => true,
        }
    }

    /// Takes in what a probe found.
    pub fn observe(&self, cluster: &ClusterName, app: &AppKey, sample: Sample, policy: &Probe) {
        self.change(cluster, app, |state, now| observe(state, sample, policy, now));
    }

    /// A live request failed there: no new ones for one probe interval, or until a probe succeeds.
    pub fn suspect(&self, cluster: &ClusterName, app: &AppKey, error: &str, policy: &Probe) {
        let now = self.now_ms();
        let view = self.view.load();
        let known = view.get(app).and_then(|clusters| clusters.get(cluster));
        // Under a storm of failures only the first one need take the lock.
        if known.is_some_and(|s| s.suspect_until_ms() > now.saturating_add(policy.interval_ms / 2)) {
            return;
        }
        self.change(cluster, app, |state, now| state.suspect(error.to_owned(), policy, now));
    }

    fn change(&self, cluster: &ClusterName, app: &AppKey, next: impl FnOnce(State, u64) -> State) {
        let now = self.now_ms();
        let mut states = self.states();
        let clusters = states.entry(app.clone()).or_default();
        let old = clusters.get(cluster).cloned().unwrap_or_else(|| State::unknown(now));
        let was = (old.usable(now), old.suspect_until_ms());
        let new = next(old, now);
        let is = (new.usable(now), new.suspect_until_ms());
        clusters.insert(cluster.clone(), new);
        if was != is {
            self.view.store(Arc::new(states.clone()));
        }
    }

    /// Forgets endpoints that are not in the table.
    pub(crate) fn retain(&self, table: &Table) {
        let known: HashSet<_> = table
            .profiles
            .iter()
            .flat_map(|p| p.endpoints.iter().map(|e| (&p.app, &e.cluster)))
            .collect();
        let mut states = self.states();
        states.retain(|app, clusters| {
            clusters.retain(|cluster, _| known.contains(&(app, cluster)));
            !clusters.is_empty()
        });
        self.view.store(Arc::new(states.clone()));
    }

    /// What is known of every endpoint, for the agent's report.
    pub fn report(&self) -> HealthReport {
        let now = self.now_ms();
        let mut report = HealthReport::default();
        for (app, clusters) in self.states().iter() {
            for (cluster, state) in clusters {
                let apps = report.clusters.entry(cluster.clone()).or_default();
                apps.insert(app.clone(), state.health(now));
            }
        }
        report
    }

    fn states(&self) -> MutexGuard<'_, HashMap<AppKey, ByCluster<State>>> {
        // Each change replaces one value whole, so a panic elsewhere leaves nothing half done.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
