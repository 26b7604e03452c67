//! Whether a pod may be evicted: what its disruption budget still allows, as the controllers keep it. An eviction takes its part at once, so
//! that two at the same time do not both get the last.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};

use super::call::Call;
use super::collect::call;
use super::status::Failure;
use super::{object, time};
use crate::machinery::kinds::Subresource;

const BUDGETS: &str = "poddisruptionbudgets.policy";
const ATTEMPTS: usize = 16;

impl Call {
    /// Takes an eviction of this pod from its budget, if it has one.
    pub(super) async fn spend_disruption(&self, pod: &Value) -> Result<(), Failure> {
        let phase = object::str_at(pod, "/status/phase");
        // It serves nobody, or is about to go anyway.
        if object::is_deleting(pod) || matches!(phase, "Succeeded" | "Failed" | "Pending") {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let all = self.app.store.list(BUDGETS, Some(&self.namespace));
            let mut chosen = all.iter().filter(|budget| chooses(budget, pod));
            let Some(budget) = chosen.next() else { return Ok(()) };
            if chosen.next().is_some() {
                return Err(Failure::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
            if !is_ready(pod) && spares_the_unhealthy(budget) {
                return Ok(());
            }
            allow(budget)?;
            if self.query.dry_run() {
                return Ok(());
            }
            let Some(mut write) = call(&self.app, BUDGETS, &self.namespace, object::name(budget)) else {
                return Ok(());
            };
            write.subresource = Some(Subresource::Status);
            let mut spent = (**budget).clone();
            spent["status"]["disruptionsAllowed"] = (number(budget, "disruptionsAllowed") - 1).into();
            spent["status"]["disruptedPods"][&self.name] = time::now().into();
            match write.update(budget, spent, false).await {
                Err(failure) if failure.reason == "Conflict" => {}
                other => return other.map(|_| ()),
            }
        }
        Err(Failure::modified(&self.resource.kind, &self.name))
    }
}

fn number(budget: &Value, name: &str) -> i64 {
    budget["status"][name].as_i64().unwrap_or(0)
}

// An empty selector chooses every pod, none chooses nothing.
fn chooses(budget: &Value, pod: &Value) -> bool {
    let selector = budget.pointer("/spec/selector").cloned();
    let selector: Option<LabelSelector> = selector.and_then(|selector| serde_json::from_value(selector).ok());
    let labels = pod.pointer("/metadata/labels").cloned().unwrap_or(json!({}));
    let labels = serde_json::from_value(labels).unwrap_or_default();
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    selector.is_some_and(|selector| selector.matches(&labels))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

// A pod that is not ready may go while there are enough others, or always where the budget says so.
fn spares_the_unhealthy(budget: &Value) -> bool {
    let desired = number(budget, "desiredHealthy");
    object::str_at(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow"
        || desired > 0 && number(budget, "currentHealthy") >= desired
}

fn allow(budget: &Value) -> Result<(), Failure> {
    let name = object::name(budget);
    let observed = number(budget, "observedGeneration");
    let refuse = |why: String, wait: Option<u64>| {
        let mut details = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
        if let Some(seconds) = wait {
            details["retryAfterSeconds"] = seconds.into();
        }
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        let mut failure = Failure::new(429, "TooManyRequests", message);
        failure.details = Some(details);
        Err(failure)
    };
    if observed < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return refuse(why, Some(10));
    }
    if number(budget, "disruptionsAllowed") > 0 {
        return Ok(());
    }
    let (desired, current) = (number(budget, "desiredHealthy"), number(budget, "currentHealthy"));
    let why = if current <= desired {
        format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
    } else {
        format!("The disruption budget {name} does not allow evicting pods currently")
    };
    refuse(why, None)
}
