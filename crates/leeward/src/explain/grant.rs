//! Who may write in each role, and what that rests on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use leeward_api::{ProtectedApp, ProtectedAppStatus, condition};
use leeward_core::name::Epoch;

/// A line for each writer role, and an empty one after them; nothing for an application without roles.
pub(super) fn writers(app: &ProtectedApp, status: &ProtectedAppStatus) -> Vec<String> {
    if app.spec.roles.is_empty() {
        return vec![];
    }
    let mut lines = vec!["Who may write:".to_owned()];
    for role in &app.spec.roles {
        let granted = status.placements.iter().find_map(|placement| {
            let grant = placement.grants.iter().find(|grant| grant.role == role.name)?;
            Some((placement.cluster.as_str(), grant))
        });
        let name = &role.name;
        lines.push(match granted {
            Some((cluster, grant)) => format!(
                "  role {name}: pod {} in {cluster}, at epoch {}",
                grant.pod,
                Epoch(grant.epoch).readable()
            ),
            None => format!("  role {name}: no gate is granted it"),
        });
        if let Some((cluster, _)) = granted {
            lines.push(format!("    that rests on {}", rests_on(cluster, app, status)));
        }
    }
    let best_effort = |found: &&Condition| found.type_ == condition::FENCED && found.status == "False";
    let best_effort = status.conditions.iter().find(best_effort);
    lines.extend(best_effort.map(|found| format!("  fenced at best effort: {}", found.message)));
    lines.push(String::new());
    lines
}

/// What has to go on for the writer to go on.
fn rests_on(cluster: &str, app: &ProtectedApp, status: &ProtectedAppStatus) -> String {
    let in_sync = status
        .placements
        .iter()
        .filter(|placement| placement.in_sync == Some(true));
    let standbys: Vec<_> = in_sync.map(|placement| placement.cluster.as_str()).collect();
    let lease = format!("the lease of {cluster}");
    match standbys[..] {
        [] => format!("{lease} alone: no standby is in sync"),
        _ => format!(
            "{lease}, and on points that {} confirm{} within the rpo of {}",
            standbys.join(" and "),
            if standbys.len() == 1 { "s" } else { "" },
            app.spec.objectives.rpo
        ),
    }
}
