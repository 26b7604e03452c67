//! Why an application waits for what its status says that it waits for, and what a person can do about it.

use leeward_api::ProtectedApp;
use leeward_core::report;

use crate::fleet::{Picture, full_name};

/// The reason behind one entry of `status.waitingFor`, where more can be said than the entry itself says.
pub(super) fn why(picture: &Picture, app: &ProtectedApp, wait: &str) -> Option<String> {
    let status = app.status.as_ref()?;
    if wait == report::PAUSED {
        return Some(format!(
            "a person paused it; its data is mirrored and fenced as ever, and `leeward resume {}` ends that",
            full_name(app)
        ));
    }
    let cluster = app
        .spec
        .placements
        .iter()
        .map(|placement| placement.cluster.as_str())
        .find(|cluster| {
            let rest = wait.strip_prefix(cluster);
            rest.is_some_and(|rest| rest.starts_with([' ', ':']))
        });
    if let Some(cluster) = cluster {
        if let Some(reason) = picture.silence_of(cluster) {
            return Some(format!(
                "its API does not answer ({reason}); the cluster is lost or cut off, and protection is back when it returns"
            ));
        }
        let found = status.placements.iter().find(|placement| placement.cluster == cluster);
        return match found.map(|found| found.state.as_str()) {
            Some("Lost") => Some(
                "its API answers, but its agent does not report: its process, or the peer link, is down".to_owned(),
            ),
            Some("Fenced") => {
                Some("its agent reports, but cannot renew its lease: the quorum has no majority (leeward quorum status), or the lease was sealed".to_owned())
            }
            _ => missing(wait),
        };
    }
    general(app, wait)
}

/// Why something is missing in a cluster that is there.
fn missing(wait: &str) -> Option<String> {
    let known = [
        (
            ": capacity: ",
            "the pods that would start there must find room on nodes that are ready and take them: add a node, take load away, or ask for \
             less there with an override; it goes away by itself",
        ),
        (
            "its configuration",
            "the objects of the application are carried from the active cluster; it is compared at least every few seconds",
        ),
        (
            "no complete point",
            "the first copy of the data is still on its way from the active cluster",
        ),
        (
            "pods have to end",
            "data can only be received while nobody there uses the volumes",
        ),
        (
            "image",
            "every blob of every image must be in that region's own registry, verified; push the image to any region",
        ),
    ];
    let found = known.iter().find(|(part, _)| wait.contains(part));
    found.map(|(_, why)| (*why).to_owned())
}

/// Why something is waited for that belongs to no one cluster.
fn general(app: &ProtectedApp, wait: &str) -> Option<String> {
    let namespace = app.metadata.namespace.as_deref().unwrap_or_default();
    if wait == report::NO_PLAN {
        return Some(
            "no agent has been elected leader yet, or the quorum does not answer: see `leeward doctor`".to_owned(),
        );
    }
    if wait.starts_with(report::NO_ENDPOINT) {
        return Some(format!(
            "no pod of its Service is ready there; `kubectl -n {namespace} get pods,events` shows what they wait for"
        ));
    }
    if wait.ends_with(report::NO_SPARE) {
        return Some(
            "`leeward quorum status` says which of them does not answer; start it again, or add one".to_owned(),
        );
    }
    if wait.starts_with("mirror of role ") {
        return Some("points of its data are not confirmed by the standby in time".to_owned());
    }
    let operation = app.status.as_ref()?.generation.is_some() && wait.contains(" in ");
    operation.then(|| {
        format!(
            "an operation is under way; `leeward status {}` shows its steps",
            full_name(app)
        )
    })
}
