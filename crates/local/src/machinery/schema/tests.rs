use serde_json::{Value, json};

use super::*;

fn version(spec: &Value) -> Value {
    json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
        "type": "object", "properties": {"spec": spec, "status": {"type": "object"}}}}})
}

/// The errors of a definition whose only version has the spec.
fn refused(spec: &Value) -> Vec<String> {
    let definition = json!({"metadata": {"name": "boats.sea.dev"}, "status": {"storedVersions": ["v1"]}, "spec": {
        "group": "sea.dev", "scope": "Cluster", "versions": [version(spec)],
        "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "listKind": "BoatList"}}});
    let errors = definition_errors(&definition, None);
    errors.iter().map(ToString::to_string).collect()
}

fn crd(spec: Value) -> Crd {
    assert_eq!(refused(&spec), Vec::<String>::new());
    Crd::compile(&version(&spec))
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec})
}

/// The errors of a spec under a schema, as people read them.
fn errors(crd: &Crd, spec: Value, old: Option<Value>) -> Vec<String> {
    let old = old.map(object);
    crd.validate(&object(spec), old.as_ref())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn values_that_the_schema_refuses_are_named_as_kubernetes_names_them() {
    let crd = crd(json!({"type": "object", "required": ["model"], "properties": {
        "model": {"type": "string", "enum": ["A", "B"]},
        "weight": {"type": "integer", "minimum": 1, "maximum": 1000},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3, "minLength": 1},
        "port": {"x-kubernetes-int-or-string": true},
        "tags": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": {"type": "object", "required": ["n"], "properties": {"n": {"type": "string"}}}},
        "some": {"type": "object", "nullable": true, "additionalProperties": {"type": "boolean"}}}}));
    let cases = [
        (json!({"model": "A", "weight": 1, "port": "http", "some": null}), vec![]),
        (json!({}), vec!["spec.model: Required value"]),
        (
            json!({"model": "C"}),
            vec!["spec.model: Unsupported value: \"C\": supported values: \"A\", \"B\""],
        ),
        (
            json!({"model": "A", "weight": 0}),
            vec!["spec.weight: Invalid value: 0: spec.weight in body should be greater than or equal to 1"],
        ),
        (
            json!({"model": "A", "weight": "1"}),
            vec!["spec.weight: Invalid value: \"string\": spec.weight in body must be of type integer: \"string\""],
        ),
        (
            json!({"model": "A", "name": "A1"}),
            vec!["spec.name: Invalid value: \"A1\": spec.name in body should match '^[a-z]+$'"],
        ),
        (
            json!({"model": "A", "name": "abcd"}),
            vec!["spec.name: Too long: may not be more than 3 bytes"],
        ),
        (
            json!({"model": "A", "port": 1.5}),
            vec!["spec.port: Invalid value: \"number\": spec.port in body must be of type integer,string: \"number\""],
        ),
        (
            json!({"model": "A", "tags": ["a", "b"]}),
            vec!["spec.tags: Too many: 2: must have at most 1 items"],
        ),
        (
            json!({"model": "A", "keyed": [{"n": "a"}, {"n": "a"}]}),
            vec!["spec.keyed[1]: Duplicate value: {\"n\":\"a\"}"],
        ),
        (
            json!({"model": "A", "some": {"x": 1}}),
            vec!["spec.some.x: Invalid value: \"integer\": spec.some.x in body must be of type boolean: \"integer\""],
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(errors(&crd, spec.clone(), None), expected, "{spec}");
    }
}

#[test]
fn alternatives_count_the_schemas_that_fit() {
    let crd = crd(
        json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
    );
    assert!(errors(&crd, json!({"a": 1}), None).is_empty());
    assert_eq!(
        errors(&crd, json!({"a": 1, "b": 1}), None),
        [
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
        ]
    );
}

#[test]
fn defaults_fill_what_is_absent_and_look_into_what_they_filled() {
    let crd = crd(json!({"type": "object", "default": {}, "properties": {
        "replicas": {"type": "integer", "default": 1},
        "rows": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string", "default": "y"}}}},
        "maybe": {"type": "string", "nullable": true, "default": "m"},
        "never": {"type": "string", "default": "n"}}}));
    let mut empty = json!({});
    crd.default(&mut empty);
    assert_eq!(empty, json!({"spec": {"replicas": 1, "maybe": "m", "never": "n"}}));
    let mut partial = object(json!({"replicas": 3, "rows": [{}], "maybe": null, "never": null}));
    crd.default(&mut partial);
    assert_eq!(
        partial["spec"],
        json!({"replicas": 3, "rows": [{"x": "y"}], "maybe": null, "never": "n"})
    );
}

#[test]
fn unknown_fields_are_dropped_except_where_they_are_preserved() {
    let crd = crd(json!({"type": "object", "properties": {
        "known": {"type": "object", "properties": {"a": {"type": "integer"}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"v": {"type": "integer"}}}},
        "template": {"type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {"spec": {"type": "object"}}}}}));
    let mut spec = object(json!({
        "known": {"a": 1, "b": 2}, "free": {"x": {"y": 1}}, "map": {"k": {"v": 1, "w": 2}}, "extra": 1,
        "template": {"kind": "P", "metadata": {"name": "x"}, "z": 1}}));
    let dropped = crd.prune(&mut spec);
    assert_eq!(
        dropped,
        ["spec.extra", "spec.known.b", "spec.map.k.w", "spec.template.z"]
    );
    assert_eq!(
        spec["spec"],
        json!({"known": {"a": 1}, "free": {"x": {"y": 1}}, "map": {"k": {"v": 1}},
            "template": {"kind": "P", "metadata": {"name": "x"}}})
    );
    assert_eq!(spec["metadata"]["name"], "n");
}

fn with_rules(rules: Value) -> Value {
    json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
        "model": {"type": "string"}, "weight": {"type": "integer"}, "every": {"type": "string", "format": "duration"},
        "rpo": {"type": "string"}, "namespace": {"type": "string"},
        "placements": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["cluster"],
            "items": {"type": "object", "required": ["cluster"], "properties": {"cluster": {"type": "string"}, "weight": {"type": "integer"}}}}}})
}

fn with_rule(rule: &str) -> Crd {
    crd(with_rules(json!([{"rule": rule, "message": "no"}])))
}

#[test]
fn rules_hold_or_name_their_message() {
    let spec = json!({"model": "A", "weight": 3, "every": "2s", "rpo": "5s", "namespace": "n",
        "placements": [{"cluster": "w", "weight": 1}, {"cluster": "e", "weight": 2}]});
    let cases = [
        ("self.weight >= 3", true),
        ("self.weight + 1 == 4", true),
        ("has(self.model) && !has(self.missing) || true", false),
        ("self.placements.size() >= 2", true),
        ("size(self.placements) == 3", false),
        ("self.placements.all(p, p.weight > 0)", true),
        ("self.placements.exists(p, p.cluster == 'e')", true),
        (
            "self.placements.all(p, self.placements.exists_one(q, q.cluster == p.cluster))",
            true,
        ),
        ("self.placements.map(p, p.weight).exists(w, w == 2)", true),
        ("self.placements.filter(p, p.weight > 1).size() == 1", true),
        ("self.model.startsWith('A') && self.model.matches('^[A-Z]$')", true),
        ("duration(self.rpo) - self.every >= duration('3s')", true),
        ("duration(self.rpo) < duration('1s')", false),
        ("self.__namespace__ == 'n'", true),
        ("self.model in ['A', 'B']", true),
        ("self.placements[0].cluster == 'w'", true),
        ("math.abs(-1) == 1 && ' a '.trim() == 'a'", true),
    ];
    for (rule, holds) in cases {
        let crd = Crd::compile(&version(&with_rules(json!([{"rule": rule, "message": "no"}]))));
        let holding = errors(&crd, spec.clone(), None).is_empty();
        assert_eq!(holding, holds, "{rule}");
    }
    let crd = with_rule("self.weight > 5");
    assert_eq!(errors(&crd, json!({"weight": 1}), None), ["spec: Invalid value: no"]);
    assert_eq!(
        errors(&crd, json!({}), None),
        ["spec: Invalid value: \"object\": no such key: weight evaluating rule: self.weight > 5"]
    );
}

#[test]
fn a_transition_rule_is_asked_only_when_there_was_something_before() {
    let crd = with_rule("self.model == oldSelf.model");
    assert!(errors(&crd, json!({"model": "A"}), None).is_empty());
    assert!(errors(&crd, json!({"model": "A"}), Some(json!({"model": "A"}))).is_empty());
    assert_eq!(
        errors(&crd, json!({"model": "B"}), Some(json!({"model": "A"}))),
        ["spec: Invalid value: no"]
    );
}

#[test]
fn an_items_past_is_the_item_with_the_same_keys() {
    let crd = crd(json!({"type": "object", "properties": {"list": {"type": "array",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
        "items": {"type": "object", "required": ["n"], "properties": {"n": {"type": "string"}, "v": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "may only grow", "fieldPath": ".v"}]}}}}));
    let old = json!({"list": [{"n": "a", "v": 1}, {"n": "b", "v": 5}]});
    let new = json!({"list": [{"n": "b", "v": 4}, {"n": "a", "v": 2}, {"n": "c", "v": 0}]});
    assert_eq!(
        errors(&crd, new, Some(old)),
        ["spec.list[0].v: Invalid value: may only grow"]
    );
}

#[test]
fn a_message_may_be_computed_and_a_reason_given() {
    let crd = crd(with_rules(
        json!([{"rule": "self.weight < 2", "reason": "FieldValueForbidden", "fieldPath": ".weight",
        "messageExpression": "'weight is ' + string(self.weight)", "message": "unused"}]),
    ));
    assert_eq!(
        errors(&crd, json!({"weight": 7}), None),
        ["spec.weight: Forbidden: weight is 7"]
    );
}

#[test]
fn a_definition_with_a_rule_that_cannot_work_is_refused_with_the_rule() {
    for (rule, because) in [
        ("self.weight >", "compilation failed"),
        ("self.wieght > 1", "undefined field 'wieght'"),
        ("this.weight > 1", "undeclared reference to 'this'"),
        ("self.model.beginsWith('a')", "undeclared reference to 'beginsWith'"),
        ("self.placements.all(p, p.name == 'a')", "undefined field 'name'"),
        ("self.model.length > 1", "does not support field selection"),
    ] {
        let error = refused(&with_rules(json!([{"rule": rule}]))).concat();
        assert!(error.contains(because), "{rule}: {error}");
        assert!(error.contains("x-kubernetes-validations[0].rule"), "{error}");
        assert!(error.contains(&json!(rule).to_string()), "{error}");
    }
}

#[test]
fn a_schema_that_is_not_structural_is_refused_with_the_place() {
    assert_eq!(
        refused(&json!({"type": "object", "properties": {"a": {"description": "no type"}}})),
        [
            "spec.validation.openAPIV3Schema.properties[spec].properties[a].type: Required value: must not be empty for \
             specified object fields"
        ]
    );
    assert!(!refused(&json!({"type": "text"})).is_empty());
    assert!(!refused(&json!({"type": "string", "pattern": "("})).is_empty());
}

#[test]
fn leewards_own_definitions_compile() {
    for definition in leeward_api::crds() {
        let mut definition = serde_json::to_value(definition).unwrap();
        let stored = definition["spec"]["versions"][0]["name"].clone();
        definition["status"] = json!({"storedVersions": [stored]});
        // As the server completes it.
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        definition["spec"]["names"]["listKind"] = format!("{kind}List").into();
        assert_eq!(
            definition_errors(&definition, None),
            [],
            "{}",
            definition["metadata"]["name"]
        );
    }
}
