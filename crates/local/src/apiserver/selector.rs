//! Label and field selectors. Pure.

use serde_json::Value;

use super::status::Failure;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// What an object must have to be listed or watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    /// Field's path, value, and whether they must be equal.
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    pub(crate) fn parse(labels: Option<&str>, fields: Option<&str>, kind: &str) -> Result<Self, Failure> {
        Ok(Self {
            labels: parse_labels(labels.unwrap_or_default())?,
            fields: parse_fields(fields.unwrap_or_default(), kind)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
        self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
        }) && self
            .fields
            .iter()
            .all(|(path, value, equal)| (field(object, path) == *value) == *equal)
    }
}

fn field(object: &Value, path: &str) -> String {
    let path = match path {
        // What the selectors of events and pods call otherwise than the objects do.
        "reportingComponent" if object.get("reportingComponent").is_none() => "source.component",
        other => other,
    };
    match object.pointer(&format!("/{}", path.replace('.', "/"))) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => match path {
            "spec.unschedulable" => "false".into(),
            _ => String::new(),
        },
        Some(other) => other.to_string(),
    }
}

fn supported(kind: &str, path: &str) -> bool {
    const EVENT: [&str; 11] = [
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
    ];
    match (kind, path) {
        (_, "metadata.name" | "metadata.namespace")
        | (
            "Pod",
            "spec.nodeName"
            | "spec.restartPolicy"
            | "spec.schedulerName"
            | "spec.serviceAccountName"
            | "spec.hostNetwork"
            | "status.phase"
            | "status.podIP"
            | "status.nominatedNodeName",
        )
        | ("Node", "spec.unschedulable")
        | ("Namespace", "status.phase")
        | ("Secret", "type")
        | ("ReplicaSet", "status.replicas") => true,
        ("Service", "spec.clusterIP" | "spec.type") => true,
        ("Event", path) => EVENT.contains(&path),
        _ => false,
    }
}

fn parse_fields(text: &str, kind: &str) -> Result<Vec<(String, String, bool)>, Failure> {
    let mut fields = Vec::new();
    for term in text.split(',').filter(|t| !t.trim().is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = term.split_once("==") {
            (path, value, true)
        } else if let Some((path, value)) = term.split_once('=') {
            (path, value, true)
        } else {
            return Err(Failure::bad_request(format!(
                "invalid field selector {term:?}: it has no '=' or '!='"
            )));
        };
        let path = path.trim();
        if !supported(kind, path) {
            return Err(Failure::bad_request(format!("field label not supported: {path}")));
        }
        fields.push((path.to_owned(), value.trim().to_owned(), equal));
    }
    Ok(fields)
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, Failure> {
    split_outside_parentheses(text)
        .into_iter()
        .map(|term| parse_label(&term))
        .collect()
}

fn parse_label(term: &str) -> Result<Requirement, Failure> {
    let term = term.trim();
    let bad = || Failure::bad_request(format!("unable to parse requirement: {term:?}"));
    let requirement = if let Some(key) = term.strip_prefix('!') {
        Requirement::Absent(key.trim().into())
    } else if let Some((head, list)) = term.split_once('(') {
        let list = list.trim_end().strip_suffix(')').ok_or_else(bad)?;
        let values = list.split(',').map(|v| v.trim().to_owned()).collect();
        match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => Requirement::In((*key).into(), values),
            [key, "notin"] => Requirement::NotIn((*key).into(), values),
            _ => return Err(bad()),
        }
    } else if let Some((key, value)) = term.split_once("!=") {
        Requirement::NotIn(key.trim().into(), vec![value.trim().into()])
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        Requirement::In(key.trim().into(), vec![value.trim().into()])
    } else {
        Requirement::Exists(term.into())
    };
    let (Requirement::In(key, values) | Requirement::NotIn(key, values)) = &requirement else {
        let (Requirement::Exists(key) | Requirement::Absent(key)) = &requirement else {
            return Err(bad());
        };
        return if is_label_key(key) { Ok(requirement) } else { Err(bad()) };
    };
    let values_fine = values.iter().all(|v| v.is_empty() || is_word(v));
    if is_label_key(key) && values_fine {
        Ok(requirement)
    } else {
        Err(bad())
    }
}

fn is_label_key(key: &str) -> bool {
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    is_word(name)
}

fn is_word(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(fine) && edge(text.chars().next()) && edge(text.chars().last())
}

fn split_outside_parentheses(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut depth = 0_i32;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            terms.push(String::new());
        } else if let Some(term) = terms.last_mut() {
            term.push(c);
        }
    }
    terms.retain(|t| !t.trim().is_empty());
    terms
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Selector;

    fn matches(labels: &str, fields: &str) -> bool {
        let object = json!({"metadata": {"name": "n", "labels": {"a": "b", "tier": "web"}},
            "spec": {"nodeName": "one"}, "status": {"phase": "Running"}});
        Selector::parse(Some(labels), Some(fields), "Pod")
            .unwrap()
            .matches(&object)
    }

    #[test]
    fn labels_select() {
        for yes in [
            "a=b",
            "a==b",
            "a",
            "!c",
            "a in (x, b),tier",
            "a!=c",
            "z!=c",
            "tier notin (db)",
            "",
        ] {
            assert!(matches(yes, ""), "{yes}");
        }
        for no in [
            "a=c",
            "!a",
            "a in (x,y)",
            "a!=b",
            "z",
            "tier notin (db,web)",
            "z in (a)",
        ] {
            assert!(!matches(no, ""), "{no}");
        }
    }

    #[test]
    fn fields_select() {
        assert!(matches("", "spec.nodeName=one,status.phase!=Failed,metadata.name=n"));
        assert!(!matches("", "spec.nodeName="));
        assert!(Selector::parse(None, Some("spec.foo=1"), "Pod").is_err());
        assert!(Selector::parse(None, Some("spec.nodeName=1"), "ConfigMap").is_err());
    }

    #[test]
    fn a_broken_selector_is_refused() {
        for bad in ["a in b", "a=b=c d", "a in (b", "=b", "a b"] {
            assert!(Selector::parse(Some(bad), None, "Pod").is_err(), "{bad}");
        }
    }
}
