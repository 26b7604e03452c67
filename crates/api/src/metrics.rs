//! What an agent and a witness say of themselves to Prometheus: one table, by which metrics are written, documented and looked for in alerts and
//! panels.
//!
//! A metric is here only together with the code that gives it a value; tests scrape an agent and a witness and compare. Labels name applications,
//! roles, clusters and fixed words, so that there are never more series than applications times clusters.

/// A family of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The family's name, with its unit and without what a type adds, such as `_total`.
    pub family: &'static str,
    /// The type.
    pub kind: Kind,
    /// The unit, which the family's name ends with.
    pub unit: Option<Unit>,
    /// The names of the labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// Who has it.
    pub by: By,
    /// What it means, in one sentence that ends with a full stop.
    pub meaning: &'static str,
}

/// A type of metrics, as OpenMetrics names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and begins at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often a value fell into each of some ranges.
    Histogram,
    /// What does not change, in its labels.
    Info,
}

impl Kind {
    /// The word of OpenMetrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// A base unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Of time.
    Seconds,
    /// Of size.
    Bytes,
}

impl Unit {
    /// The word in a metric's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
        }
    }
}

/// Who has a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// `leeward serve`.
    Agent,
    /// `leeward witness`.
    Witness,
    /// Both.
    Each,
}

impl By {
    /// Whether an agent has it.
    pub fn agent(self) -> bool {
        self != Self::Witness
    }

    /// Whether a witness has it.
    pub fn witness(self) -> bool {
        self != Self::Agent
    }
}

impl Metric {
    /// The name by which it is queried, but for a histogram, of which that is what its samples' names begin with.
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.family),
            Kind::Info => format!("{}_info", self.family),
            Kind::Gauge | Kind::Histogram => self.family.to_owned(),
        }
    }

    /// The names of its samples.
    pub fn samples(&self) -> Vec<String> {
        match self.kind {
            Kind::Histogram => ["bucket", "sum", "count"]
                .map(|end| format!("{}_{end}", self.family))
                .into(),
            _ => vec![self.name()],
        }
    }
}

macro_rules! metrics {
    ($($name:ident: $family:literal, $kind:ident $($unit:ident)?, [$($label:literal),*], $by:ident, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $name: Metric = Metric {
                family: $family,
                kind: Kind::$kind,
                unit: metrics!(@unit $($unit)?),
                labels: &[$($label),*],
                by: By::$by,
                meaning: $meaning,
            };
        )*
        /// Every metric.
        pub const ALL: &[Metric] = &[$($name),*];
    };
    (@unit) => { None };
    (@unit $unit:ident) => { Some(Unit::$unit) };
}

metrics! {
    APP_CONDITION: "leeward_app_condition", Gauge, ["namespace", "app", "condition"], Agent,
        "1 while the condition of the ProtectedApp is True, 0 while it is False: Protected, Serving, Fenced.";
    APP_ACTIVE: "leeward_app_active", Gauge, ["namespace", "app", "cluster"], Agent,
        "1 for the cluster that has the application, 0 for its other placements; of an ActiveActive one, 1 for each that serves.";
    APP_READY: "leeward_app_placement_ready", Gauge, ["namespace", "app", "cluster"], Agent,
        "1 while the placement is heard of and lacks nothing that a start there needs, else 0.";
    APP_MISSING: "leeward_app_placement_missing", Gauge, ["namespace", "app", "cluster"], Agent,
        "How many things a start in the placement lacks, as status.placements[].missing lists them.";
    APP_ENDPOINTS: "leeward_app_endpoints", Gauge, ["namespace", "app", "cluster"], Agent,
        "How many endpoints of the application are ready in the placement, as its agent said last.";
    APP_IN_SYNC: "leeward_app_in_sync", Gauge, ["namespace", "app", "cluster"], Agent,
        "Of a standby of an application with roles: 1 while it lacks no more than the rpo, else 0.";
    APP_LOSS: "leeward_app_loss_seconds", Gauge Seconds, ["namespace", "app", "cluster"], Agent,
        "What would be lost if the active cluster were lost now and this standby took over: the last writes of this time; none while that is not known.";
    APP_RPO: "leeward_app_rpo_objective_seconds", Gauge Seconds, ["namespace", "app"], Agent,
        "The rpo that is asked for.";
    APP_RTO: "leeward_app_rto_objective_seconds", Gauge Seconds, ["namespace", "app"], Agent,
        "The rto that is asked for.";
    APP_LAST_RPO: "leeward_app_last_rpo_seconds", Gauge Seconds, ["namespace", "app"], Agent,
        "What the last failover lost, as status.lastRpo; none before the first one.";
    APP_LAST_RTO: "leeward_app_last_rto_seconds", Gauge Seconds, ["namespace", "app"], Agent,
        "How long the last failover took, as status.lastRto; none before the first one.";
    APP_GENERATION: "leeward_app_generation", Gauge, ["namespace", "app"], Agent,
        "The generation of the newest plan.";
    APP_PAUSED: "leeward_app_paused", Gauge, ["namespace", "app"], Agent,
        "1 while a person has paused the application, so that nothing fails over by itself, else 0.";
    APP_OPERATION: "leeward_app_operation_running_seconds", Gauge Seconds, ["namespace", "app", "kind"], Agent,
        "How long ago the operation that runs was decided on; none while none runs.";
    ROLE_LAG: "leeward_role_lag_seconds", Gauge Seconds, ["namespace", "app", "role", "cluster"], Agent,
        "The age of the newest complete point that a standby has of the role; once the lease of the active cluster is over, the age at that moment.";
    ROLE_EPOCH: "leeward_role_epoch", Gauge, ["namespace", "app", "role"], Agent,
        "The epoch of the role; it never falls.";
    APP_IMAGES_MISSING: "leeward_app_images_missing", Gauge, ["namespace", "app"], Agent,
        "How many images of the application are not whole and verified in this region's registry.";
    MIRROR_POINTS: "leeward_mirror_points", Counter, ["namespace", "app", "role"], Agent,
        "Points of the role that this region took and its standbys confirmed; it begins anew with each mirror.";
    MIRROR_BYTES: "leeward_mirror_sent_bytes", Counter Bytes, ["namespace", "app", "role"], Agent,
        "Bytes that this region sent for them.";
    MIRROR_PAUSE: "leeward_mirror_longest_pause_seconds", Gauge Seconds, ["namespace", "app", "role"], Agent,
        "The longest time that the role's pods stood still for a point.";
    OPERATIONS: "leeward_operations", Counter, ["namespace", "app", "kind", "outcome"], Agent,
        "Operations whose end this agent saw. Each agent counts, so take the highest of the regions.";
    OPERATION_DURATION: "leeward_operation_duration_seconds", Histogram Seconds, ["kind"], Agent,
        "How long those that succeeded took, from the first sign of the fault or from the request.";
    STEP_DURATION: "leeward_operation_step_duration_seconds", Histogram Seconds, ["step"], Agent,
        "How long their steps took.";
    CLUSTER_LEASE: "leeward_cluster_lease_held", Gauge, ["cluster"], Agent,
        "1 while the lease of the cluster is not over as this agent sees it, else 0: what the cluster serves with a writer role is fenced then.";
    CLUSTER_LEASE_AGE: "leeward_cluster_lease_age_seconds", Gauge Seconds, ["cluster"], Agent,
        "How long ago this agent saw the newest renewal of the cluster's lease.";
    CLUSTER_MISSED_BY: "leeward_cluster_missed_by", Gauge, ["cluster"], Agent,
        "How many observers, agents and the witness, do not hear of the cluster; with two of them, and its lease over, it is lost.";
    CLUSTER_OUT_OF_SERVICE: "leeward_cluster_out_of_service", Gauge, ["cluster"], Agent,
        "1 while the cluster is cordoned or drained for maintenance, else 0.";
    LEASE_TTL: "leeward_lease_ttl_seconds", Gauge Seconds, [], Agent,
        "A lease's time to live.";
    LEASE_LEFT: "leeward_lease_remaining_seconds", Gauge Seconds, ["cluster"], Agent,
        "For how long this agent, in its cluster, may still let answers out by its last renewal; 0 while it may not.";
    RENEWALS: "leeward_lease_renewals", Counter, ["cluster", "outcome"], Agent,
        "Renewals of its cluster's lease by this agent: renewed; refused, when the lease was sealed or taken; unanswered.";
    LEADER: "leeward_leader", Gauge, [], Agent,
        "1 while this agent decides for all regions, else 0.";
    QUORUM_ROUND_TRIP: "leeward_quorum_round_trip_seconds", Histogram Seconds, [], Agent,
        "From sending a transaction to the quorum until its answer.";
    QUORUM_FAILURES: "leeward_quorum_failures", Counter, [], Agent,
        "Transactions that the quorum did not answer or refused to.";
    QUORUM_REVISION: "leeward_quorum_revision", Gauge, [], Agent,
        "The revision of the quorum that this agent has read.";
    EDGE_REQUESTS: "leeward_edge_requests", Counter, ["namespace", "app", "cluster", "code"], Agent,
        "Requests that came in at this region's edge, by the cluster that answered and the class of the status; none where no cluster did.";
    EDGE_DURATION: "leeward_edge_request_duration_seconds", Histogram Seconds, [], Agent,
        "From the head of a request at this region's edge until the head of its answer.";
    EDGE_FORWARDED: "leeward_edge_forwarded", Counter, [], Agent,
        "Tries at the edge of another cluster.";
    EDGE_RETRIES: "leeward_edge_retries", Counter, [], Agent,
        "Tries of a request after its first one.";
    EDGE_REJECTED: "leeward_edge_rejected", Counter, [], Agent,
        "Requests that were malformed, or for a host that no application has.";
    EDGE_NOT_DELIVERED: "leeward_edge_not_delivered", Counter, [], Agent,
        "Requests that no application saw, and that were answered so.";
    EDGE_UNKNOWN: "leeward_edge_unknown", Counter, [], Agent,
        "Requests that an application may have seen without an answer.";
    EDGE_NOT_ADMITTED: "leeward_edge_not_admitted", Counter, [], Agent,
        "Tries at this region's pods that were not made since it holds no grant for the writer role: refused writes, and reads of a writer.";
    EDGE_FENCED: "leeward_edge_fenced", Counter, [], Agent,
        "Answers of a writer that were held back or cut off since this region's right to write had ended.";
    EDGE_CONNECTIONS: "leeward_edge_open_connections", Gauge, [], Agent,
        "Connections that are open at this region's edge.";
    PROBES: "leeward_probes", Counter, ["result"], Agent,
        "Health probes of this region's edge: healthy, unhealthy.";
    PROBE_HEALTHY: "leeward_probe_healthy", Gauge, ["namespace", "app", "cluster"], Agent,
        "1 while this region's edge may send requests for the application to the cluster by what its probes found, else 0.";
    PROBE_ROUND_TRIP: "leeward_probe_round_trip_seconds", Gauge Seconds, ["namespace", "app", "cluster"], Agent,
        "The round trip of the last good probe.";
    IMAGES_COPIED: "leeward_images_copied", Counter, [], Agent,
        "Manifests, tags and blobs that were taken over from other regions' registries.";
    IMAGES_FAILED: "leeward_images_copy_failures", Counter, [], Agent,
        "Attempts at that which failed and are made again.";
    IMAGES_WANTED: "leeward_images_missing_blobs", Gauge, [], Agent,
        "Blobs that an image here names and that are not here whole.";
    API_REQUESTS: "leeward_kubernetes_requests", Counter, ["verb", "resource"], Agent,
        "Requests to this cluster's Kubernetes API; a watch counts once each time that it begins.";
    API_UP: "leeward_kubernetes_up", Gauge, [], Agent,
        "1 while this cluster's Kubernetes API answers, else 0.";
    WITNESS_HEARD: "leeward_witness_heard_seconds", Gauge Seconds, ["cluster"], Witness,
        "How long ago the witness heard of the cluster.";
    BUILD: "leeward_build", Info, ["version"], Each,
        "The version of the program.";
    PROCESS_CPU: "process_cpu_seconds", Counter Seconds, [], Each,
        "Time that the process has had of the processors.";
    PROCESS_MEMORY: "process_resident_memory_bytes", Gauge Bytes, [], Each,
        "How much memory the process has.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            let family = metric.family;
            assert!(names.insert(family), "{family} twice");
            assert!(
                family.starts_with("leeward_") || family.starts_with("process_"),
                "{family}"
            );
            let letters = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(family.chars().all(letters), "{family}");
            let reserved = ["_total", "_info", "_bucket", "_sum", "_count"];
            assert!(!reserved.iter().any(|end| family.ends_with(end)), "{family}");
            let units = [Unit::Seconds, Unit::Bytes];
            let named = units.into_iter().find(|unit| family.ends_with(unit.as_str()));
            assert_eq!(named, metric.unit, "{family}");
            assert!(metric.meaning.ends_with('.'), "{family}: {}", metric.meaning);
        }
    }
}
