//! What a node does with pods.

use std::time::{Duration, Instant};

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
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

#[tokio::test]
async fn a_pod_that_was_called_unready_while_its_node_was_not_heard_of_is_ready_again() {
    let region = Region::start().await;
    let script = "trap 'exit 0' TERM; while true; do sleep 0.05; done";
    region.run("web", script, json!({}), json!({})).await;
    let mut pod = region.until_ready("web").await;
    // As the node's controller does.
    for condition in pod["status"]["conditions"].as_array_mut().unwrap() {
        if condition["type"] == "Ready" {
            condition["status"] = "False".into();
            condition["reason"] = "NodeNotReady".into();
        }
    }
    let pods: Api<Pod> = Api::namespaced(region.client.clone(), "default");
    let patch = json!({"status": {"conditions": pod["status"]["conditions"]}});
    pods.patch_status("web", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    let again = region.until_ready("web").await;
    let conditions = again["status"]["conditions"].as_array().unwrap();
    let ready = conditions
        .iter()
        .find(|condition| condition["type"] == "Ready")
        .unwrap();
    assert!(ready.get("reason").is_none(), "{ready}");
}

#[tokio::test]
async fn a_log_can_be_followed_and_the_previous_one_read() {
    let region = Region::start().await;
    let script = "echo one; sleep 0.2; echo two; sleep 0.2; exit 1";
    region.run("talker", script, json!({}), json!({})).await;
    region.until_logged("talker", "one\n").await;
    let follow = kube::api::LogParams {
        follow: true,
        ..Default::default()
    };
    let mut lines = region.pods().log_stream("talker", &follow).await.unwrap().lines();
    let mut seen = Vec::new();
    while let Some(line) = lines.try_next().await.unwrap() {
        seen.push(line);
    }
    assert_eq!(seen, ["one", "two"]);
    region
        .until("talker", "restarted", |pod| status(pod)["restartCount"] == 1)
        .await;
    let previous = kube::api::LogParams {
        previous: true,
        tail_lines: Some(1),
        ..Default::default()
    };
    let mut text = String::new();
    let begin = Instant::now();
    while text != "two\n" {
        text = region.pods().logs("talker", &previous).await.unwrap_or_default();
        assert!(begin.elapsed() < crate::region::PATIENCE, "{text}");
    }
}

#[tokio::test]
async fn a_frozen_pod_stands_still_until_it_is_thawed_or_time_is_up() {
    let region = Region::start().await;
    let script = "n=0; while true; do n=$((n+1)); echo $n > /scratch/n; done & wait";
    let container = json!({"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]});
    let pod = region
        .run(
            "busy",
            script,
            container,
            json!({"volumes": [{"name": "scratch", "emptyDir": {}}]}),
        )
        .await;
    region.until_ready("busy").await;
    let west = region.dir.path().join("instance/regions/west");
    let uid = pod.metadata.uid.unwrap();
    let counter = west.join(format!("nodes/west-node-0/pods/{uid}/volumes/scratch/n"));
    let begin = Instant::now();
    while std::fs::read_to_string(&counter).unwrap_or_default().is_empty() {
        assert!(begin.elapsed() < crate::region::PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let token = std::fs::read_to_string(west.join("pki/kubelet.token")).unwrap();
    let address = region.instance.addresses("west").unwrap().kubelet(0);
    let client = reqwest::Client::new();
    let post = |path: &str, body: Value| {
        let request = client
            .post(format!("http://{address}/{path}"))
            .bearer_auth(token.trim())
            .json(&body);
        async { request.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    let begin = Instant::now();
    let frozen = post("freeze", json!({"pods": [uid], "max_ms": 5000})).await;
    println!("frozen after {:?}", begin.elapsed());
    // A shell truncates before it writes, so the file may be empty; what matters is that it stays as it is.
    let before = (
        std::fs::read(&counter).unwrap(),
        std::fs::metadata(&counter).unwrap().modified().unwrap(),
    );
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let now = (
            std::fs::read(&counter).unwrap(),
            std::fs::metadata(&counter).unwrap().modified().unwrap(),
        );
        assert_eq!(now, before);
    }
    assert_eq!(post("thaw", json!({"token": frozen["token"]})).await["held"], true);
    let short = post("freeze", json!({"pods": [uid], "max_ms": 20})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(post("thaw", json!({"token": short["token"]})).await["held"], false);
    let begin = Instant::now();
    while std::fs::read(&counter).unwrap_or_default() == before.0 {
        assert!(begin.elapsed() < crate::region::PATIENCE);
    }
    let refused = client
        .post(format!("http://{address}/freeze"))
        .json(&json!({"pods": [], "max_ms": 1}))
        .send()
        .await;
    assert_eq!(refused.unwrap().status(), 401);
}

#[tokio::test]
async fn probes_decide_when_a_container_is_ready_and_when_it_is_started_again() {
    let region = Region::start().await;
    let script = "echo run; while true; do sleep 0.05; done";
    let container = json!({
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "readinessProbe": {"exec": {"command": ["cat", "/scratch/ready"]}, "periodSeconds": 1, "failureThreshold": 1},
        "livenessProbe": {"exec": {"command": ["/bin/sh", "-c", "test ! -e /scratch/dead || exit 1; id"]},
            "periodSeconds": 1, "failureThreshold": 1}});
    let spec = json!({"terminationGracePeriodSeconds": 0, "volumes": [{"name": "scratch", "emptyDir": {}}]});
    let pod = region.run("probed", script, container, spec).await;
    let running = |pod: &Value| !status(pod)["state"]["running"].is_null();
    let before = region.until("probed", "running", running).await;
    assert_eq!(status(&before)["ready"], false);
    let scratch = region.dir.path().join(format!(
        "instance/regions/west/nodes/west-node-0/pods/{}/volumes/scratch",
        pod.metadata.uid.unwrap()
    ));
    std::fs::write(scratch.join("ready"), "").unwrap();
    region.until_ready("probed").await;
    std::fs::write(scratch.join("dead"), "").unwrap();
    let pod = region
        .until("probed", "started again", |pod| {
            status(pod)["restartCount"] == 1 && running(pod)
        })
        .await;
    let end = &status(&pod)["lastState"]["terminated"];
    assert_eq!((&end["exitCode"], &end["signal"]), (&json!(137), &json!(9)));
    assert!(end["message"].as_str().unwrap().contains("liveness probe"), "{end}");
}

#[tokio::test]
async fn a_service_leads_to_its_ready_endpoints() {
    let region = Region::start().await;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while let Ok((mut stream, _)) = server.accept().await {
            let _ = stream.write_all(b"hello").await;
        }
    });
    let services: Api<Service> = Api::namespaced(region.client.clone(), "default");
    let slices: Api<EndpointSlice> = Api::namespaced(region.client.clone(), "default");
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 8080}]}});
    let service = services
        .create(&PostParams::default(), &serde_json::from_value(service).unwrap())
        .await
        .unwrap();
    let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": [{"addresses": ["127.0.0.1"]}]});
    slices
        .create(&PostParams::default(), &serde_json::from_value(slice).unwrap())
        .await
        .unwrap();
    let address = format!("{}:8080", service.spec.unwrap().cluster_ip.unwrap());
    let begin = Instant::now();
    let mut stream = loop {
        match tokio::net::TcpStream::connect(&address).await {
            Ok(stream) => break stream,
            Err(error) => assert!(begin.elapsed() < crate::region::PATIENCE, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text)
        .await
        .unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
#[ignore = "measures; run it by hand on a quiet machine"]
async fn measure_an_idle_node() {
    let region = Region::start().await;
    let script = "trap 'exit 0' TERM; while true; do sleep 600; done";
    for name in ["a", "b", "c"] {
        let begin = Instant::now();
        region.run(name, script, json!({}), json!({})).await;
        region.until_ready(name).await;
        println!("{name} ready after {:?}", begin.elapsed());
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ticks = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let processes = region.instance.processes().unwrap();
    let before: Vec<u64> = processes.iter().map(|process| ticks(process.pid)).collect();
    tokio::time::sleep(Duration::from_secs(20)).await;
    for (process, before) in processes.iter().zip(before) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        let memory: Vec<&str> = status
            .lines()
            .filter(|line| line.starts_with("Rss") || line.starts_with("VmRSS"))
            .collect();
        println!(
            "{}: {} ticks in 20 s, {memory:?}",
            process.name,
            ticks(process.pid) - before
        );
    }
}
