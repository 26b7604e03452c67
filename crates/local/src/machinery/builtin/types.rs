//! Compares objects with the types of their kinds, as Go's decoder would: fields that a kind does not have, and values of
//! a wrong type. The messages are the decoder's.

use base64::DecodeError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::quantity;
use crate::machinery::facts::{self, Form, Type, TypeId};
use crate::machinery::json::type_name;

mod time;

/// The name of the kind's type in the table of types.
pub(super) fn definition_of(kind: &str, api_version: &str) -> Option<&'static str> {
    facts::kind(kind, api_version).map(|id| facts::get(id).itself.name)
}

/// What a walk over an object found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Paths of the fields that the kind does not have.
    pub(super) unknown: Vec<String>,
    /// Values that a decoder does not take.
    pub(super) wrong: Vec<Wrong>,
}

/// A value that a decoder does not take.
#[derive(Debug, Clone, PartialEq)]
pub struct Wrong {
    /// Where it is, with the places in lists and the keys of maps.
    pub path: String,
    /// The type that is expected, by its name in Go; empty where the type fits and the value does not.
    pub expected: String,
    /// The value.
    pub found: Value,
    message: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Compares `object` with its kind, and drops the fields that the kind does not have. A kind that is not known has
/// every field.
pub(super) fn examine(kind: &str, object: &mut Value) -> Findings {
    let mut walk = Walk::default();
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if let Some(id) = facts::kind(kind, api_version) {
        walk.value(&Form::Type(id), object);
    }
    walk.findings
}

#[derive(Default)]
struct Walk {
    findings: Findings,
    /// The path as people write it, with the places in lists and the keys of maps.
    path: String,
    /// The names of the fields on the way.
    fields: Vec<&'static str>,
    /// The type that has the last field.
    owner: &'static str,
}

impl Walk {
    fn value(&mut self, form: &Form, value: &mut Value) {
        if value.is_null() {
            return;
        }
        match (resolved(form), value) {
            (Form::Type(id), Value::Object(map)) => {
                let a_type = facts::get(id);
                map.retain(|key, child| {
                    let Some(field) = a_type.field(key) else {
                        let path = self.below(key);
                        self.findings.unknown.push(path);
                        return false;
                    };
                    let owner = std::mem::replace(&mut self.owner, a_type.short_name());
                    self.fields.push(field.name);
                    self.at(self.below(key), &field.form, child);
                    self.fields.pop();
                    self.owner = owner;
                    true
                });
            }
            (Form::Map(item), Value::Object(map)) => {
                for (key, child) in map.iter_mut() {
                    if child.is_null() && *item == Form::String {
                        // A map of texts has no place for null.
                        *child = "".into();
                    }
                    self.at(self.below(key), &item, child);
                }
            }
            (Form::List(item), Value::Array(items)) => {
                for (i, child) in items.iter_mut().enumerate() {
                    self.at(format!("{}[{i}]", self.path), &item, child);
                }
            }
            (resolved, value) => {
                if let Some(message) = self.wrong(form, &resolved, value) {
                    let mistyped = message.starts_with("json: cannot unmarshal");
                    self.findings.wrong.push(Wrong {
                        path: self.path.clone(),
                        expected: if mistyped { go_name(&resolved) } else { String::new() },
                        found: value.clone(),
                        message,
                    });
                }
            }
        }
    }

    fn at(&mut self, path: String, form: &Form, value: &mut Value) {
        let path = std::mem::replace(&mut self.path, path);
        self.value(form, value);
        self.path = path;
    }

    fn below(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// What is wrong with a scalar, or with a value that should be an object or a list.
    fn wrong(&self, declared: &Form, form: &Form, value: &Value) -> Option<String> {
        match (form, value) {
            (Form::Any | Form::Object, _)
            | (Form::String | Form::IntOrString, Value::String(_))
            | (Form::Boolean, Value::Bool(_))
            | (Form::Double, Value::Number(_)) => None,
            (Form::Int32 | Form::IntOrString, Value::Number(number)) => {
                let fits = number.as_i64().is_some_and(|n| i32::try_from(n).is_ok());
                (!fits).then(|| self.mismatch(form, &format!("number {number}")))
            }
            (Form::Int64, Value::Number(number)) => {
                (!number.is_i64()).then(|| self.mismatch(form, &format!("number {number}")))
            }
            (Form::Bytes, Value::String(text)) => illegal_base64(text),
            (Form::Time, Value::String(text)) => time::wrong(text, layout(declared)),
            (Form::Time, _) => Some(format!(
                "json: cannot unmarshal {} into Go value of type string",
                type_name(value)
            )),
            (Form::Quantity, Value::String(text)) => quantity::wrong(text).map(str::to_owned),
            (Form::Quantity, Value::Number(number)) => quantity::wrong(&number.to_string()).map(str::to_owned),
            (Form::Quantity, _) => quantity::wrong("").map(str::to_owned),
            _ => Some(self.mismatch(form, type_name(value))),
        }
    }

    fn mismatch(&self, expected: &Form, found: &str) -> String {
        let expected = go_name(expected);
        match self.fields.as_slice() {
            [] => format!("json: cannot unmarshal {found} into Go value of type {expected}"),
            fields => {
                let field = format!("{}.{}", self.owner, fields.join("."));
                format!("json: cannot unmarshal {found} into Go struct field {field} of type {expected}")
            }
        }
    }
}

/// The form of a type without fields is its own.
fn resolved(form: &Form) -> Form {
    match form {
        Form::Type(id) if is_scalar(*id) => facts::get(*id).itself.form.clone(),
        other => other.clone(),
    }
}

fn is_scalar(id: TypeId) -> bool {
    facts::get(id).fields.is_empty()
}

/// How a time is written.
fn layout(form: &Form) -> &'static str {
    match form {
        Form::Type(id) if facts::get(*id).short_name() == "MicroTime" => "2006-01-02T15:04:05.000000Z07:00",
        _ => "2006-01-02T15:04:05Z07:00",
    }
}

/// The name of the type in Go.
fn go_name(form: &Form) -> String {
    match form {
        Form::String => "string".into(),
        Form::Boolean => "bool".into(),
        Form::Int32 | Form::IntOrString => "int32".into(),
        Form::Int64 => "int64".into(),
        Form::Double => "float64".into(),
        Form::Bytes => "[]uint8".into(),
        Form::Time => "string".into(),
        Form::Quantity | Form::Object | Form::Any => "object".into(),
        Form::List(item) => format!("[]{}", go_name(item)),
        Form::Map(item) => format!("map[string]{}", go_name(item)),
        Form::Type(id) => go_type(facts::get(*id)),
    }
}

/// Package and name, such as `v1.Pod`.
fn go_type(a_type: &Type) -> String {
    let name = a_type.itself.name;
    let package = name.rmatch_indices('.').nth(1).map_or(name, |(at, _)| &name[at + 1..]);
    package.to_owned()
}

fn illegal_base64(text: &str) -> Option<String> {
    let at = match STANDARD.decode(text).err()? {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len() / 4 * 4,
    };
    Some(format!("illegal base64 data at input byte {at}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_a_kind_lacks_are_found_at_any_depth_and_dropped() {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "colour": 1},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"any": "thing"}}, "template": {"spec": {
                "containers": [{"name": "a", "imagee": "x", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}}}});
        let findings = examine("Deployment", &mut object);
        assert_eq!(
            findings.unknown,
            ["metadata.colour", "spec.template.spec.containers[0].imagee"]
        );
        assert!(findings.wrong.is_empty(), "{:?}", findings.wrong);
        assert_eq!(object["spec"]["template"]["spec"]["containers"][0].get("imagee"), None);
        assert_eq!(object["spec"]["selector"]["matchLabels"]["any"], "thing");
    }

    #[test]
    fn a_wrong_type_is_told_as_a_decoder_tells_it() {
        let cases = [
            (
                "Deployment",
                json!({"spec": {"replicas": "3"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                "Pod",
                json!({"spec": {"containers": {}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                "Pod",
                json!({"spec": []}),
                "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
            ),
            (
                "ConfigMap",
                json!({"data": {"a": 1}}),
                "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
            ),
            (
                "Pod",
                json!({"spec": {"hostNetwork": "yes"}}),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
            ),
            (
                "Service",
                json!({"spec": {"ports": [{"port": 3_000_000_000u64}]}}),
                "json: cannot unmarshal number 3000000000 into Go struct field ServicePort.spec.ports.port of type int32",
            ),
        ];
        let more = [
            (
                "Pod",
                json!({"metadata": {"labels": ["a"]}}),
                "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
            ),
            (
                "Pod",
                json!({"spec": {"containers": [{"ports": [{"containerPort": 1.5}]}]}}),
                "json: cannot unmarshal number 1.5 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                "Secret",
                json!({"data": {"a": "!!"}}),
                "illegal base64 data at input byte 0",
            ),
            (
                "Lease",
                json!({"spec": {"renewTime": "yesterday"}}),
                "parsing time \"yesterday\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"yesterday\" as \"2006\"",
            ),
            (
                "Pod",
                json!({"spec": {"containers": [{"resources": {"limits": {"cpu": []}}}]}}),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        ];
        for (kind, mut object, expected) in cases.into_iter().chain(more) {
            let wrong = examine(kind, &mut object).wrong;
            assert_eq!(wrong.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        }
    }

    #[test]
    fn numbers_names_times_and_schemas_that_kubernetes_takes_are_taken() {
        let cases = [
            (
                "Service",
                json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}),
            ),
            (
                "Lease",
                json!({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15}}),
            ),
            ("Secret", json!({"data": {"a": "QQ=="}, "stringData": {"b": "c"}})),
            (
                "Event",
                json!({"apiVersion": "events.k8s.io/v1", "note": "n", "regarding": {"name": "x"}}),
            ),
            (
                "Event",
                json!({"apiVersion": "v1", "message": "n", "involvedObject": {"name": "x"}}),
            ),
            (
                "CustomResourceDefinition",
                json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "default": ["x"]},
                "b": {"additionalProperties": {"type": "string"}, "enum": [1, "x"], "x-kubernetes-validations": [{"rule": "true"}]}}}}}]}}),
            ),
            (
                "Pod",
                json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": "web"}}}], "nodeName": null}}),
            ),
        ];
        for (kind, mut object) in cases {
            let findings = examine(kind, &mut object);
            assert!(
                findings.unknown.is_empty() && findings.wrong.is_empty(),
                "{kind}: {findings:?}"
            );
        }
    }

    #[test]
    fn every_stored_kind_is_known() {
        for kind in crate::machinery::kinds::builtin()
            .iter()
            .filter(|kind| kind.is_stored())
        {
            let mut object = json!({"apiVersion": kind.api_version(), "nonsense": 1});
            assert_eq!(examine(&kind.kind, &mut object).unknown, ["nonsense"], "{}", kind.kind);
        }
    }
}
