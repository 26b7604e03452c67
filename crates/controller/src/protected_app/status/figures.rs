//! What of a status changes all the time while nothing happens: ages, and counts of what is mirrored. Such a change alone is shown every few seconds
//! rather than each second, so that applications at rest cost the API server little. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use leeward_api::{ProtectedAppStatus, app::MirrorStatus};

/// Figures alone are written at most this often.
pub(in crate::protected_app) const EVERY: Duration = Duration::from_secs(10);

/// Whether nothing but figures is different.
pub(in crate::protected_app) fn only(before: &ProtectedAppStatus, after: &ProtectedAppStatus) -> bool {
    without(before) == without(after)
}

fn without(status: &ProtectedAppStatus) -> ProtectedAppStatus {
    let mut status = status.clone();
    for placement in &mut status.placements {
        // Whether there is one is more than a figure.
        placement.lag = placement.lag.map(|_| Duration::ZERO.into());
        placement.last_point = placement.last_point.take().map(|_| Time(jiff::Timestamp::UNIX_EPOCH));
        placement.mirror = placement.mirror.take().map(|mirror| MirrorStatus {
            points: mirror.points.min(1),
            bytes_sent: 0,
            longest_pause_ms: 0,
        });
        placement.missing.iter_mut().for_each(blank);
    }
    status.waiting_for.iter_mut().for_each(blank);
    for condition in &mut status.conditions {
        blank(&mut condition.message);
    }
    status
}

/// A sentence without its numbers: `1200 ms behind` and `2300 ms behind` say the same.
fn blank(text: &mut String) {
    text.retain(|c| !c.is_ascii_digit());
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(more: Value) -> ProtectedAppStatus {
        let mut status = json!({
            "active": "west",
            "placements": [
                { "cluster": "west", "state": "Active", "ready": true,
                  "mirror": { "points": 7, "bytesSent": 100, "longestPauseMs": 2 } },
                { "cluster": "east", "state": "Standby", "ready": true, "lag": "2s", "lastPoint": "2026-11-22T15:00:00Z" },
            ],
            "waitingFor": ["east: 1200 ms behind, more than the rpo"],
        });
        json_patch::merge(&mut status, &more);
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn what_changes_while_nothing_happens_is_a_figure_and_nothing_else_is() {
        let west = |mirror: Value| json!({ "cluster": "west", "state": "Active", "ready": true, "mirror": mirror });
        let east = |lag: Value, point: Value, ready: bool, missing: Value| json!({ "cluster": "east", "state": "Standby", "ready": ready, "lag": lag, "lastPoint": point, "missing": missing });
        let mirror = json!({ "points": 7, "bytesSent": 100, "longestPauseMs": 2 });
        let later = json!("2026-11-22T15:00:05Z");
        let point = json!("2026-11-22T15:00:00Z");
        for (name, more, figures) in [
            ("nothing", json!({}), true),
            (
                "a lag and a point",
                json!({ "placements": [west(mirror.clone()), east(json!("4s"), later, true, json!([]))] }),
                true,
            ),
            (
                "what was mirrored",
                json!({ "placements": [west(json!({ "points": 8, "bytesSent": 120, "longestPauseMs": 3 })),
                    east(json!("2s"), point.clone(), true, json!([]))] }),
                true,
            ),
            (
                "how far behind",
                json!({ "waitingFor": ["east: 2300 ms behind, more than the rpo"] }),
                true,
            ),
            (
                "what is waited for",
                json!({ "waitingFor": ["east is not heard of"] }),
                false,
            ),
            ("nothing is waited for", json!({ "waitingFor": [] }), false),
            ("who is active", json!({ "active": "east" }), false),
            (
                "the first point",
                json!({ "placements": [west(mirror.clone()), east(Value::Null, Value::Null, true, json!([]))] }),
                false,
            ),
            (
                "what is lacking",
                json!({ "placements": [west(mirror), east(json!("2s"), point, false, json!(["Secret a is not here yet"]))] }),
                false,
            ),
        ] {
            assert_eq!(only(&status(json!({})), &status(more)), figures, "{name}");
        }
    }
}
