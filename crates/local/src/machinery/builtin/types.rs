//! What fields the built-in kinds have, and of which types: the schemas that `k8s-openapi` carries.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

mod known;

const PREFIX: &str = "#/$defs/";

/// Types that hold any JSON, whatever their schema says.
const FREE: &[&str] = &[
    "FieldsV1",
    "JSON",
    "JSONSchemaPropsOrArray",
    "JSONSchemaPropsOrBool",
    "JSONSchemaPropsOrStringArray",
    "RawExtension",
];

struct Types {
    /// Where the schema of a kind is among the definitions.
    kinds: BTreeMap<known::Key, String>,
    definitions: Map<String, Value>,
}

static TYPES: LazyLock<Types> = LazyLock::new(types);

fn types() -> Types {
    let mut generator = SchemaGenerator::default();
    let kinds = known::all(&mut generator);
    Types {
        kinds,
        definitions: generator.take_definitions(true),
    }
}

/// Every schema by its full name.
pub(super) fn definitions() -> &'static Map<String, Value> {
    &TYPES.definitions
}

/// The name of the schema that another refers to.
pub(super) fn reference(schema: &'static Value) -> Option<&'static str> {
    schema.get("$ref").and_then(Value::as_str)?.strip_prefix(PREFIX)
}

/// The name of the kind's own definition. A kind without a version that has it is taken from the first that does.
pub(super) fn definition_of(kind: &str, api_version: &str) -> Option<&'static str> {
    let mut versions = TYPES.kinds.iter().filter(|((_, name), _)| *name == kind).peekable();
    let first = versions.peek().copied();
    let found = versions.find(|((version, _), _)| *version == api_version);
    found.or(first).map(|(_, name)| name.as_str())
}

/// The name of the kind's schema, and it with every schema that it refers to by name, as OpenAPI's components.
pub(super) fn components(kind: &str, api_version: &str) -> Option<(&'static str, BTreeMap<&'static str, Value>)> {
    let root = definition_of(kind, api_version)?;
    let mut found = BTreeMap::new();
    let mut open = vec![root];
    while let Some(name) = open.pop() {
        if found.contains_key(name) {
            continue;
        }
        if let Some(definition) = TYPES.definitions.get(name) {
            found.insert(name, component(definition, &mut open));
        }
    }
    Some((root, found))
}

/// A definition with its references turned into those of components; what it refers to goes to `open`.
fn component(schema: &'static Value, open: &mut Vec<&'static str>) -> Value {
    match schema {
        Value::Object(map) => {
            let mut result: Map<String, Value> = map
                .iter()
                .filter(|(key, _)| *key != "$ref")
                .map(|(key, child)| (key.clone(), component(child, open)))
                .collect();
            let reference = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|name| name.strip_prefix(PREFIX));
            if let Some(name) = reference {
                open.push(name);
                // A bare reference may have no other words beside it.
                let link = json!({"$ref": format!("#/components/schemas/{name}")});
                result.insert("allOf".into(), json!([link]));
            }
            Value::Object(result)
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| component(item, open)).collect()),
        other => other.clone(),
    }
}

/// What a walk over an object found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Paths of the fields that the kind does not have.
    pub(super) unknown: Vec<String>,
    /// Values of a wrong type, each as the message of a decoder.
    pub(super) wrong: Vec<String>,
}

/// Compares `object` with its kind, and drops the fields that the kind does not have. A kind that is not known has
/// every field.
pub(super) fn examine(kind: &str, object: &mut Value) -> Findings {
    let mut findings = Findings::default();
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let Some(schema) = definition_of(kind, api_version).and_then(|name| TYPES.definitions.get(name)) else {
        return findings;
    };
    walk(
        schema,
        object,
        &Place {
            path: String::new(),
            owner: kind,
        },
        &mut findings,
    );
    findings
}

/// Where a walk is: the path from the object's root, and the name of the type that has the last field.
struct Place<'a> {
    path: String,
    owner: &'a str,
}

impl Place<'_> {
    fn child(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }
}

/// The schema that a reference leads to, and its short name.
fn resolved(schema: &Value) -> (&Value, Option<&str>) {
    let name = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|name| name.strip_prefix(PREFIX));
    match name.and_then(|name| TYPES.definitions.get(name).map(|schema| (schema, name))) {
        Some((schema, name)) => (schema, name.rsplit('.').next()),
        None => (schema, None),
    }
}

fn walk(schema: &Value, value: &mut Value, place: &Place<'_>, findings: &mut Findings) {
    let (schema, name) = resolved(schema);
    let owner = name.unwrap_or(place.owner);
    if value.is_null() || name.is_some_and(|name| FREE.contains(&name)) {
        return;
    }
    if let Some(expected) = wrong_type(schema, value, owner) {
        let found = found(value);
        let at = format!("{}.{}", place.owner, place.path);
        findings.wrong.push(format!(
            "json: cannot unmarshal {found} into Go struct field {at} of type {expected}"
        ));
        return;
    }
    let additional = schema.get("additionalProperties").filter(|inner| inner.is_object());
    match value {
        Value::Object(map) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
                for (key, child) in map.iter_mut() {
                    if let Some(inner) = additional {
                        walk(
                            inner,
                            child,
                            &Place {
                                path: place.child(key),
                                owner,
                            },
                            findings,
                        );
                    }
                }
                return;
            };
            map.retain(|key, _| {
                let known = properties.contains_key(key);
                if !known {
                    findings.unknown.push(place.child(key));
                }
                known
            });
            for (key, child) in map.iter_mut() {
                walk(
                    &properties[key],
                    child,
                    &Place {
                        path: place.child(key),
                        owner,
                    },
                    findings,
                );
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.get("items") else { return };
            for (i, item) in items.iter_mut().enumerate() {
                walk(
                    inner,
                    item,
                    &Place {
                        path: format!("{}[{i}]", place.path),
                        owner,
                    },
                    findings,
                );
            }
        }
        _ => {}
    }
}

/// The Go type that was expected, where the value is of another.
fn wrong_type(schema: &Value, value: &Value, owner: &str) -> Option<String> {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        let fits = value.is_string() || value.is_number();
        return (!fits).then(|| "intstr.IntOrString".into());
    }
    let format = schema.get("format").and_then(Value::as_str);
    let kind = schema.get("type").and_then(Value::as_str)?;
    let (fits, expected) = match kind {
        "string" => (value.is_string(), "string".to_owned()),
        "boolean" => (value.is_boolean(), "bool".to_owned()),
        "integer" => (is_integer(value, format), format.unwrap_or("int64").to_owned()),
        "number" => (value.is_number(), "float64".to_owned()),
        "array" => (
            value.is_array(),
            "[]".to_owned()
                + schema
                    .pointer("/items/type")
                    .and_then(Value::as_str)
                    .unwrap_or("object"),
        ),
        "object" if schema.get("properties").is_none() => (value.is_object(), "map[string]string".to_owned()),
        "object" => (value.is_object(), format!("v1.{owner}")),
        _ => return None,
    };
    (!fits).then_some(expected)
}

fn is_integer(value: &Value, format: Option<&str>) -> bool {
    match (value.as_i64(), format) {
        (Some(number), Some("int32")) => i32::try_from(number).is_ok(),
        (Some(_), _) => true,
        (None, _) => false,
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(number) => format!("number {number}"),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

#[cfg(test)]
mod tests {
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
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []object",
            ),
            (
                "Pod",
                json!({"spec": []}),
                "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
            ),
            (
                "ConfigMap",
                json!({"data": {"a": 1}}),
                "json: cannot unmarshal number 1 into Go struct field ConfigMap.data.a of type string",
            ),
            (
                "Pod",
                json!({"spec": {"hostNetwork": "yes"}}),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
            ),
            (
                "Service",
                json!({"spec": {"ports": [{"port": 3_000_000_000u64}]}}),
                "json: cannot unmarshal number 3000000000 into Go struct field ServicePort.spec.ports[0].port of type int32",
            ),
        ];
        for (kind, mut object, expected) in cases {
            assert_eq!(examine(kind, &mut object).wrong, [expected]);
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
