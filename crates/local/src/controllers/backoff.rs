//! Actions that failed wait, each for itself and longer each time, so that one that cannot succeed neither spins nor holds up others.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::action::{Action, Kind};

/// The longest wait.
const MOST: Duration = Duration::from_secs(30);

// What is tried: a pod that a ReplicaSet could not create has another name the next time, but the same owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Attempt {
    verb: &'static str,
    kind: Kind,
    subject: String,
}

impl Attempt {
    fn of(action: &Action) -> Option<Self> {
        let (verb, kind, subject) = match action {
            Action::Create { kind, object } => ("create", *kind, subject(object)),
            Action::Provision { volume, .. } => ("provision", Kind::PersistentVolume, subject(volume)),
            Action::Patch {
                target, status: true, ..
            } => ("status", target.kind, target.uid.clone()),
            Action::Patch { target, .. } => ("patch", target.kind, target.uid.clone()),
            Action::Delete { target, .. } => ("delete", target.kind, target.uid.clone()),
            Action::Bind { pod, .. } => ("bind", pod.kind, pod.uid.clone()),
            Action::Reclaim { volume, .. } => ("reclaim", volume.kind, volume.uid.clone()),
            Action::Tell { .. } | Action::LookAgain(_) => return None,
        };
        Some(Self { verb, kind, subject })
    }
}

fn subject(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match text("/metadata/ownerReferences/0/uid") {
        "" => format!("{}/{}", text("/metadata/namespace"), text("/metadata/name")),
        owner => owner.to_owned(),
    }
}

/// The actions that wait.
#[derive(Debug, Default)]
pub(super) struct Backoff(HashMap<Attempt, (Instant, Duration)>);

impl Backoff {
    /// Whether the action may be tried now.
    pub(super) fn allows(&self, action: &Action, now: Instant) -> bool {
        let waits = |attempt| self.0.get(&attempt).is_some_and(|(until, _)| *until > now);
        !Attempt::of(action).is_some_and(waits)
    }

    /// It failed: it waits for `first`, or twice as long as the last time.
    pub(super) fn failed(&mut self, action: &Action, first: Duration, now: Instant) {
        if let Some(attempt) = Attempt::of(action) {
            let wait = self
                .0
                .get(&attempt)
                .map_or(first, |(_, last)| (*last * 2).clamp(first, MOST));
            self.0.insert(attempt, (now + wait, wait));
        }
    }

    /// It succeeded: the next time it is tried at once.
    pub(super) fn succeeded(&mut self, action: &Action) {
        if let Some(attempt) = Attempt::of(action).filter(|_| !self.0.is_empty()) {
            self.0.remove(&attempt);
        }
    }

    /// When the next one may be tried again. Forgets those that were not wanted any more when they might have been.
    pub(super) fn next(&mut self, now: Instant) -> Option<Instant> {
        self.0.retain(|_, (until, wait)| *until + *wait + MOST > now);
        self.0
            .values()
            .map(|(until, _)| *until)
            .filter(|until| *until > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, owner: &str) -> Action {
        let object = json!({"metadata": {"namespace": "shop", "name": name, "ownerReferences": [{"uid": owner}]}});
        Action::Create {
            kind: Kind::Pod,
            object,
        }
    }

    #[test]
    fn a_failure_waits_longer_each_time_and_holds_up_nothing_else() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        backoff.failed(&pod("a", "one"), Duration::from_millis(100), start);
        assert!(
            !backoff.allows(&pod("b", "one"), at(99)),
            "another name, but the same attempt"
        );
        assert!(backoff.allows(&pod("c", "two"), start));
        assert_eq!(backoff.next(start), Some(at(100)));
        assert!(backoff.allows(&pod("b", "one"), at(100)));
        backoff.failed(&pod("b", "one"), Duration::from_millis(100), at(100));
        assert_eq!(backoff.next(at(100)), Some(at(300)));
        for _ in 0..20 {
            backoff.failed(&pod("b", "one"), Duration::from_millis(100), at(300));
        }
        assert_eq!(backoff.next(at(300)), Some(at(300) + MOST));
        backoff.succeeded(&pod("b", "one"));
        assert!(backoff.allows(&pod("b", "one"), at(300)));
    }

    #[test]
    fn what_is_not_wanted_any_more_is_forgotten() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        backoff.failed(&pod("a", "one"), Duration::from_millis(100), start);
        assert_eq!(backoff.next(start + MOST * 3), None);
        assert!(backoff.0.is_empty());
    }
}
