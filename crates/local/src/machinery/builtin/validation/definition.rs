//! CustomResourceDefinitions: a definition is refused when one of its versions could not be served.

use serde_json::Value;

use super::{items, one_of, text};
use crate::machinery::FieldError;
use crate::machinery::schema::{Crd, SchemaError};

pub(super) fn validate(object: &Value, errors: &mut Vec<FieldError>) {
    let Some(spec) = object.get("spec").filter(|spec| spec.is_object()) else {
        return errors.push(FieldError::required("spec", ""));
    };
    let names = spec.get("names").unwrap_or(&Value::Null);
    for (holder, at, name) in [
        (spec, "spec", "group"),
        (names, "spec.names", "plural"),
        (names, "spec.names", "kind"),
    ] {
        if text(holder, name).is_empty() {
            errors.push(FieldError::required(format!("{at}.{name}"), ""));
        }
    }
    match spec.get("scope") {
        None => errors.push(FieldError::required("spec.scope", "")),
        scope => one_of(scope, &["Cluster", "Namespaced"], "spec.scope".into(), errors),
    }
    let name = object.pointer("/metadata/name").unwrap_or(&Value::Null);
    if *name != format!("{}.{}", text(names, "plural"), text(spec, "group")) {
        errors.push(FieldError::invalid(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    let stored =
        items(Some(spec), "versions").filter(|(_, version)| version.get("storage") == Some(&Value::Bool(true)));
    if stored.count() != 1 {
        let versions = spec.get("versions").unwrap_or(&Value::Null);
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", versions, detail));
    }
    for (i, version) in items(Some(spec), "versions") {
        let at = format!("spec.versions[{i}]");
        if text(version, "name").is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        }
        if let Err(SchemaError::Invalid(inner)) = Crd::compile(version) {
            errors.extend(inner.into_iter().map(|error| FieldError {
                field: format!("{at}.{}", error.field),
                ..error
            }));
        }
    }
}
