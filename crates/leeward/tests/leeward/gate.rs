//! The writer behind its gate, for users who go around the edge.

use std::{
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use leeward_api::ProtectedApp;
use leeward_local::instance::Instance;
use tokio_util::sync::CancellationToken;

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

/// When writes at the pod itself were sent that it acknowledged.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<Vec<Instant>>>);

impl Acknowledged {
    /// Writes over and over, until `over`.
    async fn write(self, pod: String, over: CancellationToken) {
        // What hangs is given up, so that the next one tells whether there is an answer by then.
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(1))
            .build()
            .unwrap();
        for number in 0_u64.. {
            if over.is_cancelled() {
                return;
            }
            let sent = Instant::now();
            let url = format!("http://{pod}:8080/writes/around/{number}");
            let answer = http.post(url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                self.0.lock().unwrap().push(sent);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn after(&self, moment: Instant) -> usize {
        let sent = self.0.lock().unwrap();
        sent.iter().filter(|sent| **sent > moment).count()
    }
}

/// Waits until it is so.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// Whether the writer itself runs in the pod with this address.
fn writer_lives(address: &str) -> bool {
    let writers = leeward_local::instance::processes::Stat::read_all();
    let command = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let place = |pid: i32| std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let is_here = |pid: i32| String::from_utf8_lossy(&place(pid)).contains(&format!("POD_IP={address}"));
    writers.iter().any(|stat| {
        command(stat.pid).ends_with(b"sample\0")
            && !command(stat.pid).windows(4).any(|w| w == b"gate")
            && is_here(stat.pid)
    })
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
    let (acknowledged, over) = (Acknowledged::default(), CancellationToken::new());
    let writes = tokio::spawn(acknowledged.clone().write(address.clone(), over.clone()));
    let begun = Instant::now();
    until("it answers", async || acknowledged.after(begun) > 5).await;
    assert!(writer_lives(&address));
    let killing = Instant::now();
    instance.kill_process("west-serve").unwrap();
    // Its last renewal was sent before.
    let killed = Instant::now();
    until("another region may write", async || {
        let status = app(&east).await.and_then(|app| app.status);
        status.is_some_and(|status| status.active.as_deref() == Some("east"))
    })
    .await;
    let taken = Instant::now();
    until("the writer has ended", async || !writer_lives(&address)).await;
    tokio::time::sleep((killed + TTL).saturating_duration_since(Instant::now())).await;
    over.cancel();
    writes.await.unwrap();
    // What was sent at a moment was acknowledged later still.
    assert_eq!(
        acknowledged.after(killed + TTL),
        0,
        "acknowledged when the lease was over"
    );
    assert_eq!(
        acknowledged.after(taken),
        0,
        "acknowledged when another region might write"
    );
    assert!(
        acknowledged.after(killing) > 0,
        "nothing was written at the pod itself: the test shows nothing"
    );
    assert!(leeward(&["down"]).status.success());
}
