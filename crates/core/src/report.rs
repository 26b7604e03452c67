//! What clusters tell each other, and what is true of an application: a pure function of the same snapshot that the plan
//! is made from.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    app::Model,
    lease::{Moment, Timing},
    name::{AppKey, ClusterName, Epoch},
    plan::{Case, Snapshot, cancellable, out_of_sync, target, unready},
};

/// What is waited for while the leader has not planned yet.
pub const NO_PLAN: &str = "no plan was made yet";
/// What is waited for while a person has paused the application.
pub const PAUSED: &str = "a person to resume it: it is paused, and nothing fails over by itself";
/// The end of what is waited for while something in the quorum cannot be read; its key comes before it.
pub const UNREADABLE: &str = " in the quorum cannot be read: nothing is decided about the application";
/// The end of what is waited for while the quorum cannot lose a member more; which answer comes before it.
pub const NO_SPARE: &str = ": if one more is lost, nothing is decided and nothing fails over";
/// The beginning of what is waited for while nothing answers in a cluster; its name follows.
pub const NO_ENDPOINT: &str = "no ready endpoint in ";

/// A value together with the time since it was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen<T> {
    /// What was heard.
    pub value: T,
    /// How long ago.
    pub age: Duration,
}

impl<T> Seen<T> {
    /// What is older than this says nothing about now.
    pub const STALE: Duration = Duration::from_secs(10);
}

/// What an agent sends to the others, several times within a lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Who reports.
    pub cluster: ClusterName,
    /// The process that reports, so that a restart is seen.
    pub holder: String,
    /// What it says of each application.
    pub apps: BTreeMap<AppKey, AppReport>,
    /// The clusters that it cannot see now.
    pub unseen: Vec<ClusterName>,
}

/// What a cluster says of an application.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AppReport {
    /// What a start here would lack: configuration, images, keys, room on the nodes.
    pub missing: Vec<String>,
    /// What is there in part: a start here would serve, with fewer pods than it should have. Nothing is refused for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub short: Vec<String>,
    /// What of that could not be looked at. Nothing is refused for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// How many of the application's endpoints are ready here.
    pub backends: u32,
    /// How many pods of it run here.
    pub pods: u32,
    /// Each role's data here.
    pub roles: BTreeMap<String, RoleReport>,
}

impl AppReport {
    /// The report of an agent that looked at the application this long ago. One that cannot look any more, because its Kubernetes API
    /// stands still, would go on saying what was true then: it says so instead, and nothing is started there.
    #[must_use]
    pub fn looked_at(mut self, ago: Duration) -> Self {
        if ago > Seen::<Self>::STALE {
            let seconds = Seen::<Self>::STALE.as_secs();
            let late =
                format!("its agent has not seen the application for over {seconds} s: does its Kubernetes API answer?");
            self.missing.insert(0, late);
        }
        self
    }
}

/// What a cluster says of a role's data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RoleReport {
    /// The newest complete point here, in a cluster that stands by.
    pub point: Option<PointReport>,
    /// What the mirror did so far, in a cluster that writes.
    pub mirror: Option<MirrorReport>,
    /// What only this cluster had when it returned, and where it is kept.
    pub kept: Option<String>,
    /// The pod that its gate lets write.
    #[serde(default)]
    pub gate: Option<GateReport>,
}

/// What a gate was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateReport {
    /// The UID of its pod.
    pub pod: String,
    /// At which epoch.
    pub epoch: Epoch,
}

/// A complete point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointReport {
    /// The epoch in which it was taken.
    pub epoch: Epoch,
    /// Its number within the epoch.
    pub sequence: u64,
    /// When it was taken, by the source's wall clock; Unix ms.
    pub source_ms: u64,
}

/// What a mirror did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorReport {
    /// Points that were confirmed.
    pub points: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// The longest pause of the pods, in microseconds.
    pub pause_us_max: u64,
    /// The newest trouble.
    pub trouble: Option<String>,
}

/// What is true of an application.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Whether the loss of the active cluster would be survived within the objectives.
    pub protected: bool,
    /// What has to happen first, most important first.
    pub waiting_for: Vec<String>,
    /// Each placement's state.
    pub placements: Vec<PlacementReport>,
}

impl Report {
    /// Adds what is waited for besides what the snapshot shows.
    pub fn waits_for(&mut self, what: impl IntoIterator<Item = String>) {
        self.waiting_for.extend(what);
        self.protected = self.waiting_for.is_empty();
    }
}

/// One placement's state.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacementReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// What it is doing.
    pub state: PlacementState,
    /// What it lacks.
    pub missing: Vec<String>,
    /// What is there in part.
    pub short: Vec<String>,
    /// What of that could not be looked at.
    pub unknown: Vec<String>,
    /// Its newest point, the oldest of its roles.
    pub point: Option<PointReport>,
    /// Of a standby of an application with roles: whether it lacks no more than the rpo of any of them.
    pub in_sync: Option<bool>,
    /// Whether users can be answered from there: an endpoint is ready, or it has no traffic.
    pub answers: bool,
    /// What it mirrored, all roles together.
    pub mirror: Option<MirrorReport>,
    /// What only it had when it returned.
    pub kept: Option<String>,
    /// The gates that are granted, by role.
    pub gates: BTreeMap<String, GateReport>,
}

/// What a placement is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacementState {
    /// It serves.
    Active,
    /// It stands by.
    Standby,
    /// It has lost its lease, or was sealed, and may not write.
    Fenced,
    /// It is not heard of.
    Lost,
}

impl PlacementState {
    /// The word in the resource's status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Standby => "Standby",
            Self::Fenced => "Fenced",
            Self::Lost => "Lost",
        }
    }
}

/// What is true of the application in a snapshot.
pub fn report(snapshot: &Snapshot<'_>, timing: &Timing, now: Moment) -> Report {
    let app = snapshot.app;
    let placements: Vec<_> = app
        .placements
        .iter()
        .map(|p| placement(snapshot, &p.cluster, timing, now))
        .collect();
    let unreadable = snapshot.unreadable.iter();
    let mut waiting_for: Vec<_> = unreadable.map(|key| format!("{key}{UNREADABLE}")).collect();
    match &snapshot.plan {
        None if !waiting_for.is_empty() => {}
        None => waiting_for.push(NO_PLAN.to_owned()),
        Some(plan) => {
            if let Some(operation) = &plan.value.operation {
                let step = operation.next_step(&snapshot.journal);
                let step = step.map_or("all steps are done".to_owned(), |s| {
                    format!("{:?} in {}", s.name, s.cluster)
                });
                waiting_for.push(format!("{}: {step}", operation.id));
            }
            if app.paused {
                waiting_for.push(PAUSED.to_owned());
            }
            waiting_for.extend(active_trouble(snapshot, &placements, timing, now));
            waiting_for.extend(serving_trouble(snapshot, &placements));
            waiting_for.extend(standby_trouble(snapshot, &plan.value.active, &placements));
        }
    }
    Report {
        protected: waiting_for.is_empty(),
        waiting_for,
        placements,
    }
}

fn placement(snapshot: &Snapshot<'_>, cluster: &ClusterName, timing: &Timing, now: Moment) -> PlacementReport {
    let heard = snapshot
        .reports
        .get(cluster)
        .filter(|seen| seen.age <= timing.ttl.max(Duration::from_secs(2)));
    let holder = snapshot.holders.get(cluster);
    let sight = snapshot.leases.get(cluster);
    let fenced = sight.is_none_or(|sight| sight.over(timing, now) || sight.is_of_another(holder));
    let active = snapshot.plan.as_ref().is_some_and(|plan| plan.value.active == *cluster);
    let state = match (heard, fenced) {
        (None, _) => PlacementState::Lost,
        (Some(_), true) => PlacementState::Fenced,
        (Some(_), false) if active || snapshot.app.model == Model::ActiveActive => PlacementState::Active,
        (Some(_), false) => PlacementState::Standby,
    };
    let missing = if active {
        active_missing(snapshot, cluster)
    } else {
        missing(snapshot, cluster)
    };
    let point = heard.and_then(|seen| {
        let points: Option<Vec<_>> = snapshot
            .app
            .roles
            .iter()
            .map(|role| seen.value.roles.get(&role.name).and_then(|role| role.point.clone()))
            .collect();
        points.and_then(|points| points.into_iter().min_by_key(|point| point.source_ms))
    });
    let mut mirror: Option<MirrorReport> = None;
    let roles = || heard.into_iter().flat_map(|seen| seen.value.roles.values());
    for one in roles().filter_map(|role| role.mirror.as_ref()) {
        let sum = mirror.get_or_insert_default();
        sum.points += one.points;
        sum.bytes_sent += one.bytes_sent;
        sum.pause_us_max = sum.pause_us_max.max(one.pause_us_max);
    }
    let kept = roles().find_map(|role| role.kept.clone());
    let named = heard.into_iter().flat_map(|seen| &seen.value.roles);
    let gates = named.filter_map(|(name, role)| Some((name.clone(), role.gate.clone()?)));
    let answers = snapshot.app.traffic.is_none() || heard.is_some_and(|seen| seen.value.backends > 0);
    let follows = !active && snapshot.plan.is_some() && !snapshot.app.roles.is_empty();
    PlacementReport {
        in_sync: follows.then(|| out_of_sync(snapshot, cluster).is_empty()),
        cluster: cluster.clone(),
        answers,
        state,
        missing,
        short: heard.map(|seen| seen.value.short.clone()).unwrap_or_default(),
        unknown: heard.map(|seen| seen.value.unknown.clone()).unwrap_or_default(),
        point,
        mirror,
        kept,
        gates: gates.collect(),
    }
}

/// What a cluster lacks, of the data only where another one writes.
fn missing(snapshot: &Snapshot<'_>, cluster: &ClusterName) -> Vec<String> {
    match snapshot.app.model {
        Model::ActivePassive => unready(snapshot, cluster),
        Model::ActiveActive => active_missing(snapshot, cluster),
    }
}

fn active_missing(snapshot: &Snapshot<'_>, cluster: &ClusterName) -> Vec<String> {
    snapshot.reports.get(cluster).map_or_else(
        || vec![format!("{cluster} has not reported")],
        |seen| seen.value.missing.clone(),
    )
}

/// Why a lost active cluster has not been left yet.
fn active_trouble(
    snapshot: &Snapshot<'_>,
    placements: &[PlacementReport],
    timing: &Timing,
    now: Moment,
) -> Option<String> {
    if snapshot.app.model == Model::ActiveActive {
        return None;
    }
    let active = &snapshot.plan.as_ref()?.value.active;
    let placement = placements.iter().find(|p| p.cluster == *active)?;
    match placement.state {
        PlacementState::Active | PlacementState::Standby => None,
        PlacementState::Fenced => Some(format!("{active} is active and has no lease")),
        PlacementState::Lost => {
            let votes = snapshot.unseen_by.get(active).map_or(0, |observers| observers.len());
            let stuck = stuck(snapshot, timing, now).map(|why| format!("; {why}"));
            Some(format!(
                "{active} is active and not heard of ({votes} observers miss it){}",
                stuck.unwrap_or_default()
            ))
        }
    }
}

/// Why nothing fails over by itself from an active cluster that is not heard of.
fn stuck(snapshot: &Snapshot<'_>, timing: &Timing, now: Moment) -> Option<String> {
    let plan = snapshot.plan.as_ref()?;
    let (app, active) = (snapshot.app, &plan.value.active);
    let standbys = app.standbys(active);
    if !app.fails_over() || standbys.is_empty() {
        return None;
    }
    if standbys.iter().all(|p| !out_of_sync(snapshot, &p.cluster).is_empty()) {
        let none = "no standby is in sync, so more than the rpo could be lost and nothing fails over by itself: wait for it, or run \
                    `leeward failover` with --accept-data-loss";
        return Some(none.to_owned());
    }
    let case = Case {
        snapshot,
        plan,
        timing,
        now,
        wall_ms: 0,
    };
    // A switchover that its target has not taken yet goes back, or to another one.
    let operation = plan.value.operation.as_ref();
    let taken = operation.is_none_or(|running| cancellable(running, &snapshot.roles, &snapshot.journal).is_err());
    if !taken || !case.is_lost(active) {
        return None;
    }
    let why = target(&case, active).err()?;
    Some(format!("nothing fails over by itself: {why}"))
}

fn serving_trouble(snapshot: &Snapshot<'_>, placements: &[PlacementReport]) -> Vec<String> {
    placements
        .iter()
        .filter(|p| p.state == PlacementState::Active && snapshot.app.traffic.is_some())
        .filter(|p| {
            snapshot
                .reports
                .get(&p.cluster)
                .is_none_or(|seen| seen.value.backends == 0)
        })
        .map(|p| format!("{NO_ENDPOINT}{}", p.cluster))
        .collect()
}

fn standby_trouble(snapshot: &Snapshot<'_>, active: &ClusterName, placements: &[PlacementReport]) -> Vec<String> {
    let others: Vec<_> = placements.iter().filter(|p| p.cluster != *active).collect();
    let mut trouble = Vec::new();
    for placement in &others {
        match placement.state {
            PlacementState::Lost => trouble.push(format!("{} is not heard of", placement.cluster)),
            PlacementState::Fenced => trouble.push(format!("{} has no lease", placement.cluster)),
            PlacementState::Active | PlacementState::Standby => {
                let lacks = placement.missing.iter().chain(&placement.short);
                trouble.extend(lacks.map(|m| format!("{}: {m}", placement.cluster)));
                let roles = out_of_sync(snapshot, &placement.cluster);
                if snapshot.app.model == Model::ActivePassive && !roles.is_empty() {
                    trouble.push(format!(
                        "{} is not in sync (role {}): nothing fails over to it by itself",
                        placement.cluster,
                        roles.join(", ")
                    ));
                }
            }
        }
    }
    if let Some(lagging) = lag_trouble(snapshot, &others) {
        trouble.push(lagging);
    }
    trouble
}

/// The newest copy must be younger than rpo. Its age is measured against the newest point that anybody has, since clocks
/// of different machines are not compared: a mirror that stands still is told by the source instead.
fn lag_trouble(snapshot: &Snapshot<'_>, standbys: &[&PlacementReport]) -> Option<String> {
    let troubles: Vec<_> = snapshot
        .reports
        .values()
        .flat_map(|seen| seen.value.roles.iter())
        .filter_map(|(role, report)| Some((role, report.mirror.as_ref()?.trouble.as_ref()?)))
        .map(|(role, trouble)| format!("mirror of role {role}: {trouble}"))
        .collect();
    let standing_by = standbys.iter().any(|p| p.state == PlacementState::Standby);
    (standing_by && !troubles.is_empty()).then(|| troubles.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_cannot_look_any_more_says_so() {
        let report = AppReport::default();
        assert_eq!(report.clone().looked_at(Duration::from_secs(10)), report);
        let late = report.looked_at(Duration::from_secs(11));
        assert!(late.missing[0].contains("Kubernetes API"), "{:?}", late.missing);
    }
}
