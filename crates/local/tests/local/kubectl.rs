//! kubectl against a served API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use leeward_local::apiserver::Server;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::region::Region;

/// A served region.
pub(crate) struct Served {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    pub(crate) address: SocketAddr,
}

pub(crate) async fn serve(region: &Region, address: SocketAddr) -> Served {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    region.write_kubeconfig(address);
    let server: Server = region.open().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        server
            .serve_on(listener, async { stopped.await.unwrap_or(()) })
            .await
            .unwrap();
    });
    Served { stop, task, address }
}

impl Served {
    pub(crate) async fn stop(self) -> SocketAddr {
        let _ = self.stop.send(());
        self.task.await.unwrap();
        self.address
    }
}

pub(crate) fn kubectl(region: &Region, arguments: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command
        .args(arguments)
        .env("KUBECONFIG", region.path("kubeconfig"))
        .env("HOME", region.root())
        .kill_on_drop(true);
    command
}

pub(crate) async fn run(region: &Region, arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = kubectl(region, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = [output.stdout, output.stderr]
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .concat();
    (output.status.success(), text)
}

async fn fine(region: &Region, arguments: &[&str], input: &str) -> String {
    let (success, text) = run(region, arguments, input).await;
    assert!(success, "kubectl {arguments:?}: {text}");
    text
}

/// Whether kubectl is there; says so when not.
pub(crate) fn found() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir: std::path::PathBuf| Path::new(&dir).join("kubectl").is_file());
    if !found {
        eprintln!("skipped: kubectl is not installed");
    }
    found
}

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: a, image: "a:1"}]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_does_what_it_does_elsewhere() {
    if !found() {
        return;
    }
    let region = Region::new();
    let served = serve(&region, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
    let text = fine(&region, &["apply", "-f", "-"], WEB).await;
    assert_eq!(text.trim(), "deployment.apps/web created");
    assert_eq!(
        fine(&region, &["apply", "-f", "-"], WEB).await.trim(),
        "deployment.apps/web unchanged"
    );
    let text = fine(&region, &["apply", "-f", "-"], &WEB.replace("a:1", "a:2")).await;
    assert_eq!(text.trim(), "deployment.apps/web configured");
    fine(&region, &["scale", "deployment/web", "--replicas=3"], "").await;
    let text = fine(&region, &["get", "deploy"], "").await;
    assert!(
        text.starts_with("NAME") && text.contains("READY") && text.contains("0/3"),
        "{text}"
    );
    let text = fine(&region, &["describe", "deployment", "web"], "").await;
    assert!(text.contains("3 desired") && text.contains("a:2"), "{text}");
    fine(
        &region,
        &["patch", "deploy", "web", "-p", r#"{"metadata":{"labels":{"x":"y"}}}"#],
        "",
    )
    .await;
    let text = fine(&region, &["get", "deploy", "-l", "x=y", "-o", "name"], "").await;
    assert_eq!(text.trim(), "deployment.apps/web");
    let (success, text) = run(
        &region,
        &["apply", "--server-side", "--field-manager", "other", "-f", "-"],
        &WEB.replace("replicas: 2", "replicas: 5"),
    )
    .await;
    assert!(
        !success && text.contains("Apply failed with") && text.contains(".spec.replicas"),
        "{text}"
    );
    let force = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager",
        "other",
        "-f",
        "-",
    ];
    fine(&region, &force, &WEB.replace("replicas: 2", "replicas: 5")).await;
    let text = fine(
        &region,
        &["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"],
        "",
    )
    .await;
    assert_eq!(text, "5");
    fine(&region, &["delete", "deployment", "web"], "").await;
    let (success, text) = run(&region, &["get", "deployment", "web"], "").await;
    assert!(
        !success && text.contains("Error from server (NotFound): deployments.apps \"web\" not found"),
        "{text}"
    );
    let (success, text) = run(&region, &["apply", "-f", "-"], &WEB.replace("replicas:", "replicass:")).await;
    assert!(!success && text.contains("unknown field \"spec.replicass\""), "{text}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_creates_from_its_flags() {
    if !found() {
        return;
    }
    let region = Region::new();
    let served = serve(&region, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
    fine(&region, &["create", "namespace", "shop"], "").await;
    fine(
        &region,
        &["-n", "shop", "create", "configmap", "m", "--from-literal=a=b"],
        "",
    )
    .await;
    let text = fine(
        &region,
        &["-n", "shop", "get", "cm", "m", "-o", "jsonpath={.data.a}"],
        "",
    )
    .await;
    assert_eq!(text, "b");
    fine(
        &region,
        &["-n", "shop", "create", "secret", "generic", "s", "--from-literal=a=b"],
        "",
    )
    .await;
    let text = fine(
        &region,
        &["-n", "shop", "get", "secret", "s", "-o", "jsonpath={.data.a}"],
        "",
    )
    .await;
    assert_eq!(text, "Yg==");
    fine(
        &region,
        &[
            "-n",
            "shop",
            "create",
            "deployment",
            "d",
            "--image=a:1",
            "--replicas=3",
            "--port=80",
        ],
        "",
    )
    .await;
    let text = fine(
        &region,
        &[
            "-n",
            "shop",
            "get",
            "deploy",
            "d",
            "-o",
            "jsonpath={.spec.template.spec.containers[0].image} {.spec.replicas}",
        ],
        "",
    )
    .await;
    assert_eq!(text, "a:1 3");
    fine(&region, &["-n", "shop", "expose", "deployment", "d", "--port=80"], "").await;
    fine(&region, &["delete", "namespace", "shop", "--timeout=20s"], "").await;
    assert_eq!(fine(&region, &["auth", "can-i", "get", "pods"], "").await.trim(), "yes");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_across_a_restart() {
    if !found() {
        return;
    }
    let region = Region::new();
    let served = serve(&region, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
    fine(
        &region,
        &["create", "-f", "-"],
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"v": "1"}}}"#,
    )
    .await;
    let mut watch = kubectl(&region, &["get", "cm", "-l", "v=1", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("configmap/a"));
    let address = served.stop().await;
    assert_eq!(lines.next_line().await.unwrap(), None, "the watch ends with the server");
    watch.wait().await.unwrap();

    let served = serve(&region, address).await;
    let mut watch = kubectl(&region, &["get", "cm", "-l", "v=1", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("configmap/a"));
    fine(
        &region,
        &["create", "-f", "-"],
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "labels": {"v": "1"}}}"#,
    )
    .await;
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("configmap/b"));
    watch.kill().await.unwrap();
    served.stop().await;
}
