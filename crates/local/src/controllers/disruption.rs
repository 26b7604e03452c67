//! PodDisruptionBudget: how many of its pods may be evicted now. The API decides about an eviction by what stands here.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, LabelSelector, Time},
        util::intstr::IntOrString,
    },
};
use serde_json::{Value, json};

use super::{
    action::{Action, Kind, News, Target, value},
    deployment::resolve,
    object::{self, is_ready, is_terminating, time},
    replica_set::differs,
};

const FROM: &str = "controllermanager";
/// How long an evicted pod counts as about to go.
const PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// What to do for one budget. `pods` are those of its namespace; `replicas` says how many pods the controller with this uid is told to have.
pub fn plan(
    budget: &PodDisruptionBudget,
    pods: &[&Pod],
    replicas: impl Fn(&str) -> Option<i32>,
    now: Timestamp,
) -> Vec<Action> {
    let Some(spec) = &budget.spec else { return Vec::new() };
    let chosen: Vec<&Pod> = pods
        .iter()
        .copied()
        .filter(|pod| chooses(spec.selector.as_ref(), pod))
        .collect();
    let (expected, desired) = expectation(spec, &chosen, replicas);
    let disrupted = budget
        .status
        .as_ref()
        .and_then(|status| status.disrupted_pods.clone())
        .unwrap_or_default();
    let expiry = |pod: &Pod| {
        let since = disrupted.get(pod.metadata.name.as_ref()?)?.0;
        since
            .checked_add(PATIENCE)
            .ok()
            .filter(|end| *end > now && !is_terminating(&pod.metadata))
    };
    let healthy = chosen
        .iter()
        .filter(|pod| !is_terminating(&pod.metadata) && expiry(pod).is_none() && is_ready(pod));
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let kept = |name: &String| {
        let pod = chosen.iter().find(|pod| pod.metadata.name.as_ref() == Some(name));
        pod.is_some_and(|pod| expiry(pod).is_some())
    };
    let marks: BTreeMap<&String, Option<&Time>> = disrupted
        .iter()
        .map(|(name, at)| (name, kept(name).then_some(at)))
        .collect();
    let status = json!({
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        "observedGeneration": budget.metadata.generation,
        "disruptedPods": if marks.values().any(Option::is_some) { value(&marks) } else { Value::Null },
        "conditions": [condition(budget, allowed, now)],
    });
    let mut actions: Vec<Action> = chosen
        .iter()
        .filter_map(|pod| expiry(pod))
        .min()
        .map(Action::LookAgain)
        .into_iter()
        .collect();
    if differs(&value(&budget.status), &status) {
        let target = Target::new(Kind::PodDisruptionBudget, &budget.metadata);
        actions.push(Action::Patch {
            target: target.clone(),
            status: true,
            // An eviction writes here, too.
            patch: json!({"metadata": {"resourceVersion": budget.metadata.resource_version}, "status": status}),
        });
        if chosen.is_empty() {
            actions.push(Action::told(
                target,
                News::normal(FROM, "NoPods", "No matching pods found"),
            ));
        }
    }
    actions
}

// An empty selector chooses every pod, none chooses nothing.
fn chooses(selector: Option<&LabelSelector>, pod: &Pod) -> bool {
    selector.is_some_and(|selector| {
        *selector == LabelSelector::default() || object::selects(selector, pod.metadata.labels.as_ref())
    })
}

// How many pods there should be, and how many of them have to be healthy.
fn expectation(spec: &PodDisruptionBudgetSpec, pods: &[&Pod], replicas: impl Fn(&str) -> Option<i32>) -> (i32, i32) {
    let scale = || {
        let owners = pods.iter().filter_map(|pod| object::controller(&pod.metadata));
        let owners: std::collections::BTreeSet<&str> = owners.map(|owner| owner.uid.as_str()).collect();
        owners.into_iter().filter_map(&replicas).sum::<i32>()
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(limit), _) => {
            let expected = scale();
            (expected, (expected - resolve(limit, expected, true)).max(0))
        }
        (None, Some(IntOrString::Int(least))) => (i32::try_from(pods.len()).unwrap_or(i32::MAX), *least),
        (None, Some(share)) => {
            let expected = scale();
            (expected, resolve(share, expected, true))
        }
        (None, None) => (0, 0),
    }
}

fn condition(budget: &PodDisruptionBudget, allowed: i32, now: Timestamp) -> Condition {
    let (status, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let known = budget
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref()?.first());
    let known = known.filter(|known| known.status == status);
    let since = known.map(|known| known.last_transition_time.clone());
    Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since.unwrap_or_else(|| time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::samples::{now, object_of, pod, ready};

    fn budget(spec: Value) -> PodDisruptionBudget {
        let mut budget = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "budget", "generation": 1},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
        });
        json_patch::merge(&mut budget["spec"], &spec);
        object_of(budget)
    }

    fn status(budget: &PodDisruptionBudget, pods: &[Pod], at: Timestamp) -> Value {
        let pods: Vec<&Pod> = pods.iter().collect();
        let actions = plan(budget, &pods, |uid| (uid == "set").then_some(4), at);
        let patch = actions.into_iter().find_map(|action| match action {
            Action::Patch { patch, .. } => Some(patch["status"].clone()),
            _ => None,
        });
        patch.unwrap_or_default()
    }

    fn numbers(spec: Value, pods: &[Pod]) -> [i64; 4] {
        let status = status(&budget(spec), pods, now());
        ["expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed"]
            .map(|name| status[name].as_i64().unwrap())
    }

    #[test]
    fn what_may_be_missing_is_counted_from_what_there_should_be() {
        let pods = [
            ready(pod("a", "set")),
            ready(pod("b", "set")),
            ready(pod("c", "set")),
            pod("d", "set"),
        ];
        for (spec, wanted) in [
            (json!({"minAvailable": 2}), [4, 2, 3, 1]),
            (json!({"minAvailable": "50%"}), [4, 2, 3, 1]),
            (json!({"minAvailable": "51%"}), [4, 3, 3, 0]),
            (json!({"maxUnavailable": 1}), [4, 3, 3, 0]),
            (json!({"maxUnavailable": "50%"}), [4, 2, 3, 1]),
            (json!({"maxUnavailable": 9}), [4, 0, 3, 3]),
        ] {
            assert_eq!(numbers(spec.clone(), &pods), wanted, "{spec}");
        }
        assert_eq!(numbers(json!({"minAvailable": 0}), &[]), [0, 0, 0, 0]);
    }

    #[test]
    fn an_evicted_pod_counts_as_gone_for_two_minutes() {
        let mut budget = budget(json!({"minAvailable": 1}));
        let pods = [ready(pod("a", "set")), ready(pod("b", "set"))];
        let mut known = status(&budget, &pods, now());
        assert_eq!(known["disruptionsAllowed"], 1);
        assert_eq!(known["conditions"][0]["reason"], "SufficientPods");
        known["disruptedPods"] = json!({"a": now().to_string()});
        budget.status = Some(object_of(known));
        let next = status(&budget, &pods, now() + SignedDuration::from_secs(119));
        assert_eq!(
            (&next["disruptionsAllowed"], &next["conditions"][0]["reason"]),
            (&json!(0), &json!("InsufficientPods"))
        );
        let later = status(&budget, &pods, now() + SignedDuration::from_secs(120));
        assert_eq!(later["disruptedPods"], Value::Null);
    }

    #[test]
    fn an_empty_selector_chooses_every_pod() {
        let mut budget = budget(json!({"minAvailable": 1}));
        let mut other = ready(pod("a", "set"));
        other.metadata.labels = None;
        let pods = [other];
        assert_eq!(status(&budget, &pods, now())["expectedPods"], 0);
        budget.spec.as_mut().unwrap().selector = Some(LabelSelector::default());
        assert_eq!(status(&budget, &pods, now())["expectedPods"], 1);
    }
}
