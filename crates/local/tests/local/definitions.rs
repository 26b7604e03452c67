//! Kinds that definitions add, and what becomes of their objects.

use http::StatusCode;
use serde_json::{Value, json};

use crate::region::{Region, delete, get, patch, post, put, until};
fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "boats.sea.dev"},
    "spec": {"group": "sea.dev", "scope": "Namespaced",
        "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "shortNames": ["bo"]},
        "versions": [
            {"name": "v1", "served": true, "storage": true, "subresources": {"status": {},
                "scale": {"specReplicasPath": ".spec.crew", "statusReplicasPath": ".status.crew"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["name"], "properties": {
                        "name": {"type": "string"}, "crew": {"type": "integer", "default": 1, "minimum": 0}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}},
            {"name": "v2", "served": true, "storage": false,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
        ]}})
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BOATS: &str = "/apis/sea.dev/v1/namespaces/default/boats";

fn boat(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "sea.dev/v1", "kind": "Boat", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_definition_is_served_at_once_and_its_objects_go_with_it() {
    let region = Region::new();
    let server = region.open().await;
    let (status, made) = post(&server, DEFINITIONS, &definition()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["status"]["conditions"][1]["type"], "Established");
    let (status, one) = post(&server, BOATS, &boat("a", json!({"name": "Ann"}))).await;
    assert_eq!(status, StatusCode::CREATED, "{one}");
    assert_eq!(
        (&one["spec"]["crew"], &one["metadata"]["generation"]),
        (&json!(1), &json!(1))
    );
    let (status, failure) = post(&server, BOATS, &boat("b", json!({"crew": -1}))).await;
    assert_eq!(
        (status, failure["reason"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("Invalid")),
        "{failure}"
    );

    let (_, same) = get(&server, "/apis/sea.dev/v2/namespaces/default/boats/a").await;
    assert_eq!(same["apiVersion"], "sea.dev/v2");
    let mut with_status = one.clone();
    with_status["status"] = json!({"crew": 1});
    with_status["spec"]["crew"] = json!(7);
    let (_, after) = put(&server, &format!("{BOATS}/a/status"), &with_status).await;
    assert_eq!(
        (&after["spec"]["crew"], &after["status"]["crew"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(after["metadata"]["generation"], 1);
    let crew = json!({"spec": {"crew": 4}});
    let (_, scale) = patch(
        &server,
        &format!("{BOATS}/a/scale"),
        "application/merge-patch+json",
        &json!({"spec": {"replicas": 4}}),
    )
    .await;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(4), &json!(1))
    );
    let (_, scaled) = patch(&server, &format!("{BOATS}/a"), "application/merge-patch+json", &crew).await;
    assert_eq!(scaled["metadata"]["generation"], 2);

    delete(&server, &format!("{DEFINITIONS}/boats.sea.dev"), &Value::Null).await;
    until(&server, &format!("{DEFINITIONS}/boats.sea.dev"), StatusCode::NOT_FOUND).await;
    assert_eq!(get(&server, BOATS).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn definitions_are_served_again_after_a_restart() {
    let region = Region::new();
    {
        let server = region.open().await;
        post(&server, DEFINITIONS, &definition()).await;
        post(&server, BOATS, &boat("a", json!({"name": "Ann"}))).await;
    }
    let server = region.open().await;
    assert_eq!(get(&server, &format!("{BOATS}/a")).await.0, StatusCode::OK);
}
