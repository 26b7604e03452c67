//! Whether a cluster could take over, and which one does where nobody says so.
//!
//! A report tells what a cluster has; it does not tell that the cluster lives: one that is lost is reported of for a while yet, and one that is cut
//! off from the quorum alone goes on reporting. So what moves asks for the target's lease and for the observers' votes besides ([`unhealthy`]).

use std::collections::BTreeMap;

use super::{Case, Snapshot, VOTES};
use crate::{
    lease::{Moment, Sight, Timing},
    name::{ClusterName, RoleKey},
    report::{AppReport, Seen},
};

/// What a cluster whose lease is not in force lacks: given a role it could neither write in it nor pass it on.
pub fn without_lease(
    leases: &BTreeMap<ClusterName, Sight>,
    cluster: &ClusterName,
    timing: &Timing,
    now: Moment,
) -> Option<String> {
    let sight = leases.get(cluster);
    sight
        .is_none_or(|sight| sight.over(timing, now))
        .then(|| "it has no lease in force: does its agent run, and does it reach the quorum?".to_owned())
}

/// What says that a cluster is lost, or about to be: its lease is not in force, or enough observers miss it.
pub(crate) fn unhealthy(case: &Case<'_>, cluster: &ClusterName) -> Vec<String> {
    let lapsed = without_lease(case.snapshot.leases, cluster, case.timing, case.now);
    let missed = case.snapshot.unseen_by.get(cluster);
    let missed = missed.filter(|observers| observers.len() >= VOTES).map(|observers| {
        let names: Vec<_> = observers.iter().map(String::as_str).collect();
        format!("it is not heard of by {}", names.join(" and "))
    });
    lapsed.into_iter().chain(missed).collect()
}

/// What a cluster lacks for the application to move there without a person who says what may be lost.
fn lacks(case: &Case<'_>, cluster: &ClusterName) -> Vec<String> {
    let mut lacks = unready(case.snapshot, cluster);
    lacks.extend(unhealthy(case, cluster));
    let behind = out_of_sync(case.snapshot, cluster);
    if !behind.is_empty() {
        lacks.push(format!("it is not in sync (role {})", behind.join(", ")));
    }
    lacks
}

/// Where the application moves from a cluster if nobody names the target: of the standbys that lack nothing one that no observer misses, and
/// of those the most preferred.
///
/// # Errors
/// What each of them lacks, for a person.
pub(crate) fn target(case: &Case<'_>, from: &ClusterName) -> Result<ClusterName, String> {
    let (mut able, mut lacking) = (Vec::new(), Vec::new());
    for placement in case.snapshot.app.standbys(from) {
        let cluster = &placement.cluster;
        match lacks(case, cluster) {
            lacks if lacks.is_empty() => able.push(cluster),
            lacks => lacking.push(format!("{cluster}: {}", lacks.join(", "))),
        }
    }
    let missed = |cluster: &&&ClusterName| {
        let observers = case.snapshot.unseen_by.get(**cluster);
        observers.is_some_and(|observers| !observers.is_empty())
    };
    let best = able.iter().min_by_key(missed).map(|cluster| (*cluster).clone());
    best.ok_or_else(|| lacking.join("; "))
}

/// What a cluster lacks to take over; empty when it is ready.
pub fn unready(snapshot: &Snapshot<'_>, cluster: &ClusterName) -> Vec<String> {
    let said = snapshot.maintenance.get(cluster);
    let mut lacks: Vec<_> = said.and_then(|said| said.value.lacks(cluster)).into_iter().collect();
    lacks.extend(not_there(snapshot, cluster));
    lacks
}

fn not_there(snapshot: &Snapshot<'_>, cluster: &ClusterName) -> Vec<String> {
    let Some(seen) = snapshot.reports.get(cluster) else {
        return vec![format!("{cluster} has not reported")];
    };
    if seen.age > Seen::<AppReport>::STALE {
        return vec![format!("{cluster} has not reported for {} s", seen.age.as_secs())];
    }
    let mut missing = seen.value.missing.clone();
    for role in &snapshot.app.roles {
        if seen
            .value
            .roles
            .get(&role.name)
            .and_then(|role| role.point.as_ref())
            .is_none()
        {
            missing.push(format!("no complete point of role {}", role.name));
        }
    }
    missing
}

/// The roles of which a cluster may lack more than the rpo: nothing fails over to it by itself.
pub fn out_of_sync(snapshot: &Snapshot<'_>, cluster: &ClusterName) -> Vec<String> {
    let app = snapshot.app;
    let lacks = |key: &RoleKey| {
        let role = snapshot.roles.get(key);
        role.is_none_or(|role| role.value.owner != *cluster && !role.value.in_sync.contains(cluster))
    };
    app.role_keys().filter(lacks).map(|key| key.role).collect()
}
