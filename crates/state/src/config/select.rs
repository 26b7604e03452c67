//! Which objects of a namespace belong to an application.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{ParseExpressionError, Selector, SelectorExt as _};
use leeward_core::name::AppKey;
use serde_json::Value;

use super::autoscaler;
use super::clean::clean;
use super::object::{Id, Kind, has_controller, stays};
use super::references::references;
use super::secrets::Secrets;

/// The application's objects among those of its namespace, cleaned: what the selector matches, the `claims` of its writer roles, and
/// what these refer to, near and far, and the autoscalers of its workloads. Of its Secrets, and of others, those that are asked for.
///
/// What a controller makes from another object (the Pods of a Deployment) is not carried, but where a workload refers to it: its
/// maker may not run where the application stands by.
///
/// # Errors
/// When the selector has an operator that does not exist.
pub fn select(
    app: &AppKey,
    selector: &LabelSelector,
    claims: &[String],
    secrets: &Secrets,
    namespace: &[Value],
) -> Result<Vec<Value>, ParseExpressionError> {
    let selector: Selector = selector.clone().try_into()?;
    let candidates: BTreeMap<Id, &Value> = namespace
        .iter()
        .filter(|object| !stays(object, app))
        .filter_map(|object| Some((Id::of(object)?, object)))
        .filter(|(id, _)| secrets.let_pass(id))
        .collect();
    // An empty selector matches everything, which for an application is more likely a slip than a wish.
    let matches =
        |object: &Value| !selector.selects_all() && !has_controller(object) && selector.matches(&labels(object));
    let mut open: Vec<Id> = candidates
        .iter()
        .filter(|(_, object)| matches(object))
        .map(|(id, _)| id.clone())
        .collect();
    open.extend(claims.iter().map(|claim| Id::new(Kind::PersistentVolumeClaim, claim)));
    open.extend(secrets.named());
    open.push(Id::new(Kind::Namespace, &app.namespace));
    let mut chosen = BTreeSet::new();
    while let Some(id) = open.pop() {
        let Some(object) = candidates.get(&id) else { continue };
        if chosen.insert(id) {
            open.extend(references(object).into_iter().map(|reference| reference.id));
        }
    }
    let scales = |object: &Value| autoscaler::target(object).is_some_and(|target| chosen.contains(&target));
    let of_workloads = candidates
        .iter()
        .filter(|(_, object)| !has_controller(object) && scales(object));
    let autoscalers: Vec<Id> = of_workloads.map(|(id, _)| id.clone()).collect();
    chosen.extend(autoscalers);
    Ok(chosen
        .iter()
        .filter_map(|id| candidates.get(id))
        .map(|object| clean(object))
        .collect())
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
