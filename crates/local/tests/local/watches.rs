//! Watches and paged lists: resumed, selected, told of everything once.

use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::region::{Region, Watch, config_map, delete, get, patch, post, put};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
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
