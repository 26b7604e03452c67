//! Condition types and reasons, so that status, events and errors use the same words.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// `True` while a loss of the active region would be survived within the objectives.
pub const PROTECTED: &str = "Protected";

/// `True` while users are answered by the region that the plan names.
pub const SERVING: &str = "Serving";

/// On a `ProtectedApp` with writer roles: `True` while a gate is granted each of them in the active region and no other pod writes there, so that a writer ends with its region's
/// right to write; else `False`, as only what leaves through the edge does.
pub const FENCED: &str = "Fenced";

/// `True` on a `Cluster` whose agent reports, and on an `Operation` that has ended well.
pub const READY: &str = "Ready";

/// `True` on an `Operation` that has ended, whatever its outcome.
pub const COMPLETE: &str = "Complete";

/// On a `Cluster` that is drained: `True` once nothing is active in it.
pub const DRAINED: &str = "Drained";

/// `False` on a `Cluster` that is being deleted while applications have a placement in it.
pub const LEAVING: &str = "Leaving";

/// `False` on a copy of a `Cluster` in another cluster that says something of its maintenance: that counts in the cluster itself only.
pub const EFFECTIVE: &str = "Effective";

/// On an `Operation` that was asked to be called off: `True` when it was, `False` when it was too late for that.
pub const CANCELLED: &str = "Cancelled";

/// Sets one condition in a list. `now` becomes its transition time only when its status changes.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: bool,
    reason: &str,
    message: &str,
    observed_generation: Option<i64>,
    now: jiff::Timestamp,
) {
    let status = if status { "True" } else { "False" };
    let since = conditions
        .iter()
        .find(|c| c.type_ == type_ && c.status == status)
        .map_or(Time(now), |c| c.last_transition_time.clone());
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        set(&mut conditions, READY, true, "Up", "", None, at(1));
        set(&mut conditions, READY, true, "StillUp", "", Some(2), at(5));
        assert_eq!(conditions[0].last_transition_time, Time(at(1)));
        assert_eq!(conditions[0].reason, "StillUp");
        set(&mut conditions, READY, false, "Down", "", None, at(9));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time, Time(at(9)));
    }
}
