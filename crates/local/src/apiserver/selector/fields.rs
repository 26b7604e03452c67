//! Field selectors: which fields of which kind can be selected by, and how they are written.

use serde_json::Value;

use super::super::registry::Resource;

/// A field's path, its value, and whether they must be equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) path: String,
    pub(super) value: String,
    pub(super) equal: bool,
}

/// Kinds with fields of their own: group, kind, whether in namespaces, the fields besides name and namespace.
const KINDS: [(&str, &str, bool, &[&str]); 11] = [
    (
        "",
        "Pod",
        true,
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
    ),
    ("", "Node", false, &["spec.unschedulable"]),
    ("", "ReplicationController", true, &["status.replicas"]),
    (
        "",
        "Event",
        true,
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    (
        "events.k8s.io",
        "Event",
        true,
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
    ),
    ("", "Namespace", false, &["status.phase"]),
    ("", "Secret", true, &["type"]),
    ("", "Service", true, &["spec.clusterIP", "spec.type"]),
    ("batch", "Job", true, &["status.successful"]),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        false,
        &["spec.signerName"],
    ),
    (
        "resource.k8s.io",
        "ResourceSlice",
        false,
        &["spec.nodeName", "spec.driver"],
    ),
];

fn check(resource: &Resource, path: &str) -> Result<(), String> {
    let kind = &resource.kind;
    let unsupported = || format!("field label not supported: {path}");
    let common = |namespaced: bool| path == "metadata.name" || (namespaced && path == "metadata.namespace");
    if let Some(custom) = &resource.custom {
        let fields = custom.version().get("selectableFields").and_then(Value::as_array);
        let listed = fields.into_iter().flatten().any(|f| {
            let field = f.get("jsonPath").and_then(Value::as_str).unwrap_or_default();
            field.strip_prefix('.') == Some(path)
        });
        return if listed || common(kind.namespaced) {
            Ok(())
        } else {
            Err(unsupported())
        };
    }
    let own = KINDS
        .iter()
        .find(|(group, name, ..)| *group == kind.group && *name == kind.kind);
    match own {
        Some((_, _, namespaced, fields)) if common(*namespaced) || fields.contains(&path) => Ok(()),
        Some((_, "Job", ..)) => Err(format!("field label {path:?} not supported for Job")),
        Some(_) => Err(unsupported()),
        None if common(true) => Ok(()),
        None => Err(format!(
            "{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        )),
    }
}

/// Reads `spec.nodeName=a,status.phase!=Failed` and the like.
pub(super) fn parse(text: &str, resource: &Resource) -> Result<Vec<Term>, String> {
    let mut terms = split(text);
    terms.sort_unstable();
    let mut found = Vec::new();
    for term in terms.into_iter().filter(|t| !t.is_empty()) {
        let operator = term.char_indices().find_map(|(at, _)| {
            let operators = [("!=", false), ("==", true), ("=", true)];
            let operator = operators.into_iter().find(|(o, _)| term[at..].starts_with(o));
            operator.map(|(o, equal)| (at, o.len(), equal))
        });
        let Some((at, length, equal)) = operator else {
            return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
        };
        found.push(Term {
            path: term[..at].to_owned(),
            value: unescape(&term[at + length..])?,
            equal,
        });
    }
    for term in &found {
        check(resource, &term.path)?;
    }
    Ok(found)
}

/// The terms between commas that no backslash stands before.
fn split(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if !escaped && c == ',' {
            terms.push(&text[start..at]);
            start = at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(text: &str) -> Result<String, String> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => value.push(c),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(format!("invalid field selector: invalid escape sequence: \\{other}"));
                }
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                ));
            }
            c => value.push(c),
        }
    }
    Ok(value)
}

/// What an object has at a path, as text.
pub(super) fn value(object: &Value, path: &str) -> String {
    let at = |pointer: &str| object.pointer(pointer).filter(|v| !v.is_null());
    let found = match path {
        "source" => at("/source/component")
            .filter(|c| *c != "")
            .or_else(|| at("/reportingComponent")),
        "status.podIPs" => at("/status/podIPs/0/ip"),
        path => at(&format!("/{}", path.replace('.', "/"))),
    };
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => match path {
            "spec.unschedulable" | "spec.hostNetwork" => "false".into(),
            "status.replicas" | "status.successful" => "0".into(),
            _ => String::new(),
        },
    }
}
