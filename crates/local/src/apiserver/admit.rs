//! What the server itself decides about an object: identity, phases, addresses of services, state of definitions.

use rand::Rng;
use serde_json::Value;

use super::call::Call;
use super::registry::Resource;
use super::status::Failure;
use super::{definition, object, service_ip, time};
use crate::machinery::builtin;
use crate::machinery::kinds::{self, Kind, Subresource};

/// The kind of namespaces, for failures.
pub(crate) fn namespace_kind() -> Kind {
    kinds::builtin()
        .iter()
        .find(|k| k.kind == "Namespace")
        .cloned()
        .unwrap_or_else(|| kinds::builtin()[0].clone())
}

/// A name that begins with `prefix` and ends in five characters that spell no word.
pub(crate) fn generated_name(prefix: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    let mut name: String = prefix.chars().take(58).collect();
    for _ in 0..5 {
        name.push(char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    }
    name
}

/// The metadata that only the server sets, for a new object.
pub(crate) fn new_metadata(object: &mut Value, applied: bool, counts_generations: bool) {
    let metadata = object::metadata(object);
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
    ] {
        metadata.remove(key);
    }
    if !applied {
        metadata.remove("managedFields");
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), time::now().into());
    if counts_generations {
        metadata.insert("generation".into(), 1.into());
    }
}

/// Gives `new` the metadata of `old` that a request need not, or cannot, say.
pub(crate) fn kept_metadata(old: &Value, new: &mut Value) {
    let before = old.get("metadata").cloned().unwrap_or_default();
    object::metadata(new);
    let metadata = &mut new["metadata"];
    for key in ["creationTimestamp", "generation", "resourceVersion", "selfLink"] {
        object::copy_key(&before, metadata, key);
    }
    for key in ["uid", "name", "namespace", "deletionGracePeriodSeconds"] {
        if metadata.get(key).is_none_or(|said| said.is_null() || said == "") {
            object::copy_key(&before, metadata, key);
        }
    }
    if before.get("deletionTimestamp").is_some() {
        object::copy_key(&before, metadata, "deletionTimestamp");
    }
}

/// Drops what of the metadata is empty, as absent and empty are one.
pub(crate) fn drop_empty_metadata(object: &mut Value) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    object::metadata(object).retain(|_, value| !empty(value));
}

/// Keeps each owner once. A warning tells of those that were named again.
pub(crate) fn distinct_owners(object: &mut Value) -> Option<String> {
    let owners = object.pointer_mut("/metadata/ownerReferences")?.as_array_mut()?;
    let mut seen: Vec<Value> = Vec::new();
    let mut again = Vec::new();
    owners.retain(|owner| {
        let fresh = !seen.contains(owner);
        if fresh {
            seen.push(owner.clone());
        } else {
            again.push(object::str_at(owner, "/uid").to_owned());
        }
        fresh
    });
    (!again.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
             reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            again.join(", ")
        )
    })
}

/// The object with only the status of `new`, and for built-in kinds the metadata.
pub(crate) fn only_status(old: &Value, new: Value, resource: &Resource) -> Value {
    let mut result = old.clone();
    object::copy_key(&new, &mut result, "apiVersion");
    object::copy_key(&new, &mut result, "status");
    if resource.custom.is_some() {
        let from = new.get("metadata").cloned().unwrap_or_default();
        object::metadata(&mut result);
        object::copy_key(&from, &mut result["metadata"], "managedFields");
        return result;
    }
    object::copy_key(&new, &mut result, "metadata");
    let kept: &[&str] = match resource.kind.kind.as_str() {
        "Deployment" => &["labels"],
        "Pod" => &["ownerReferences"],
        _ => &[],
    };
    let before = old.get("metadata").cloned().unwrap_or_default();
    for key in kept {
        object::copy_key(&before, &mut result["metadata"], key);
    }
    result
}

pub(crate) fn next_generation(object: &mut Value) {
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    object::metadata(object).insert("generation".into(), (generation + 1).into());
}

/// Whether an object that is being deleted may go now.
pub(crate) fn nothing_holds(object: &Value) -> bool {
    let grace = object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    let namespace_content = object::str_at(object, "/kind") == "Namespace"
        && object
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|f| !f.is_empty());
    object::finalizers(object).is_empty() && grace == 0 && !namespace_content
}

/// Completes a new object. What it returns is held until the object is written.
pub(crate) async fn create(
    call: &Call,
    labelled: bool,
    object: &mut Value,
) -> Result<Option<service_ip::Reserved>, Failure> {
    if let Some(custom) = &call.resource.custom {
        if custom.has_status() {
            object::copy_key(&Value::Null, object, "status");
        }
        return Ok(None);
    }
    let kind = &call.resource.kind;
    let given = builtin::Given {
        status: !kind.has(Subresource::Status) || kind.kind == "Node",
        labels: labelled,
    };
    builtin::prepare_create(&kind.kind, given, object);
    match kind.kind.as_str() {
        "Pod" => {
            account_exists(call, object)?;
            if object.pointer("/status/conditions/0").is_some() {
                object["status"]["conditions"][0]["lastTransitionTime"] = time::now().into();
            }
        }
        "PersistentVolume" => object["status"]["lastPhaseTransitionTime"] = time::now().into(),
        "PersistentVolumeClaim" => default_storage_class(call, object),
        "Service" => return service_ip::allocate(call, object).await,
        "CustomResourceDefinition" => definition::establish(object, None, call.app.table().definitions()),
        _ => {}
    }
    Ok(None)
}

/// Completes a changed object.
pub(crate) fn update(call: &Call, old: &Value, new: &mut Value) -> Result<(), Failure> {
    if call.resource.custom.is_some() {
        return Ok(());
    }
    builtin::prepare_update(&call.resource.kind.kind, old, new);
    match call.resource.kind.kind.as_str() {
        "Namespace" if call.subresource != Some(Subresource::Finalize) => {
            let before = old.get("spec").cloned().unwrap_or_default();
            object::child(new, "spec");
            object::copy_key(&before, &mut new["spec"], "finalizers");
        }
        "Service" => service_ip::keep(call, old, new)?,
        "CustomResourceDefinition" if call.subresource.is_none() => {
            definition::establish(new, Some(old), call.app.table().definitions());
        }
        _ => {}
    }
    Ok(())
}

/// Every namespace gets the account `default`, if not at once; any other must be there.
fn account_exists(call: &Call, pod: &Value) -> Result<(), Failure> {
    let account = object::str_at(pod, "/spec/serviceAccountName");
    let accounts = call.app.store.list("serviceaccounts", Some(&call.namespace));
    if account == "default" || accounts.iter().any(|known| object::name(known) == account) {
        return Ok(());
    }
    let why = format!(
        "error looking up service account {}/{account}: serviceaccount \"{account}\" not found",
        call.namespace
    );
    Err(Failure::forbidden(&call.resource.kind, object::name(pod), &why))
}

fn default_storage_class(call: &Call, object: &mut Value) {
    if object.pointer("/spec/storageClassName").is_some() {
        return;
    }
    let classes = call.app.store.list("storageclasses.storage.k8s.io", None);
    let default = classes.iter().find(|class| {
        let annotations = class.pointer("/metadata/annotations");
        annotations
            .and_then(|a| a.get("storageclass.kubernetes.io/is-default-class"))
            .and_then(Value::as_str)
            == Some("true")
    });
    if let Some(class) = default {
        object::child(object, "spec").insert("storageClassName".into(), object::name(class).into());
    }
}
