//! What a node does with pods.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::region::{Region, status};

#[tokio::test]
async fn a_pod_runs_in_its_image_with_its_environment_and_volumes() {
    let region = Region::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(region.client.clone(), "default");
    let script = "id -u; hostname; echo colour=$COLOUR ip=$POD_IP; cat /etc/conf/file; echo; ls /; \
        touch /scratch/x && ls /scratch; touch /etc/conf/no || echo read-only; trap 'echo bye; exit 0' TERM; \
        echo up; while true; do sleep 0.05; done";
    let container = json!({
        "env": [{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "colour"}}}],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}, {"name": "conf", "mountPath": "/etc/conf"}]});
    let spec = json!({"volumes": [{"name": "scratch", "emptyDir": {}},
        {"name": "conf", "configMap": {"name": "conf", "optional": true, "items": [{"key": "file", "path": "file"}]}}]});
    region.run("web", script, container, spec).await;
    let waiting = region
        .until("web", "waiting for its ConfigMap", |pod| {
            status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    assert_eq!(
        status(&waiting)["state"]["waiting"]["message"],
        "ConfigMap \"conf\" not found"
    );
    let conf = json!({"metadata": {"name": "conf"}, "data": {"colour": "red", "file": "content"}});
    maps.create(&PostParams::default(), &serde_json::from_value(conf).unwrap())
        .await
        .unwrap();
    let pod = region.until_ready("web").await;
    let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();
    let log = region.until_logged("web", "up\n").await;
    for line in [
        "0\n",
        "web\n",
        &format!("colour=red ip={ip}\n"),
        "proc\n",
        "x\n",
        "read-only\n",
    ] {
        assert!(log.contains(line), "{line:?} is not in {log}");
    }
    assert!(
        !log.contains("work\n"),
        "the machine's root directory is visible: {log}"
    );
    region.delete("web").await;
    let left = region.dir.path().join("instance/regions/west/nodes/west-node-0/pods");
    assert_eq!(std::fs::read_dir(left).unwrap().count(), 0);
}

#[tokio::test]
async fn a_pod_of_a_known_image_is_ready_at_once() {
    let region = Region::start().await;
    let script = "trap 'exit 0' TERM; while true; do sleep 0.05; done";
    region.run("first", script, json!({}), json!({})).await;
    region.until_ready("first").await;
    let begin = Instant::now();
    region.run("second", script, json!({}), json!({})).await;
    region.until_ready("second").await;
    let took = begin.elapsed();
    println!("ready after {took:?}");
    assert!(took < Duration::from_secs(1), "ready after {took:?}");
}

#[tokio::test]
async fn a_container_that_ends_is_started_again_and_backs_off() {
    let region = Region::start().await;
    region.run("crash", "echo run; exit 3", json!({}), json!({})).await;
    let pod = region
        .until("crash", "backing off", |pod| {
            status(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(status(&pod)["restartCount"], 1);
    assert_eq!(status(&pod)["lastState"]["terminated"]["exitCode"], 3);
    let events: Api<Event> = Api::namespaced(region.client.clone(), "default");
    let begin = Instant::now();
    loop {
        let seen = events.list(&Default::default()).await.unwrap();
        let reasons: Vec<_> = seen.items.into_iter().filter_map(|event| event.reason).collect();
        let wanted = ["Pulling", "Pulled", "Created", "Started", "BackOff"];
        if wanted.iter().all(|reason| reasons.iter().any(|seen| seen == reason)) {
            break;
        }
        assert!(begin.elapsed() < crate::region::PATIENCE, "{reasons:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    region
        .run("once", "exit 0", json!({}), json!({"restartPolicy": "Never"}))
        .await;
    region
        .until("once", "succeeded", |pod| pod["status"]["phase"] == "Succeeded")
        .await;
    region
        .run("bad", "exit 0", json!({"image": "no-such-image:1"}), json!({}))
        .await;
    region
        .until("bad", "refused", |pod| {
            status(pod)["state"]["waiting"]["reason"] == "ImagePullBackOff"
        })
        .await;
}

#[tokio::test]
async fn pods_die_with_their_node_and_come_back_with_it() {
    let region = Region::start().await;
    let script = "echo started; while true; do sleep 0.05; done";
    region.run("web", script, json!({}), json!({})).await;
    region.until_ready("web").await;
    let children = |pid: i32| {
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let node = region.node();
    let find = || {
        region
            .instance
            .processes()
            .unwrap()
            .into_iter()
            .find(|record| record.name == node)
    };
    let keeper: i32 = {
        let pid = find().unwrap().pid;
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let found: Vec<String> = tasks
            .map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default())
            .collect();
        found.concat().trim().parse().unwrap()
    };
    let application: i32 = children(keeper).parse().unwrap();
    region.instance.kill_process(&node).unwrap();
    let begin = Instant::now();
    while std::path::Path::new(&format!("/proc/{application}")).exists() {
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "the application outlived its node"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    region.instance.start_node("west", &node).unwrap();
    let pod = region
        .until("web", "running again", |pod: &Value| {
            status(pod)["restartCount"] == 1 && status(pod)["ready"] == true
        })
        .await;
    assert_eq!(status(&pod)["lastState"]["terminated"]["reason"], "NodeRestarted");
}
