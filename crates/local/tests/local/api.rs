//! The API over its router, and its life on disk.

use axum::body::Body;
use futures::{StreamExt, TryStreamExt};
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use leeward_local::apiserver::Server;
use serde_json::{Value, json};

use crate::region::{Region, Watch, config_map, delete, deployment, get, patch, pod, post, put, request, send};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Waits until a path answers with the status.
async fn until(server: &Server, path: &str, wanted: StatusCode) -> Value {
    // A watch on everything that changes would be exact; the path's own kind is not known here, so it is asked again.
    for _ in 0..2000 {
        let (status, body) = get(server, path).await;
        if status == wanted {
            return body;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{path} does not become {wanted}");
}

#[tokio::test]
async fn kube_creates_reads_changes_lists_and_deletes() {
    let region = Region::new();
    let server = region.open().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let map: ConfigMap = serde_json::from_value(config_map("a", "1")).unwrap();
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let taken = maps.create(&PostParams::default(), &map).await.unwrap_err();
    assert!(taken.to_string().contains("configmaps \"a\" already exists"), "{taken}");

    let mut stale = made.clone();
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"x": "y"}})))
        .await
        .unwrap();
    stale.data = None;
    let kube::Error::Api(conflict) = maps.replace("a", &PostParams::default(), &stale).await.unwrap_err() else {
        panic!("no answer of the API");
    };
    assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        conflict.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    let list = maps.list(&ListParams::default().labels("v=1")).await.unwrap();
    assert_eq!(list.items.len(), 1);
    assert_eq!(list.items[0].data.as_ref().unwrap()["x"], "y");
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn kube_watcher_follows_changes() {
    let region = Region::new();
    let server = region.open().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let mut stream = std::pin::pin!(kube::runtime::watcher(
        maps.clone(),
        kube::runtime::watcher::Config::default()
    ));
    let map: ConfigMap = serde_json::from_value(config_map("a", "1")).unwrap();
    let mut seen = Vec::new();
    while let Some(event) = stream.try_next().await.unwrap() {
        use kube::runtime::watcher::Event;
        match event {
            Event::InitDone => {
                maps.create(&PostParams::default(), &map).await.unwrap();
            }
            Event::Apply(_) => {
                seen.push("apply");
                maps.delete("a", &DeleteParams::default()).await.unwrap();
            }
            Event::Delete(_) => {
                seen.push("delete");
                break;
            }
            _ => {}
        }
    }
    assert_eq!(seen, ["apply", "delete"]);
}

#[tokio::test]
async fn kube_streams_the_initial_list() {
    let region = Region::new();
    let server = region.open().await;
    post(&server, MAPS, &config_map("a", "1")).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let config = kube::runtime::watcher::Config::default().streaming_lists();
    let stream = kube::runtime::watcher(maps, config);
    let events: Vec<_> = stream.take(3).map(|e| format!("{:?}", e.unwrap())).collect().await;
    assert!(
        events[0].starts_with("Init") && events[1].starts_with("InitApply"),
        "{events:?}"
    );
    assert_eq!(events[2], "InitDone");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_revisions_go_on() {
    let region = Region::new();
    let before = {
        let server = region.open().await;
        let (_, made) = post(&server, MAPS, &config_map("a", "1")).await;
        made
    };
    let server = region.open().await;
    let (status, after) = get(&server, &format!("{MAPS}/a")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(after, before);
    let (_, later) = post(&server, MAPS, &config_map("b", "1")).await;
    let revision = |o: &Value| {
        o["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert!(revision(&later) > revision(&before));
}

#[tokio::test]
async fn a_watch_resumes_after_a_restart_and_hears_of_deletions() {
    let region = Region::new();
    let server = region.open().await;
    let (_, first) = post(&server, MAPS, &config_map("a", "1")).await;
    let at = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    post(&server, MAPS, &config_map("b", "1")).await;
    let mut watch = Watch::open(&server, &format!("{MAPS}?watch=true&resourceVersion={at}")).await;
    assert_eq!(watch.next_brief().await.unwrap(), ("ADDED".into(), "b".into()));
    drop((watch, server));

    let server = region.open().await;
    let mut watch = Watch::open(&server, &format!("{MAPS}?watch=true&resourceVersion={at}")).await;
    assert_eq!(watch.next_brief().await.unwrap(), ("ADDED".into(), "b".into()));
    delete(&server, &format!("{MAPS}/b"), &Value::Null).await;
    assert_eq!(watch.next_brief().await.unwrap(), ("DELETED".into(), "b".into()));
    drop((watch, server));

    let server = region.open().await;
    let mut watch = Watch::open(&server, &format!("{MAPS}?watch=true&resourceVersion={at}")).await;
    // Every event again, as it was, and not only what they led to.
    assert_eq!(watch.next_brief().await.unwrap(), ("ADDED".into(), "b".into()));
    assert_eq!(watch.next_brief().await.unwrap(), ("DELETED".into(), "b".into()));
    let (_, then) = get(
        &server,
        &format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact"),
    )
    .await;
    assert_eq!(then["items"].as_array().unwrap().len(), 1, "{then}");
    let (_, list) = get(&server, MAPS).await;
    let now = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = Watch::open(&server, &format!("{MAPS}?watch=true&resourceVersion={now}")).await;
    post(&server, MAPS, &config_map("c", "1")).await;
    assert_eq!(watch.next_brief().await.unwrap(), ("ADDED".into(), "c".into()));
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let region = Region::new();
    let server = region.open().await;
    for i in 0..20 {
        assert_eq!(
            post(&server, MAPS, &config_map(&format!("m{i}"), "1")).await.0,
            StatusCode::CREATED
        );
    }
    // The file as it is while the server runs is the file that a killed server leaves.
    let after = Region::new();
    std::fs::create_dir_all(after.path("data")).unwrap();
    std::fs::copy(region.path("data/objects.redb"), after.path("data/objects.redb")).unwrap();
    let restarted = after.open().await;
    let (_, list) = get(&restarted, MAPS).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn a_watch_from_a_revision_that_is_no_longer_kept_gets_410() {
    let region = Region::new();
    let server = region.open().await;
    let (_, first) = post(&server, MAPS, &config_map("a", "1")).await;
    let at = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut slow = Watch::open(&server, &format!("{MAPS}?watch=true&resourceVersion={at}")).await;
    for i in 0..1100 {
        patch(
            &server,
            &format!("{MAPS}/a"),
            "application/merge-patch+json",
            &json!({"data": {"i": i.to_string()}}),
        )
        .await;
    }
    let mut late = Watch::open(&server, &format!("{MAPS}?watch=true&resourceVersion={at}")).await;
    for watch in [&mut slow, &mut late] {
        let event = watch.next().await.unwrap();
        assert_eq!(
            (event["type"].as_str(), event["object"]["code"].as_u64()),
            (Some("ERROR"), Some(410))
        );
        assert!(watch.next().await.is_none());
    }
    let (status, expired) = get(
        &server,
        &format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact"),
    )
    .await;
    assert_eq!((status, &expired["reason"]), (StatusCode::GONE, &json!("Expired")));
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0";
    let (status, expired) = get(&server, &format!("{MAPS}?continue={token}")).await;
    assert_eq!(status, StatusCode::GONE);
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = get(&server, &format!("{MAPS}?continue={token}")).await;
    assert_eq!(rest["items"][0]["metadata"]["name"], "a", "{rest}");
}

#[tokio::test]
async fn a_watch_with_a_selector_sees_objects_come_and_go() {
    let region = Region::new();
    let server = region.open().await;
    let mut watch = Watch::open(
        &server,
        &format!("{MAPS}?watch=true&labelSelector=v%3D1&resourceVersion=0"),
    )
    .await;
    post(&server, MAPS, &config_map("other", "2")).await;
    post(&server, MAPS, &config_map("a", "1")).await;
    put(&server, &format!("{MAPS}/a"), &config_map("a", "2")).await;
    assert_eq!(watch.next_brief().await.unwrap(), ("ADDED".into(), "a".into()));
    assert_eq!(watch.next_brief().await.unwrap(), ("DELETED".into(), "a".into()));
    put(&server, &format!("{MAPS}/a"), &config_map("a", "1")).await;
    assert_eq!(watch.next_brief().await.unwrap(), ("ADDED".into(), "a".into()));
}

#[tokio::test]
async fn a_long_list_is_read_in_pages_of_one_moment() {
    let region = Region::new();
    let server = region.open().await;
    for i in 0..5 {
        post(&server, MAPS, &config_map(&format!("m{i}"), "1")).await;
    }
    let (_, page) = get(&server, &format!("{MAPS}?limit=2")).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert_eq!(page["metadata"]["remainingItemCount"], 3);
    delete(&server, &format!("{MAPS}/m3"), &Value::Null).await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = get(&server, &format!("{MAPS}?limit=10&continue={token}")).await;
    let names: Vec<&str> = rest["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["m2", "m3", "m4"]);
    assert_eq!(rest["metadata"]["resourceVersion"], page["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn many_writers_lose_no_update() {
    let region = Region::new();
    let server = region.open().await;
    post(&server, MAPS, &config_map("a", "1")).await;
    let writes = (0..40).map(|i| {
        let server = &server;
        async move {
            let body = json!({"data": {format!("k{i}"): "x"}});
            patch(server, &format!("{MAPS}/a"), "application/merge-patch+json", &body)
                .await
                .0
        }
    });
    // Sixteen tries each: of forty that race, the last may need more, and is told to try again.
    let statuses = futures::future::join_all(writes).await;
    let fine = statuses.iter().filter(|s| **s == StatusCode::OK).count();
    assert!(
        statuses
            .iter()
            .all(|s| *s == StatusCode::OK || *s == StatusCode::CONFLICT)
    );
    let (_, map) = get(&server, &format!("{MAPS}/a")).await;
    assert_eq!(map["data"].as_object().unwrap().len(), fine + 1);
}

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

#[tokio::test]
async fn two_managers_own_different_containers_and_conflict_over_one() {
    let region = Region::new();
    let server = region.open().await;
    let apply = |manager: &'static str, image: &'static str, container: &'static str| {
        let mut body = deployment("web");
        body["spec"].as_object_mut().unwrap().remove("replicas");
        body["spec"]["template"]["spec"]["containers"] = json!([{"name": container, "image": image}]);
        let path = format!("{DEPLOYMENTS}/web?fieldManager={manager}");
        request(Method::PATCH, &path, "application/apply-patch+yaml", body.to_string())
    };
    assert_eq!(send(&server, apply("one", "a:1", "a")).await.0, StatusCode::CREATED);
    assert_eq!(send(&server, apply("two", "b:1", "b")).await.0, StatusCode::OK);
    let (status, failure) = send(&server, apply("two", "a:2", "a")).await;
    assert_eq!(
        (status, failure["reason"].as_str()),
        (StatusCode::CONFLICT, Some("Conflict"))
    );
    assert_eq!(
        failure["details"]["causes"][0]["reason"], "FieldManagerConflict",
        "{failure}"
    );
    let (_, web) = get(&server, &format!("{DEPLOYMENTS}/web")).await;
    assert_eq!(
        web["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(),
        2,
        "{web}"
    );
}

#[tokio::test]
async fn services_get_addresses_of_the_region() {
    let region = Region::new();
    let server = region.open().await;
    let service = |name: &str, ip: Option<&str>| {
        let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
        if let Some(ip) = ip {
            service["spec"]["clusterIP"] = ip.into();
        }
        service
    };
    let path = "/api/v1/namespaces/default/services";
    let (one, two) = (service("a", None), service("b", None));
    let ((_, a), (_, b)) = futures::future::join(post(&server, path, &one), post(&server, path, &two)).await;
    assert_ne!(a["spec"]["clusterIP"], b["spec"]["clusterIP"]);
    assert!(a["spec"]["clusterIP"].as_str().unwrap().starts_with("127.7.24."));
    let (_, headless) = post(&server, path, &service("c", Some("None"))).await;
    assert_eq!(headless["spec"]["clusterIP"], "None");
    assert_eq!(
        post(&server, path, &service("d", Some("10.0.0.1"))).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let (_, kept) = put(&server, &format!("{path}/a"), &service("a", None)).await;
    assert_eq!(kept["spec"]["clusterIP"], a["spec"]["clusterIP"], "{kept}");
}

#[tokio::test]
async fn a_dry_run_keeps_nothing() {
    let region = Region::new();
    let server = region.open().await;
    let (status, _) = post(&server, &format!("{MAPS}?dryRun=All"), &config_map("a", "1")).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(get(&server, &format!("{MAPS}/a")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bad_requests_get_the_status_that_kubernetes_gives() {
    let region = Region::new();
    let server = region.open().await;
    let nested = format!("{{\"a\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let wrong_kind = pod("a", None).to_string();
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(4 << 20));
    for (body, media, status, reason) in [
        ("{\"kind\":\"Config", "application/json", 400, "BadRequest"),
        (nested.as_str(), "application/json", 400, "BadRequest"),
        ("[1]", "application/json", 400, "BadRequest"),
        (wrong_kind.as_str(), "application/json", 400, "BadRequest"),
        (large.as_str(), "application/json", 413, "RequestEntityTooLarge"),
        ("x", "application/x-www-form-urlencoded", 415, "UnsupportedMediaType"),
        ("{\"metadata\":{}}", "application/json", 422, "Invalid"),
        ("{\"metadata\":{\"name\":\"A_b\"}}", "application/json", 422, "Invalid"),
        ("{\"metadata\":3}", "application/json", 400, "BadRequest"),
        (
            "{\"metadata\":{\"name\":\"a\",\"namespace\":\"b\"}}",
            "application/json",
            400,
            "BadRequest",
        ),
    ] {
        let (code, failure) = send(&server, request(Method::POST, MAPS, media, body.to_owned())).await;
        let shown = &body[..body.len().min(60)];
        assert_eq!(
            (code.as_u16(), failure["reason"].as_str()),
            (status, Some(reason)),
            "{shown}: {failure}"
        );
        assert_eq!(failure["kind"], "Status");
    }
    for (method, path, status) in [
        (Method::GET, "/apis/apps/v1/things", 404),
        (Method::POST, "/api/v1/configmaps", 405),
        (Method::PUT, MAPS, 405),
        (Method::GET, "/api/v1/pods?labelSelector=a%20in%20(", 400),
        (Method::GET, "/api/v1/pods?fieldSelector=spec.x%3Dy", 400),
        (Method::GET, "/api/v1/pods?limit=x", 400),
        (Method::GET, "/api/v1/pods?continue=x", 400),
        (Method::GET, "/api/v1/pods?resourceVersion=999999", 504),
    ] {
        let (code, failure) = send(&server, request(method, path, "application/json", Body::empty())).await;
        assert_eq!(
            (code.as_u16(), failure["kind"].as_str()),
            (status, Some("Status")),
            "{path}: {failure}"
        );
    }
    for path in ["/apis/no.such/v1/things", "/nothing"] {
        assert_eq!(get(&server, path).await.0, StatusCode::NOT_FOUND);
    }
    let unnamed = http::Request::get("/api/v1/pods").body(Body::empty()).unwrap();
    assert_eq!(send(&server, unnamed).await.0, StatusCode::UNAUTHORIZED);
    let open = http::Request::get("/readyz").body(Body::empty()).unwrap();
    assert_eq!(send(&server, open).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_store_in_use_or_damaged_says_what_to_do() {
    let region = Region::new();
    let server = region.open().await;
    let error = region.try_open().await.err().unwrap().to_string();
    assert!(error.contains("in use") && error.contains("stop it first"), "{error}");
    drop(server);
    let file = region.path("data/objects.redb");
    std::fs::write(&file, b"not a store").unwrap();
    let error = region.try_open().await.err().unwrap().to_string();
    assert!(error.contains("damaged") && error.contains("move it away"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"not a store");
}

#[tokio::test]
async fn events_of_both_groups_are_the_same_events() {
    use kube::runtime::events::{Event, EventType, Recorder, Reporter};
    let region = Region::new();
    let server = region.open().await;
    let (_, map) = post(&server, MAPS, &config_map("a", "1")).await;
    let reporter = Reporter {
        controller: "tester".into(),
        instance: None,
    };
    let recorder = Recorder::new(server.client(), reporter);
    let about = k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("ConfigMap".into()),
        name: Some("a".into()),
        namespace: Some("default".into()),
        uid: map["metadata"]["uid"].as_str().map(Into::into),
        ..Default::default()
    };
    let event = Event {
        type_: EventType::Normal,
        reason: "Seen".into(),
        note: Some("it is there".into()),
        action: "Look".into(),
        secondary: None,
    };
    recorder.publish(&event, &about).await.unwrap();
    recorder.publish(&event, &about).await.unwrap();
    let (_, list) = get(
        &server,
        "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Da",
    )
    .await;
    let one = &list["items"][0];
    assert_eq!(
        (&one["message"], &list["apiVersion"]),
        (&json!("it is there"), &json!("v1")),
        "{list}"
    );
    let (_, list) = get(&server, "/apis/events.k8s.io/v1/namespaces/default/events").await;
    let one = &list["items"][0];
    assert_eq!(
        (&one["note"], &one["regarding"]["name"]),
        (&json!("it is there"), &json!("a")),
        "{list}"
    );
    assert_eq!(one["series"]["count"], 2);
}

#[tokio::test]
async fn unknown_fields_are_dropped_with_a_warning_or_refused() {
    use tower::ServiceExt;
    let region = Region::new();
    let server = region.open().await;
    let mut wrong = deployment("web");
    wrong["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x".into();
    let response = server
        .router()
        .oneshot(request(
            Method::POST,
            DEPLOYMENTS,
            "application/json",
            wrong.to_string(),
        ))
        .await
        .unwrap();
    let warning = response.headers()["warning"].to_str().unwrap();
    assert_eq!(
        warning,
        r#"299 - "unknown field \"spec.template.spec.containers[0].imagee\"""#
    );
    let (_, web) = get(&server, &format!("{DEPLOYMENTS}/web")).await;
    assert_eq!(web.pointer("/spec/template/spec/containers/0/imagee"), None);
    let strict = format!("{DEPLOYMENTS}?fieldValidation=Strict");
    let (status, failure) = post(&server, &strict, &wrong).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        failure["message"]
            .as_str()
            .unwrap()
            .contains("strict decoding error: unknown field"),
        "{failure}"
    );
}

#[tokio::test]
async fn logs_come_from_the_node_of_the_pod() {
    let region = Region::new();
    let server = region.open().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let kubelet = axum::Router::new().fallback(|request: http::Request<Body>| async move {
        let token = request.headers()["authorization"].to_str().unwrap().to_owned();
        format!("{} {token}", request.uri())
    });
    let serving = tokio::spawn(async move { axum::serve(listener, kubelet).await });
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let (status, failure) = post(&server, "/api/v1/nodes", &node).await;
    assert_eq!(status, StatusCode::CREATED, "{failure}");
    post(&server, PODS, &pod("p", Some("n1"))).await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(server.client());
    let parameters = kube::api::LogParams {
        tail_lines: Some(3),
        ..Default::default()
    };
    let text = pods.logs("p", &parameters).await.unwrap();
    assert_eq!(text, "/containerLogs/default/p/a?tailLines=3 Bearer kubelet");
    serving.abort();
}

#[tokio::test]
async fn a_pod_is_bound_once_and_evicted() {
    let region = Region::new();
    let server = region.open().await;
    post(&server, PODS, &pod("p", None)).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(
        post(&server, &format!("{PODS}/p/binding"), &binding).await.0,
        StatusCode::CREATED
    );
    assert_eq!(
        post(&server, &format!("{PODS}/p/binding"), &binding).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(get(&server, &format!("{PODS}/p")).await.1["spec"]["nodeName"], "n1");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(
        post(&server, &format!("{PODS}/p/eviction"), &eviction).await.0,
        StatusCode::CREATED
    );
    assert!(get(&server, &format!("{PODS}/p")).await.1["metadata"]["deletionTimestamp"].is_string());
}
