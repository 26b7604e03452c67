//! CustomResourceDefinitions: what the server fills in, and when a definition counts as established. Pure.

use serde_json::{Value, json};

use super::{object, time};

/// The store's table of definitions.
pub(crate) const TABLE: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Keeps a definition, while it is being deleted, until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Completes names and status. A definition is served from the moment that it is written.
pub(crate) fn establish(definition: &mut Value, old: Option<&Value>) {
    let kind = object::str_at(definition, "/spec/names/kind").to_owned();
    let spec = object::child(definition, "spec");
    spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    let spec = &mut definition["spec"];
    let names = object::child(spec, "names");
    names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
    names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
    let names = Value::Object(names.clone());
    let versions = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let storage = versions.iter().find(|v| v.get("storage") == Some(&Value::Bool(true)));
    let mut stored: Vec<Value> = old
        .and_then(|o| o.pointer("/status/storedVersions"))
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if let Some(name) = storage.and_then(|v| v.get("name"))
        && !stored.contains(name)
    {
        stored.push(name.clone());
    }
    let conditions = match old.and_then(|o| o.pointer("/status/conditions")) {
        Some(conditions) => conditions.clone(),
        None => {
            let now = time::now();
            json!([
                {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found",
                 "lastTransitionTime": now},
                {"type": "Established", "status": "True", "reason": "InitialNamesAccepted",
                 "message": "the initial names have been accepted", "lastTransitionTime": now},
            ])
        }
    };
    definition["status"] = json!({"acceptedNames": names, "conditions": conditions, "storedVersions": stored});
    if old.is_none() {
        object::add_finalizer(definition, CLEANUP);
    }
}
