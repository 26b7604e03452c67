//! Whether a cluster could take over.

use super::Snapshot;
use crate::{
    name::{ClusterName, RoleKey},
    report::{AppReport, Seen},
};

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
