//! The API over its router, and its life on disk.

use axum::body::Body;
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::region::{Region, config_map, deployment, get, patch, pod, post, put, request, send};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

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
