//! What the API server is told and answered.

use super::*;
use crate::inject::webhook::{Malformed, configuration, review};

fn question(object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "operation": "CREATE", "namespace": "store", "object": object,
            "resource": { "group": "", "version": "v1", "resource": "pods" },
        },
    })
}

fn answer(question: &Value) -> Value {
    let answer = review(question.to_string().as_bytes(), &with()).unwrap();
    assert_eq!(
        (&answer["apiVersion"], &answer["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    assert_eq!(answer["response"]["uid"], "u-1");
    answer["response"].clone()
}

#[test]
fn the_patch_makes_of_the_pod_what_is_placed() {
    let answer = answer(&question(template()));
    assert_eq!(
        (&answer["allowed"], &answer["patchType"]),
        (&json!(true), &json!("JSONPatch"))
    );
    let patch: k8s_openapi::ByteString = serde_json::from_value(answer["patch"].clone()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch.0).unwrap();
    let mut pod = template();
    json_patch::patch(&mut pod, &patch).unwrap();
    assert_eq!(pod, placed(&template()));
}

#[test]
fn what_is_no_new_pod_that_asks_for_a_gate_is_let_through() {
    let with = |pointer: &str, value: Value| {
        let mut question = question(template());
        *question.pointer_mut(pointer).unwrap() = value;
        question
    };
    let mut debug = question(template());
    debug["request"]["subResource"] = json!("ephemeralcontainers");
    for question in [
        with("/request/object", placed(&template())),
        with("/request/object", json!({ "metadata": {} })),
        with("/request/object", Value::Null),
        with("/request/operation", json!("UPDATE")),
        with("/request/resource/resource", json!("nodes")),
        debug,
    ] {
        assert_eq!(
            answer(&question),
            json!({ "uid": "u-1", "allowed": true }),
            "{question}"
        );
    }
}

#[test]
fn a_gate_that_cannot_be_kept_is_refused_with_the_reason() {
    let answer = answer(&question(changed(&[("/spec/hostNetwork", json!(true))])));
    assert_eq!(answer["allowed"], false);
    assert!(
        answer["status"]["message"].as_str().unwrap().contains("hostNetwork"),
        "{answer}"
    );
    assert!(answer["patch"].is_null());
}

#[test]
fn what_is_no_question_is_not_answered() {
    let deep = "[".repeat(100_000);
    for body in ["", "{", "\u{0}", &deep] {
        assert!(matches!(review(body.as_bytes(), &with()), Err(Malformed::Json(_))));
    }
    let mut old = question(template());
    old["apiVersion"] = json!("admission.k8s.io/v1beta1");
    for other in [json!(null), json!([]), template(), old] {
        let error = review(other.to_string().as_bytes(), &with()).unwrap_err();
        assert!(matches!(error, Malformed::Other { .. }), "{error}");
    }
    for request in [json!(null), json!({}), json!({ "uid": "" }), json!({ "uid": 7 })] {
        let mut without = question(template());
        without["request"] = request;
        assert_eq!(
            review(without.to_string().as_bytes(), &with()),
            Err(Malformed::NoRequest)
        );
    }
}

#[test]
fn the_api_server_asks_about_as_few_pods_as_it_can_and_waits_for_nobody() {
    let hook = configuration("leeward-system", "PEM").webhooks.unwrap().remove(0);
    assert_eq!(
        (hook.failure_policy.as_deref(), hook.timeout_seconds),
        (Some("Ignore"), Some(5))
    );
    assert_eq!(hook.side_effects, "None");
    assert_eq!(hook.client_config.ca_bundle.unwrap().0, b"PEM");
    let selector = serde_json::to_value(hook.namespace_selector).unwrap();
    assert_eq!(
        selector,
        json!({ "matchExpressions": [{ "key": "leeward.dev/inject", "operator": "In", "values": ["enabled"] }] })
    );
}
