//! The end of a namespace: its content goes first, and what remains is told in its conditions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::App;
use super::call::Call;
use super::collect::{call, call_for, report};
use super::delete::Options;
use super::store::Id;
use super::{object, time};
use crate::machinery::kinds::Subresource;

/// Conditions in their order: type, reason and message when all is well.
const CONDITIONS: [(&str, &str, &str); 5] = [
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (
        "NamespaceContentRemaining",
        "ContentRemoved",
        "All content successfully removed",
    ),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
];

/// Deletes what a terminating namespace holds, and lets it go once it is empty.
pub(super) async fn empty(app: &Arc<App>, name: &str) {
    let content = app.store.read().ids_in_namespace(name);
    for id in &content {
        let waiting = app.store.get(id).is_none_or(|o| object::is_deleting(&o));
        if waiting {
            continue;
        }
        if let Some(call) = call_for(app, id) {
            report(call.delete(&Options::background()).await.map(|_| ()));
        }
    }
    let remaining = app.store.read().ids_in_namespace(name);
    let (Some(namespace), Some(call)) = (app.namespace(name), call(app, "namespaces", "", name)) else {
        return;
    };
    let mut new = (*namespace).clone();
    let part = if remaining.is_empty() {
        object::child(&mut new, "spec").remove("finalizers");
        Subresource::Finalize
    } else {
        tell(&mut new, &what_remains(app, &remaining));
        Subresource::Status
    };
    let call = Call {
        subresource: Some(part),
        ..call
    };
    report(call.update(&namespace, new, false).await.map(|_| ()));
}

/// The messages of the conditions that are not well, by type: with the reason.
fn what_remains(app: &App, remaining: &[Id]) -> BTreeMap<&'static str, (&'static str, String)> {
    let (mut kinds, mut finalizers) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    for id in remaining {
        let dot = if id.resource.contains('.') { "" } else { "." };
        *kinds.entry(format!("{}{dot}", id.resource)).or_default() += 1;
        for finalizer in app.store.get(id).iter().flat_map(|o| object::finalizers(o)) {
            *finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
    }
    let listed = |counts: &BTreeMap<String, usize>, word: &str| {
        let each: Vec<String> = counts
            .iter()
            .map(|(what, n)| format!("{what} {word} {n} resource instances"))
            .collect();
        each.join(", ")
    };
    let mut found = BTreeMap::new();
    let content = format!("Some resources are remaining: {}", listed(&kinds, "has"));
    found.insert("NamespaceContentRemaining", ("SomeResourcesRemain", content));
    if !finalizers.is_empty() {
        let held = listed(&finalizers, "in");
        let message = format!("Some content in the namespace has finalizers remaining: {held}");
        found.insert("NamespaceFinalizersRemaining", ("SomeFinalizersRemain", message));
    }
    found
}

fn tell(namespace: &mut Value, found: &BTreeMap<&str, (&str, String)>) {
    let old = namespace.pointer("/status/conditions").cloned().unwrap_or_default();
    let conditions = CONDITIONS.iter().map(|(kind, well, fine)| {
        let bad = found.get(kind);
        let status = if bad.is_some() { "True" } else { "False" };
        let (reason, message) = bad.map_or((*well, *fine), |(reason, message)| (*reason, message.as_str()));
        let before = old.as_array().into_iter().flatten().find(|c| c["type"] == *kind);
        let since = before
            .filter(|c| c["status"] == status)
            .map(|c| c["lastTransitionTime"].clone());
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or_else(|| time::now().into()),
        })
    });
    let conditions: Value = conditions.collect();
    object::child(namespace, "status").insert("conditions".into(), conditions);
}
