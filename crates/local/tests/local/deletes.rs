//! Deletion: grace, finalizers, dependents, namespaces.

use http::StatusCode;
use serde_json::{Value, json};

use crate::region::{Region, Watch, config_map, delete, get, patch, pod, post, until};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
#[tokio::test]
async fn a_pod_on_a_node_goes_when_the_node_says_so() {
    let region = Region::new();
    let server = region.open().await;
    post(&server, PODS, &pod("idle", None)).await;
    post(&server, PODS, &pod("busy", Some("n1"))).await;
    let (status, _) = delete(&server, &format!("{PODS}/idle"), &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(get(&server, &format!("{PODS}/idle")).await.0, StatusCode::NOT_FOUND);
    let (_, marked) = delete(&server, &format!("{PODS}/busy"), &json!({"gracePeriodSeconds": 5})).await;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let wrong = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "x"}});
    assert_eq!(
        delete(&server, &format!("{PODS}/busy"), &wrong).await.0,
        StatusCode::CONFLICT
    );
    delete(&server, &format!("{PODS}/busy"), &json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(get(&server, &format!("{PODS}/busy")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_removed() {
    let region = Region::new();
    let server = region.open().await;
    let mut map = config_map("a", "1");
    map["metadata"]["finalizers"] = json!(["x.dev/hold"]);
    post(&server, MAPS, &map).await;
    let (_, held) = delete(&server, &format!("{MAPS}/a"), &Value::Null).await;
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(get(&server, &format!("{MAPS}/a")).await.0, StatusCode::OK);
    let drop = json!({"metadata": {"finalizers": null}});
    patch(&server, &format!("{MAPS}/a"), "application/merge-patch+json", &drop).await;
    assert_eq!(get(&server, &format!("{MAPS}/a")).await.0, StatusCode::NOT_FOUND);
}

fn owned(name: &str, owner: &Value, blocks: bool) -> Value {
    let mut map = config_map(name, "1");
    map["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocks}]);
    map
}

#[tokio::test]
async fn dependents_go_with_their_owner_in_the_background() {
    let region = Region::new();
    let server = region.open().await;
    let (_, owner) = post(&server, MAPS, &config_map("owner", "1")).await;
    let (_, child) = post(&server, MAPS, &owned("child", &owner, true)).await;
    post(&server, MAPS, &owned("grandchild", &child, true)).await;
    delete(&server, &format!("{MAPS}/owner"), &Value::Null).await;
    until(&server, &format!("{MAPS}/grandchild"), StatusCode::NOT_FOUND).await;
    assert_eq!(get(&server, &format!("{MAPS}/child")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_owner_deleted_in_the_foreground_goes_last() {
    let region = Region::new();
    let server = region.open().await;
    let (_, owner) = post(&server, MAPS, &config_map("owner", "1")).await;
    let mut child = owned("child", &owner, true);
    child["metadata"]["finalizers"] = json!(["x.dev/hold"]);
    post(&server, MAPS, &child).await;
    let mut watch = Watch::open(&server, &format!("{MAPS}?watch=true&resourceVersion=0")).await;
    delete(
        &server,
        &format!("{MAPS}/owner"),
        &json!({"propagationPolicy": "Foreground"}),
    )
    .await;
    // The child is marked, which only the owner's deletion causes.
    loop {
        let event = watch.next().await.unwrap();
        if event["object"]["metadata"]["name"] == "child"
            && event["object"]["metadata"]["deletionTimestamp"].is_string()
        {
            break;
        }
    }
    assert_eq!(get(&server, &format!("{MAPS}/owner")).await.0, StatusCode::OK);
    let drop = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    patch(&server, &format!("{MAPS}/child"), "application/json-patch+json", &drop).await;
    until(&server, &format!("{MAPS}/owner"), StatusCode::NOT_FOUND).await;
    assert_eq!(get(&server, &format!("{MAPS}/child")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn orphans_stay_without_their_owner() {
    let region = Region::new();
    let server = region.open().await;
    let (_, owner) = post(&server, MAPS, &config_map("owner", "1")).await;
    post(&server, MAPS, &owned("child", &owner, false)).await;
    delete(
        &server,
        &format!("{MAPS}/owner"),
        &json!({"propagationPolicy": "Orphan"}),
    )
    .await;
    until(&server, &format!("{MAPS}/owner"), StatusCode::NOT_FOUND).await;
    let (status, child) = get(&server, &format!("{MAPS}/child")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(child["metadata"].get("ownerReferences"), None);
}

#[tokio::test]
async fn a_namespace_takes_its_content_with_it() {
    let region = Region::new();
    let server = region.open().await;
    let missing = post(&server, "/api/v1/namespaces/x/configmaps", &config_map("a", "1")).await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
    assert_eq!(missing.1["message"], "namespaces \"x\" not found");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
    post(&server, "/api/v1/namespaces", &namespace).await;
    let mut held = config_map("a", "1");
    held["metadata"]["finalizers"] = json!(["x.dev/hold"]);
    post(&server, "/api/v1/namespaces/x/configmaps", &held).await;
    delete(&server, "/api/v1/namespaces/x", &Value::Null).await;
    let (status, refused) = post(&server, "/api/v1/namespaces/x/configmaps", &config_map("b", "1")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    assert_eq!(
        get(&server, "/api/v1/namespaces/x").await.1["status"]["phase"],
        "Terminating"
    );
    let drop = json!({"metadata": {"finalizers": null}});
    patch(
        &server,
        "/api/v1/namespaces/x/configmaps/a",
        "application/merge-patch+json",
        &drop,
    )
    .await;
    until(&server, "/api/v1/namespaces/x", StatusCode::NOT_FOUND).await;
}
