//! CustomResourceDefinitions: what the server fills in, and when a definition counts as established. Pure.

use serde_json::{Value, json};

use super::{object, time};
use crate::machinery::schema::{Crd, SchemaError};
use crate::machinery::{FieldError, Reason};

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

/// What is wrong with a definition: its name, its versions, their schemas, and what may not change.
pub(crate) fn errors(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (group, plural) = (
        object::str_at(definition, "/spec/group"),
        object::str_at(definition, "/spec/names/plural"),
    );
    for (field, pointer) in [
        ("spec.group", "/spec/group"),
        ("spec.names.plural", "/spec/names/plural"),
        ("spec.names.kind", "/spec/names/kind"),
    ] {
        if object::str_at(definition, pointer).is_empty() {
            errors.push(FieldError::required(field, ""));
        }
    }
    let expected = format!("{plural}.{group}");
    let name = object::name(definition);
    if name != expected {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &name.into(), detail));
    }
    let scope = object::str_at(definition, "/spec/scope");
    if !matches!(scope, "Namespaced" | "Cluster") {
        let supported = ["\"Cluster\"".to_owned(), "\"Namespaced\"".to_owned()];
        errors.push(FieldError::unsupported("spec.scope", &scope.into(), &supported));
    } else if old.is_some_and(|old| object::str_at(old, "/spec/scope") != scope) {
        errors.push(FieldError::invalid("spec.scope", &scope.into(), "field is immutable"));
    }
    version_errors(definition, &mut errors);
    errors
}

fn version_errors(definition: &Value, errors: &mut Vec<FieldError>) {
    let versions = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let stored = versions
        .iter()
        .filter(|v| v.get("storage") == Some(&Value::Bool(true)))
        .count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &Value::Array(Vec::new()), detail));
    }
    let mut names: Vec<&str> = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let name = object::str_at(version, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("spec.versions[{i}].name"), ""));
        } else if names.contains(&name) {
            errors.push(FieldError::duplicate(format!("spec.versions[{i}].name"), &name.into()));
        }
        names.push(name);
        if let Err(SchemaError::Invalid(found)) = Crd::compile(version) {
            errors.extend(found.into_iter().map(|e| FieldError {
                field: format!("spec.versions[{i}].{}", e.field),
                ..e
            }));
        }
    }
    let once = definition.pointer("/status/storedVersions").and_then(Value::as_array);
    for (i, name) in once.into_iter().flatten().enumerate() {
        if !names.contains(&name.as_str().unwrap_or_default()) {
            let message =
                format!("Invalid value: {name}: missing from spec.versions; it was previously a storage version");
            errors.push(FieldError::new(
                format!("status.storedVersions[{i}]"),
                Reason::Invalid,
                message,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{errors, establish};

    fn definition() -> Value {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        json!({"metadata": {"name": "boats.sea.dev"}, "spec": {"group": "sea.dev", "scope": "Cluster",
            "names": {"plural": "boats", "kind": "Boat"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema},
                {"name": "v2", "served": true, "storage": false, "schema": schema}]}})
    }

    fn fields(change: impl Fn(&mut Value)) -> Vec<String> {
        let mut changed = definition();
        change(&mut changed);
        errors(&changed, Some(&definition()))
            .into_iter()
            .map(|e| e.field)
            .collect()
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(fields(|_| {}).is_empty());
        assert_eq!(fields(|d| d["metadata"]["name"] = "x".into()), ["metadata.name"]);
        assert_eq!(fields(|d| d["spec"]["scope"] = "Namespaced".into()), ["spec.scope"]);
        assert_eq!(fields(|d| d["spec"]["scope"] = "Universe".into()), ["spec.scope"]);
        assert_eq!(
            fields(|d| d["spec"]["versions"][1]["storage"] = true.into()),
            ["spec.versions"]
        );
        assert_eq!(
            fields(|d| d["spec"]["versions"][1]["name"] = "v1".into()),
            ["spec.versions[1].name"]
        );
        let broken = fields(|d| d["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["type"] = "nonsense".into());
        assert!(
            broken[0].starts_with("spec.versions[1].schema.openAPIV3Schema"),
            "{broken:?}"
        );
        assert_eq!(
            fields(|d| d["status"] = json!({"storedVersions": ["v0"]})),
            ["status.storedVersions[0]"]
        );
        assert!(!errors(&json!({}), None).is_empty());
    }

    #[test]
    fn a_version_that_was_stored_once_stays_listed() {
        let mut old = definition();
        establish(&mut old, None);
        let mut new = old.clone();
        new["spec"]["versions"][0]["storage"] = false.into();
        new["spec"]["versions"][1]["storage"] = true.into();
        establish(&mut new, Some(&old));
        assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
        assert_eq!(new["status"]["acceptedNames"]["singular"], "boat");
    }
}
