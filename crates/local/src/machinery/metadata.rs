//! What the metadata of every kind must be: names, labels, annotations, owners, finalizers.

use serde_json::Value;

use super::words::{
    LABEL, LETTER_FIRST, Unit, is_dns_label, key_problems, path_part_problems, subdomain_problems, value_problems,
};
use super::{FieldError, Reason};

/// How the names of a kind's objects must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Labels of DNS joined by dots: most kinds.
    Subdomain,
    /// One label of DNS.
    Label,
    /// One label of DNS that begins with a letter.
    LetterFirst,
    /// Whatever can stand in a path.
    Segment,
}

impl Names {
    /// The rule of a built-in kind.
    pub fn of(kind: &str) -> Self {
        match kind {
            "Namespace" => Self::Label,
            "Service" => Self::Label,
            "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding" => Self::Segment,
            _ => Self::Subdomain,
        }
    }
}

/// The most bytes that an object's annotations may have.
const ANNOTATIONS: usize = 256 << 10;

/// What is wrong with the metadata of an object.
pub fn errors(object: &Value, names: Names) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    for field in ["generateName", "name"] {
        let name = text(metadata, field);
        if name.is_empty() {
            continue;
        }
        let masked = if field == "name" { name.to_owned() } else { masked(name) };
        let wrong = name_problems(&masked, names);
        let at = format!("metadata.{field}");
        errors.extend(
            wrong
                .into_iter()
                .map(|why| FieldError::invalid(at.clone(), &name.into(), &why)),
        );
    }
    errors.extend(labels(metadata.get("labels"), "metadata.labels"));
    errors.extend(annotations(metadata.get("annotations"), "metadata.annotations"));
    errors.extend(owners(metadata.get("ownerReferences")));
    errors.extend(finalizers(metadata.get("finalizers")));
    errors
}

/// What of the metadata may not have changed.
pub fn update_errors(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = |object: &Value, field: &str| {
        object
            .pointer(&format!("/metadata/{field}"))
            .cloned()
            .unwrap_or_default()
    };
    if !at(old, "deletionTimestamp").is_null() {
        let before = at(old, "finalizers");
        let before = before.as_array().map_or(&[][..], Vec::as_slice);
        let after = at(new, "finalizers");
        let mut fresh: Vec<String> = items(Some(&after))
            .filter(|f| !before.contains(f))
            .map(ToString::to_string)
            .collect();
        fresh.sort();
        if !fresh.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                fresh.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", &detail));
        }
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let value = at(new, field);
        if value != at(old, field) {
            errors.push(FieldError::invalid(
                format!("metadata.{field}"),
                &value,
                "field is immutable",
            ));
        }
    }
    errors
}

/// The stem of a generated name may end in a dash.
fn masked(stem: &str) -> String {
    match stem.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => stem.to_owned(),
    }
}

fn name_problems(name: &str, names: Names) -> Vec<String> {
    let (detail, fits) = match names {
        Names::Subdomain => return subdomain_problems(name, Unit::Characters),
        Names::Segment => return path_part_problems(name),
        Names::Label | Names::LetterFirst if name.contains('.') => return vec!["must not contain dots".into()],
        Names::Label => (LABEL, is_dns_label(name)),
        Names::LetterFirst => {
            let letter = name.starts_with(|c: char| c.is_ascii_lowercase());
            (LETTER_FIRST, letter && is_dns_label(name))
        }
    };
    let form = (!fits).then(|| detail.to_owned());
    Unit::Characters.too_long(name, 63).into_iter().chain(form).collect()
}

fn invalid<'a>(at: &'a str, shown: &'a str, problems: Vec<String>) -> impl Iterator<Item = FieldError> + 'a {
    problems
        .into_iter()
        .map(move |why| FieldError::invalid(at, &shown.into(), &why))
}

/// What is wrong with labels at a place.
pub fn labels(labels: Option<&Value>, at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (name, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        errors.extend(invalid(at, name, key_problems(name, Unit::Bytes)));
        let value = value.as_str().unwrap_or_default();
        errors.extend(invalid(at, value, value_problems(value, Unit::Bytes)));
    }
    errors
}

/// What is wrong with annotations at a place.
pub fn annotations(annotations: Option<&Value>, at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (name, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        size += name.len() + value.as_str().map_or(0, str::len);
        errors.extend(invalid(at, name, key_problems(&name.to_lowercase(), Unit::Bytes)));
    }
    if size > ANNOTATIONS {
        let message = format!("Too long: may not be more than {ANNOTATIONS} bytes");
        errors.push(FieldError::new(at, Reason::TooLong, message));
    }
    errors
}

fn owners(owners: Option<&Value>) -> Vec<FieldError> {
    let at = "metadata.ownerReferences";
    let mut errors = Vec::new();
    let mut controller: Option<String> = None;
    for owner in items(owners) {
        let (version, kind) = (text(owner, "apiVersion"), text(owner, "kind"));
        if version.is_empty() || version.split('/').count() > 2 || version.ends_with('/') {
            let detail = "version must not be empty";
            errors.push(FieldError::invalid(format!("{at}.apiVersion"), &version.into(), detail));
        }
        for field in ["kind", "name", "uid"] {
            if text(owner, field).is_empty() {
                errors.push(FieldError::invalid(
                    format!("{at}.{field}"),
                    &"".into(),
                    "must not be empty",
                ));
            }
        }
        if (version, kind) == ("v1", "Event") {
            errors.push(whole(at, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            let name = format!("{kind}/{}", text(owner, "name"));
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and \
                         {name}"
                    );
                    errors.push(whole(at, owners.unwrap_or(&Value::Null), &detail));
                }
                None => controller = Some(name),
            }
        }
    }
    errors
}

/// The finalizers that need no domain.
const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

fn finalizers(finalizers: Option<&Value>) -> Vec<FieldError> {
    let at = "metadata.finalizers";
    let names: Vec<&str> = items(finalizers).filter_map(Value::as_str).collect();
    let mut errors: Vec<FieldError> = names
        .iter()
        .flat_map(|name| invalid(at, name, key_problems(name, Unit::Bytes)))
        .collect();
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(whole(at, finalizers.unwrap_or(&Value::Null), detail));
    }
    errors
}

/// What only built-in kinds ask of their finalizers: a domain, unless they are Kubernetes' own.
pub fn unqualified_finalizers(object: &Value) -> Vec<FieldError> {
    let finalizers = object.pointer("/metadata/finalizers");
    let names = items(finalizers).filter_map(Value::as_str).enumerate();
    names
        .filter(|(_, name)| !name.contains('/') && !STANDARD.contains(name))
        .map(|(i, name)| {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            FieldError::invalid(format!("metadata.finalizers[{i}]"), &(*name).into(), detail)
        })
        .collect()
}

/// An error that shows the whole value.
fn whole(at: &str, value: &Value, detail: &str) -> FieldError {
    FieldError::new(
        at,
        Reason::Invalid,
        format!("Invalid value: {}: {detail}", in_order(value)),
    )
}

/// The fields of an owner, in the order in which Kubernetes shows them.
const OWNER: [&str; 6] = ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];

fn in_order(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(in_order).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let fields = OWNER.iter().filter_map(|name| Some((name, map.get(*name)?)));
            let fields: Vec<String> = fields.map(|(name, value)| format!("\"{name}\":{value}")).collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(metadata: Value, names: Names) -> Vec<String> {
        let object = json!({"metadata": metadata});
        errors(&object, names).into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn each_part_of_the_metadata_is_looked_at() {
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        let cases = [
            (json!({"name": "a.b", "generateName": "a-"}), vec![]),
            (json!({"name": "a_b"}), vec!["metadata.name"]),
            (json!({"name": "a".repeat(254)}), vec!["metadata.name"]),
            (json!({"generateName": "A-"}), vec!["metadata.generateName"]),
            (json!({"labels": {"a b": "x"}}), vec!["metadata.labels"]),
            (json!({"labels": {"a/b": "x y"}}), vec!["metadata.labels"]),
            (json!({"annotations": {"/a": "x"}}), vec!["metadata.annotations"]),
            (json!({"annotations": {"A.b/c": "x y"}}), vec![]),
            (
                json!({"annotations": {"a": "x".repeat(256 << 10)}}),
                vec!["metadata.annotations"],
            ),
            (json!({"finalizers": ["a b"]}), vec!["metadata.finalizers"]),
            (
                json!({"finalizers": ["orphan", "foregroundDeletion"]}),
                vec!["metadata.finalizers"],
            ),
            (json!({"ownerReferences": [owner("a")]}), vec![]),
            (
                json!({"ownerReferences": [owner("a"), owner("b")]}),
                vec!["metadata.ownerReferences"],
            ),
            (
                json!({"ownerReferences": [owner("")]}),
                vec!["metadata.ownerReferences.name"],
            ),
        ];
        for (metadata, expected) in cases {
            assert_eq!(fields(metadata.clone(), Names::Subdomain), expected, "{metadata}");
        }
        assert_eq!(fields(json!({"name": "a.b"}), Names::Label), ["metadata.name"]);
        assert_eq!(fields(json!({"name": "A:b"}), Names::Segment), [""; 0]);
        assert_eq!(fields(json!({"name": "a/b"}), Names::Segment), ["metadata.name"]);
    }

    #[test]
    fn identity_does_not_change_and_a_deleted_object_gets_no_finalizers() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "deletionTimestamp": "t", "finalizers": ["x/y"]}});
        let new = json!({"metadata": {"name": "a", "uid": "v", "deletionTimestamp": "t", "finalizers": ["x/z"]}});
        let fields: Vec<String> = update_errors(&old, &new).into_iter().map(|e| e.field).collect();
        assert_eq!(fields, ["metadata.finalizers", "metadata.uid"]);
        assert!(update_errors(&old, &old).is_empty());
    }
}
