//! What of a definition may not change, or needs somebody's consent.

use serde_json::Value;

use super::list;
use crate::machinery::FieldError;
use crate::machinery::schema::structural::{invalid, says};
use crate::machinery::schema::structure::text;
use crate::machinery::schema::values::join;

/// Where the owners of the groups of Kubernetes itself say that a kind was approved.
const APPROVAL: &str = "api-approved.kubernetes.io";

pub(super) fn immutable(definition: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let established = old
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
        });
    let once_served: &[&str] = if established { &["scope", "names/kind"] } else { &[] };
    for path in once_served.iter().chain(&["group", "names/plural"]) {
        let pointer = format!("/spec/{path}");
        let (new, old) = (definition.pointer(&pointer), old.pointer(&pointer));
        if new != old {
            let field = join("spec", &path.replace('/', "."));
            errors.push(invalid(field, new.unwrap_or(&"".into()), "field is immutable"));
        }
    }
}

pub(super) fn stored_versions(definition: &Value, errors: &mut Vec<FieldError>) {
    let field = "status.storedVersions";
    let stored = definition.pointer("/status/storedVersions").and_then(Value::as_array);
    let Some(stored) = stored.filter(|stored| !stored.is_empty()) else {
        return errors.push(invalid(
            field.into(),
            &Value::Null,
            "must have at least one stored version",
        ));
    };
    let shown = Value::from(stored.clone());
    let versions = definition.get("spec").map_or(&[][..], |spec| list(spec, "versions"));
    let mut left: Vec<(usize, &Value)> = stored.iter().enumerate().collect();
    for version in versions {
        let name = version.get("name").unwrap_or(&Value::Null);
        // Of two versions of one name the first is the one that was stored.
        let known = left.iter().any(|(_, stored)| *stored == name);
        if says(version, "storage") && !known {
            let detail = format!("must have the storage version {}", text(version, "name"));
            errors.push(invalid(field.into(), &shown, &detail));
        }
        left.retain(|(_, stored)| *stored != name);
    }
    for (i, gone) in left {
        let name = gone.as_str().unwrap_or_default();
        let detail = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a \
             storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        errors.push(invalid(format!("{field}[{i}]"), gone, &detail));
    }
}

/// Why the approval of a kind in a group of Kubernetes itself is none; `None` where it is one.
fn unapproved(definition: &Value) -> Option<FieldError> {
    let annotations = definition.pointer("/metadata/annotations");
    let given = annotations
        .and_then(|all| all.get(APPROVAL))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let field = format!("metadata.annotations[{APPROVAL}]");
    let must = format!("protected groups must have approval annotation {APPROVAL:?}");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let is_url = given
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    match given {
        "" => Some(FieldError::required(field, &format!("{must}, {see}"))),
        given if given.starts_with("unapproved") || is_url => None,
        given => {
            let detail = format!("{must} with either a URL or a reason starting with \"unapproved\", {see}");
            Some(invalid(field, &given.into(), &detail))
        }
    }
}

pub(super) fn approval(definition: &Value, spec: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let group = text(spec, "group");
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')));
    if !protected || old.is_some_and(|old| unapproved(old) == unapproved(definition)) {
        return;
    }
    errors.extend(unapproved(definition));
}
