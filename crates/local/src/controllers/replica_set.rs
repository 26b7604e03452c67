//! ReplicaSet: as many pods of a template as asked for.

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use serde_json::{Value, json};

use super::{
    action::{Action, Kind, News, Target, value},
    object::{self, is_active, is_ready, is_terminating},
};

const FROM: &str = "replicaset-controller";
/// How many pods one plan creates at most; the next one goes on.
const BURST: usize = 50;

/// What to do for one ReplicaSet. `pods` are those of its namespace that it controls or that nobody does.
///
/// `seed` differs from plan to plan, so that a name once used is not used again.
pub fn plan(set: &ReplicaSet, pods: &[&Pod], now: Timestamp, seed: u64) -> Vec<Action> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let mut actions = Vec::new();
    let mut owned: Vec<&Pod> = Vec::new();
    for pod in pods {
        let selected = object::selects(&spec.selector, pod.metadata.labels.as_ref());
        let target = || Target::new(Kind::Pod, &pod.metadata);
        if object::controls(&set.metadata, &pod.metadata) {
            if selected {
                owned.push(pod);
            } else if !is_terminating(&pod.metadata) {
                actions.push(Action::patch(target(), object::release(&set.metadata, &pod.metadata)));
            }
        } else if selected
            && object::controller(&pod.metadata).is_none()
            && is_active(pod)
            && !is_terminating(&set.metadata)
        {
            actions.push(Action::patch(target(), object::adoption(set, &pod.metadata)));
            owned.push(pod);
        }
    }
    let active: Vec<&Pod> = owned.iter().copied().filter(|pod| is_active(pod)).collect();
    if !is_terminating(&set.metadata) {
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        if active.len() < wanted {
            let missing = (wanted - active.len()).min(BURST);
            actions.extend((0..missing).flat_map(|index| create(set, index, seed)));
        } else {
            let victims = victims(&active, active.len() - wanted);
            actions.extend(victims.iter().flat_map(|pod| {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let news = News::normal(FROM, "SuccessfulDelete", format!("Deleted pod: {name}"));
                [
                    Action::delete(Target::new(Kind::Pod, &pod.metadata)),
                    Action::told(Target::new(Kind::ReplicaSet, &set.metadata), news),
                ]
            }));
        }
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let soon = active
        .iter()
        .filter_map(|pod| object::available_from(pod, min_ready))
        .filter(|from| *from > now);
    actions.extend(soon.min().map(Action::LookAgain));
    actions.extend(status(set, &owned, &active, now));
    actions
}

fn create(set: &ReplicaSet, index: usize, seed: u64) -> [Action; 2] {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let meta = template.and_then(|template| template.metadata.as_ref());
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let suffix = object::short_hash(&[uid.as_bytes(), &seed.to_le_bytes(), &index.to_le_bytes()], 5);
    let name = format!("{}-{suffix}", object::cut(set_name, 57));
    let news = News::normal(FROM, "SuccessfulCreate", format!("Created pod: {name}"));
    let meta = meta.cloned().unwrap_or_default();
    let pod = object::pod_of(set, name, meta, template.and_then(|template| template.spec.clone()));
    [
        super::action::create(Kind::Pod, &pod),
        Action::told(Target::new(Kind::ReplicaSet, &set.metadata), news),
    ]
}

/// The `count` pods that are missed least: without a node before those with one, not ready before ready, young before old.
pub(super) fn victims<'a>(active: &[&'a Pod], count: usize) -> Vec<&'a Pod> {
    let mut order = active.to_vec();
    order.sort_by_key(|pod| {
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let running = object::phase(pod) == "Running";
        let age = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (
            bound,
            running,
            is_ready(pod),
            std::cmp::Reverse(age),
            pod.metadata.name.clone(),
        )
    });
    order.truncate(count);
    order
}

fn status(set: &ReplicaSet, owned: &[&Pod], active: &[&Pod], now: Timestamp) -> Option<Action> {
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let labels = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let labels = labels
        .and_then(|template| template.metadata.as_ref()?.labels.clone())
        .unwrap_or_default();
    let fully = active.iter().filter(|pod| {
        let has = pod.metadata.labels.as_ref();
        labels
            .iter()
            .all(|(key, value)| has.and_then(|has| has.get(key)) == Some(value))
    });
    let wanted = json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": omit_zero(fully.count()),
        "readyReplicas": omit_zero(active.iter().filter(|pod| is_ready(pod)).count()),
        "availableReplicas": omit_zero(active.iter().filter(|pod| object::is_available(pod, min_ready, now)).count()),
        "terminatingReplicas": owned.iter().filter(|pod| object::is_ending(pod)).count(),
        "observedGeneration": set.metadata.generation,
    });
    differs(&value(&set.status), &wanted).then(|| Action::status(Target::new(Kind::ReplicaSet, &set.metadata), wanted))
}

/// A number of a status that is absent where it is 0.
pub(super) fn omit_zero(count: usize) -> Value {
    if count == 0 { Value::Null } else { count.into() }
}

/// Whether merging `wanted` into `present` would change it.
pub(super) fn differs(present: &Value, wanted: &Value) -> bool {
    crate::machinery::patch::merge(present, wanted).is_ok_and(|merged| merged != *present)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::samples::{names, now, object_of, pod, ready};

    fn set(replicas: i32) -> ReplicaSet {
        object_of(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "set", "generation": 2},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            },
        }))
    }

    fn plan_with(replicas: i32, pods: &[Pod]) -> Vec<Action> {
        plan(&set(replicas), &pods.iter().collect::<Vec<_>>(), now(), 1)
    }

    fn created(actions: &[Action]) -> usize {
        actions
            .iter()
            .filter(|action| matches!(action, Action::Create { .. }))
            .count()
    }

    fn deleted(actions: &[Action]) -> Vec<&str> {
        names(actions.iter().filter_map(|action| match action {
            Action::Delete { target, .. } => Some(target),
            _ => None,
        }))
    }

    #[test]
    fn missing_pods_are_created_under_names_that_differ() {
        let actions = plan_with(3, &[pod("a", "set")]);
        assert_eq!(created(&actions), 2);
        let Action::Create { object: first, .. } = &actions[0] else {
            panic!("{actions:?}")
        };
        let Action::Create { object: second, .. } = &actions[2] else {
            panic!("{actions:?}")
        };
        assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
        assert_eq!(first["metadata"]["ownerReferences"][0]["uid"], "set");
        assert_eq!(first["metadata"]["labels"]["app"], "web");
        let again = plan(&set(3), &[], now(), 2);
        let Action::Create { object: third, .. } = &again[0] else {
            panic!("{again:?}")
        };
        assert_ne!(first["metadata"]["name"], third["metadata"]["name"]);
    }

    #[test]
    fn the_pods_that_are_missed_least_go_first() {
        let pods = [
            ready(pod("kept", "set")),
            pod("unready", "set"),
            ready(pod("kept-too", "set")),
        ];
        assert_eq!(deleted(&plan_with(2, &pods)), ["unready"]);
        assert_eq!(deleted(&plan_with(0, &pods)).len(), 3);
    }

    #[test]
    fn pods_that_end_or_have_ended_do_not_count() {
        let mut ending = ready(pod("ending", "set"));
        ending.metadata.deletion_timestamp = Some(object::time(now()));
        let mut failed = pod("failed", "set");
        failed.status.get_or_insert_default().phase = Some("Failed".to_owned());
        assert_eq!(created(&plan_with(1, &[ending, failed])), 1);
    }

    #[test]
    fn an_orphan_is_adopted_and_a_stranger_released() {
        let mut orphan = pod("orphan", "set");
        orphan.metadata.owner_references = None;
        let mut stranger = pod("stranger", "set");
        stranger.metadata.labels = None;
        let other = pod("other", "another-set");
        let actions = plan_with(1, &[orphan, stranger, other]);
        assert_eq!(created(&actions), 0, "the orphan counts");
        let patched = names(actions.iter().filter_map(|action| match action {
            Action::Patch {
                target, status: false, ..
            } => Some(target),
            _ => None,
        }));
        assert_eq!(patched, ["orphan", "stranger"]);
    }

    #[test]
    fn status_is_written_once() {
        let pods = [ready(pod("a", "set")), pod("b", "set")];
        let actions = plan_with(2, &pods);
        let [
            Action::Patch {
                status: true, patch, ..
            },
        ] = &actions[..]
        else {
            panic!("{actions:?}")
        };
        assert_eq!(patch["status"]["readyReplicas"], 1);
        assert_eq!(patch["status"]["observedGeneration"], 2);
        let mut set = set(2);
        set.status = Some(object_of(patch["status"].clone()));
        assert_eq!(plan(&set, &pods.iter().collect::<Vec<_>>(), now(), 1), []);
    }

    #[test]
    fn a_pod_becomes_available_only_after_min_ready_seconds() {
        let mut set = set(1);
        set.spec.as_mut().unwrap().min_ready_seconds = Some(10);
        let pods = [ready(pod("a", "set"))];
        let pods: Vec<&Pod> = pods.iter().collect();
        let early = plan(&set, &pods, now(), 1);
        let later = now() + jiff::SignedDuration::from_secs(10);
        assert!(early.contains(&Action::LookAgain(later)), "{early:?}");
        let Some(Action::Patch { patch, .. }) = plan(&set, &pods, later, 1).pop() else {
            panic!()
        };
        assert_eq!(patch["status"]["availableReplicas"], 1);
    }

    #[test]
    fn a_set_that_is_being_deleted_starts_nothing() {
        let mut set = set(2);
        set.metadata.deletion_timestamp = Some(object::time(now()));
        assert_eq!(created(&plan(&set, &[], now(), 1)), 0);
    }
}
