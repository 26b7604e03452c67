//! The writer behind its gate, for users who go around the edge.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use leeward_api::ProtectedApp;
use leeward_local::instance::Instance;

/// The lease of the demo.
const TTL: Duration = Duration::from_secs(3);
/// Nothing on this machine takes longer, however loaded it is.
const PATIENCE: Duration = Duration::from_secs(60);

async fn client(instance: &Instance, region: &str) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(instance.kubeconfig(region).unwrap()).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

async fn app(client: &Client) -> Option<ProtectedApp> {
    Api::<ProtectedApp>::namespaced(client.clone(), "shop")
        .get("shop")
        .await
        .ok()
}

/// Writes over and over at the pod itself, until `over` says so; when the last acknowledgement came.
async fn write_until(pod: &str, mut over: impl AsyncFnMut() -> bool) -> Instant {
    let http = reqwest::Client::builder()
        .timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let (mut last, begun) = (Instant::now(), Instant::now());
    let mut number = 0_u64;
    while !over().await {
        assert!(begun.elapsed() < PATIENCE);
        number += 1;
        let sent = http
            .post(format!("http://{pod}:8080/writes/around/{number}"))
            .send()
            .await;
        if sent.is_ok_and(|answer| answer.status().is_success()) {
            last = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    last
}

#[tokio::test]
async fn a_writer_whose_agent_is_killed_acknowledges_nothing_once_another_region_may_write() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let home = tempfile::tempdir().unwrap();
    let leeward = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leeward"));
        command.args(arguments).env("LEEWARD_HOME", home.path().join("home"));
        command.stdin(Stdio::null()).output().unwrap()
    };
    let demo = leeward(&["demo", "--keep", "--fault", "kill-app"]);
    assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));
    let instance = Instance::open(&home.path().join("home")).unwrap();
    let (west, east) = (client(&instance, "west").await, client(&instance, "east").await);
    let pods = Api::<Pod>::namespaced(west.clone(), "shop");
    let pod = pods.list(&ListParams::default()).await.unwrap().items.remove(0);
    let address = pod.status.unwrap().pod_ip.unwrap();
    let granted = app(&west).await.unwrap().status.unwrap();
    let grant = &granted.placements.iter().find(|p| p.cluster == "west").unwrap().grants[0];
    assert_eq!(Some(&grant.pod), pod.metadata.uid.as_ref());
    let explained = leeward(&["explain", "shop"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains(&format!("pod {} in west", grant.pod)), "{explained}");

    // It answers at the pod itself.
    let mut writes = 0;
    write_until(&address, async || {
        writes += 1;
        writes > 5
    })
    .await;
    let killed = Instant::now();
    instance.kill_process("west-serve").unwrap();
    let mut taken = None;
    let last = write_until(&address, async || {
        let status = app(&east).await.and_then(|app| app.status);
        if status.is_some_and(|status| status.active.as_deref() == Some("east")) {
            taken = Some(Instant::now());
        }
        taken.is_some()
    })
    .await;
    assert!(
        last > killed,
        "nothing was written at the pod itself: the test shows nothing"
    );
    assert!(
        last < killed + TTL,
        "acknowledged {:?} after its agent was killed",
        last - killed
    );
    assert!(taken.unwrap() > killed + TTL - Duration::from_millis(500));
    let writers = leeward_local::instance::processes::Stat::read_all();
    let command = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let place = |pid: i32| std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let is_west = |pid: i32| String::from_utf8_lossy(&place(pid)).contains(&format!("POD_IP={address}"));
    let alive = writers.iter().any(|stat| {
        command(stat.pid).ends_with(b"sample\0")
            && !command(stat.pid).windows(4).any(|w| w == b"gate")
            && is_west(stat.pid)
    });
    assert!(!alive, "the writer lives on");
    assert!(leeward(&["down"]).status.success());
}
