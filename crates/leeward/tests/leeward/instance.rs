//! A region's processes together: controllers, nodes, and their ends.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Node};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use leeward_local::instance::processes::{self, Role, Stat};
use leeward_local::instance::{Instance, Options};
use serde_json::{Value, json};

use crate::region::{PATIENCE, Region, ready};

impl Region {
    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn deploy(&self, replicas: u8) {
        let deployment = json!({
            "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "app", "image": "shell:1", "command": ["/bin/sh", "-c", "exec sleep 3600"]}],
                }},
            },
        });
        let deployment = serde_json::from_value(deployment).unwrap();
        self.deployments()
            .create(&PostParams::default(), &deployment)
            .await
            .unwrap();
    }

    // Waits until the pods are as wanted.
    async fn until_pods(&self, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Duration {
        let begin = Instant::now();
        loop {
            let pods = self.pods().list(&ListParams::default()).await.unwrap().items;
            let pods: Vec<Value> = pods.iter().map(|pod| serde_json::to_value(pod).unwrap()).collect();
            if wanted(&pods) {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < PATIENCE, "the pods never became {what}: {pods:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_nodes_ready(&self, count: usize) -> Duration {
        let begin = Instant::now();
        let nodes: Api<Node> = Api::all(self.client.clone());
        loop {
            let nodes = nodes.list(&ListParams::default()).await.unwrap().items;
            let nodes = nodes.iter().map(|node| serde_json::to_value(node).unwrap());
            if nodes.filter(ready).count() == count {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < PATIENCE, "the nodes never became ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn nodes(pods: &[Value]) -> BTreeSet<&str> {
    pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect()
}

fn all_ready(count: usize) -> impl Fn(&[Value]) -> bool {
    move |pods| pods.len() == count && pods.iter().all(ready)
}

#[tokio::test]
async fn pods_of_a_killed_node_start_on_the_other_and_nothing_is_left_in_the_end() {
    let region = Region::with_nodes(2).await;
    region.until_nodes_ready(2).await;
    region.deploy(2).await;
    region
        .until_pods("ready on both nodes", |pods| {
            all_ready(2)(pods) && nodes(pods).len() == 2
        })
        .await;

    region.instance.kill_process("west-node-0").unwrap();
    let healed = region
        .until_pods("ready on the other node", |pods| {
            all_ready(2)(pods) && nodes(pods) == BTreeSet::from(["west-node-1"])
        })
        .await;
    assert!(healed < Duration::from_secs(15), "{healed:?}");

    region.instance.start_node("west", "west-node-0").unwrap();
    region.until_nodes_ready(2).await;

    let all = Stat::read_all();
    let roots: Vec<i32> = region
        .instance
        .processes()
        .unwrap()
        .iter()
        .map(|record| record.pid)
        .collect();
    let started = processes::descendants(&all, &roots);
    assert!(!started.is_empty(), "the containers are among what the nodes started");
    region.instance.stop_all().unwrap();
    assert_eq!(region.instance.processes().unwrap(), []);
    let left: Vec<&Stat> = started.iter().filter(|stat| processes::is_running(stat)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_killed_region_comes_back_with_its_objects() {
    let region = Region::with_nodes(1).await;
    region.deploy(1).await;
    region.until_pods("ready", all_ready(1)).await;
    region.instance.kill_region("west").unwrap();
    assert_eq!(region.instance.processes().unwrap(), []);
    region.instance.start_kubernetes("west").unwrap();
    region.instance.wait_api_ready("west", PATIENCE).await.unwrap();
    region.until_pods("ready again", all_ready(1)).await;
    let scale = json!({"spec": {"replicas": 0}});
    region
        .deployments()
        .patch("web", &PatchParams::default(), &Patch::Merge(scale))
        .await
        .unwrap();
    region.until_pods("gone", <[Value]>::is_empty).await;
    region.instance.stop_all().unwrap();
}

#[tokio::test]
async fn an_api_that_is_away_for_a_while_is_told_once_by_each_who_uses_it() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        nodes_per_region: 1,
        dies_with_owner: true,
        program: Some(env!("CARGO_BIN_EXE_leeward").into()),
        ..Options::default()
    };
    let instance = Instance::create(&dir.path().join("instance"), &["west"], &options).unwrap();
    instance.start_witness().unwrap();
    instance.start_kubernetes("west").unwrap();
    instance.wait_api_ready("west", PATIENCE).await.unwrap();
    instance.start_agent("west").unwrap();
    let client = leeward_testing::client(&instance.kubeconfig("west").unwrap())
        .await
        .unwrap();
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let end = Instant::now() + PATIENCE;
    while leases.get_opt("west-node-0").await.unwrap().is_none() {
        assert!(Instant::now() < end, "the node has no lease");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let whole = |process: &str| std::fs::read_to_string(instance.layout().log(Some("west"), process)).unwrap();
    // Whoever was started before the API answered has said so; that is not what is looked at.
    let begin = std::cell::RefCell::new(std::collections::BTreeMap::new());
    let log = |process: &str| {
        let from = begin.borrow().get(process).copied().unwrap_or(0);
        whole(process)[from..].to_owned()
    };
    let until = async |process: &str, text: &str| {
        let end = Instant::now() + PATIENCE;
        while !log(process).contains(text) {
            assert!(
                Instant::now() < end,
                "{process} has not said {text:?}:\n{}",
                log(process)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until("serve", "the agent runs").await;
    for process in ["serve", "west-node-0"] {
        begin.borrow_mut().insert(process, whole(process).len());
    }
    instance.kill_process("west-api").unwrap();
    let told = [
        (
            "serve",
            "the Kubernetes API does not answer",
            "the Kubernetes API answers again",
        ),
        (
            "west-node-0",
            "the node's lease cannot be renewed",
            "the node's lease is renewed again",
        ),
    ];
    for (process, away, _) in told {
        until(process, away).await;
    }
    // Long enough for each watch to be tried again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    instance.start_kubernetes("west").unwrap();
    for (process, away, back) in told {
        until(process, back).await;
        let log = log(process);
        assert_eq!((log.matches(away).count(), log.matches(back).count()), (1, 1), "{log}");
        assert!(!log.contains("ERROR"), "{log}");
    }
    instance.stop_all().unwrap();
}

#[tokio::test]
#[ignore = "measures the machine, too: run it alone"]
async fn what_an_idle_region_uses() {
    let begin = Instant::now();
    let region = Region::with_nodes(2).await;
    region.until_nodes_ready(2).await;
    println!("ready after {:?}", begin.elapsed());
    region.deploy(1).await;
    println!(
        "first pod ready after {:?}",
        region.until_pods("ready", all_ready(1)).await
    );
    for replicas in [0, 1] {
        let scale = json!({"spec": {"replicas": replicas}});
        region
            .deployments()
            .patch("web", &PatchParams::default(), &Patch::Merge(scale))
            .await
            .unwrap();
        println!(
            "scaled to {replicas} after {:?}",
            region.until_pods("scaled", all_ready(replicas)).await
        );
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let records = region.instance.processes().unwrap();
    let before: Vec<_> = records
        .iter()
        .map(|record| processes::usage(std::slice::from_ref(record)))
        .collect();
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs(10)).await;
    for (record, before) in records.iter().zip(before) {
        let after = processes::usage(std::slice::from_ref(record));
        println!(
            "{}: {after:?}, {:.2} %",
            record.name,
            processes::cpu_percent(before, after, begin.elapsed())
        );
    }
    assert!(records.iter().any(|record| record.role == Role::Api));
    region.instance.stop_all().unwrap();
}
