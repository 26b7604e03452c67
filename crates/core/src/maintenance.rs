//! A cluster that a person takes out of service for a while, so that it can be worked on or switched off.
//!
//! Cordoned, nothing moves to it. Drained, what is active in it moves away besides: by switchovers, a few at a time, each to a standby that
//! could take over without losing anything. What cannot be moved stays, and is named; taken back into service, a cluster gets nothing back
//! by itself.
//!
//! Invariant: a drain loses nothing and stops nothing that it cannot start elsewhere; whoever loses its cluster meanwhile fails over as ever.

use serde::{Deserialize, Serialize};

use crate::{
    app::Model,
    in_sync::WhenStandbyAway,
    lease::{Moment, Timing},
    name::{AppKey, ClusterName},
    operation::{Kind, Request},
    plan::{self, Case, Commit, Expect, Snapshot, switch_over},
};

/// What a person said of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Maintenance {
    /// It is in service.
    #[default]
    None,
    /// Nothing moves to it.
    Cordon,
    /// Nothing moves to it, and what is active in it moves away.
    Drain,
}

impl Maintenance {
    /// What a cluster lacks while it is out of service, for who would move something there.
    pub fn lacks(self, cluster: &ClusterName) -> Option<String> {
        let word = match self {
            Self::None => return None,
            Self::Cordon => "cordoned",
            Self::Drain => "drained",
        };
        Some(format!(
            "it is {word} for maintenance, and nothing moves there before `leeward uncordon {cluster}`"
        ))
    }
}

/// What a commit compares that moves something to a cluster: that nobody took it out of service meanwhile.
pub(crate) fn in_service(snapshot: &Snapshot<'_>, to: &ClusterName) -> Expect {
    let said = snapshot.maintenance.get(to);
    Expect::Maintenance(to.clone(), said.map_or(0, |said| said.revision))
}

/// The beginning of the names of the operations that a drain makes.
pub const DRAIN: &str = "drain-";

/// Moves an application off a drained cluster, if it can and if there is room for one more to move.
pub(crate) fn drain(case: &Case<'_>) -> Option<Commit> {
    let (snapshot, plan) = (case.snapshot, case.plan);
    let from = &plan.value.active;
    let drained = snapshot.maintenance.get(from)?;
    if drained.value != Maintenance::Drain || !snapshot.may_drain {
        return None;
    }
    let target = target(case, from).ok()??;
    let request = Request {
        id: format!("{DRAIN}{from}-{}", plan.value.generation.next()),
        kind: Kind::Switchover,
        to: target,
        asked_ms: case.wall_ms,
        accept_loss_ms: None,
        cancel: false,
        refused: None,
    };
    let mut commit = switch_over(case, &request);
    // Who was taken back into service an instant ago keeps what it has.
    commit.expects.push(Expect::Maintenance(from.clone(), drained.revision));
    Some(commit)
}

/// Where an application would move from a drained cluster; none where nothing has to move.
///
/// # Errors
/// Why it stays, for a person.
fn target(case: &Case<'_>, from: &ClusterName) -> Result<Option<ClusterName>, String> {
    let snapshot = case.snapshot;
    let app = snapshot.app;
    if app.standbys(from).is_empty() {
        return Err("it has no other placement".into());
    }
    if app.model == Model::ActiveActive {
        return Ok(None);
    }
    if app.paused {
        return Err("it is paused".into());
    }
    if !case.has_lease(from) {
        return Err(format!("{from} has no lease, so it cannot stop in order"));
    }
    plan::target(case, from).map(Some)
}

/// What keeps a drained cluster from being switched off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// What is still active in it, each with what it waits for.
    pub active: Vec<(AppKey, String)>,
    /// What is active elsewhere and stops to write while the cluster is away, as it was asked to.
    pub stops: Vec<AppKey>,
}

/// What an application keeps in a cluster that is drained.
pub fn left(left: &mut Left, snapshot: &Snapshot<'_>, cluster: &ClusterName, timing: &Timing, now: Moment) {
    let app = snapshot.app;
    if app.placement(cluster).is_none() {
        return;
    }
    let Some(plan) = &snapshot.plan else { return };
    let case = Case {
        snapshot,
        plan,
        timing,
        now,
        wall_ms: 0,
    };
    let key = app.key.clone();
    let concerns = |id: &str, step: Option<String>| match step {
        Some(step) => format!("{id} is under way ({step})"),
        None => format!("{id} ends"),
    };
    match &plan.value.operation {
        Some(operation) if operation.from == *cluster || operation.to == *cluster => {
            let step = operation.next_step(&snapshot.journal);
            let step = step.map(|step| format!("{:?} in {}", step.name, step.cluster));
            left.active.push((key, concerns(&operation.id, step)));
        }
        _ if plan.value.active == *cluster || app.model == Model::ActiveActive => match target(&case, cluster) {
            Ok(None) => {}
            Ok(Some(to)) => left.active.push((key, format!("it moves to {to} in its turn"))),
            Err(why) => left.active.push((key, why)),
        },
        _ if app.when_standby_away == WhenStandbyAway::Stop && !app.roles.is_empty() => left.stops.push(key),
        _ => {}
    }
}
