//! Ports of pods, as kube-rs and kubectl reach them. The pod is an object whose address is one that the test listens on.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::kubectl::{found, kubectl, run, serve};
use crate::region::{Region, pod, post, put};

/// Greets, then says back what it hears.
async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            let _ = writer.write_all(b"hello ").await;
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
    }
}

/// Stores pod `web`, which has the address of the echo; says its port.
async fn store_pod(region: &Region) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(echo(listener));
    let server = region.open().await;
    let path = "/api/v1/namespaces/default/pods";
    let (status, mut stored) = post(&server, path, &pod("web", Some("node-0"))).await;
    assert_eq!(status, 201, "{stored}");
    stored["status"] = json!({"phase": "Running", "podIP": "127.0.0.1"});
    let (status, answer) = put(&server, &format!("{path}/web/status"), &stored).await;
    assert_eq!(status, 200, "{answer}");
    let (_, unbound) = post(&server, path, &pod("unbound", None)).await;
    assert_eq!(unbound["metadata"]["name"], "unbound");
    server.close();
    port
}

async fn say(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, words: &[u8]) -> Vec<u8> {
    stream.write_all(words).await.unwrap();
    let mut heard = vec![0; "hello ".len() + words.len()];
    stream.read_exact(&mut heard).await.unwrap();
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_forwards_ports_of_a_pod() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let region = Region::new();
    region.write_kubeconfig(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let port = store_pod(&region).await;
    let served = serve(&region, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
    let kubeconfig = kube::config::Kubeconfig::read_from(region.path("kubeconfig")).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .unwrap();
    let pods: Api<Pod> = Api::default_namespaced(kube::Client::try_from(config).unwrap());
    let mut forward = pods.portforward("web", &[port]).await.unwrap();
    let words = vec![b'x'; 300_000];
    let heard = say(forward.take_stream(port).unwrap(), &words).await;
    assert_eq!(&heard[..8], b"hello xx");
    assert!(heard[6..] == words);
    drop(forward);
    let mut closed = pods.portforward("web", &[1]).await.unwrap();
    let error = closed.take_error(1).unwrap().await.unwrap();
    assert!(error.contains("127.0.0.1:1") && error.contains("POD_IP"), "{error}");
    let refused = pods.portforward("unbound", &[port]).await.err().unwrap().to_string();
    assert!(refused.contains("400"), "{refused}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_forwards_ports_in_both_of_its_ways() {
    if !found() {
        return;
    }
    let region = Region::new();
    region.write_kubeconfig(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let port = store_pod(&region).await;
    let served = serve(&region, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
    for websockets in ["true", "false"] {
        let mut forward = kubectl(&region, &["port-forward", "pod/web", &format!(":{port}")])
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let local = line.split_whitespace().find_map(|word| word.parse::<SocketAddr>().ok());
        let words = vec![b'y'; 200_000];
        let mut said = Vec::new();
        for _ in 0..20 {
            let (local, words) = (local.unwrap(), words.clone());
            said.push(tokio::spawn(async move {
                let heard = say(TcpStream::connect(local).await.unwrap(), &words).await;
                assert!(heard[6..] == words);
            }));
        }
        for one in said {
            one.await.unwrap();
        }
        forward.kill().await.unwrap();
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_and_attach_are_refused_and_say_what_to_do() {
    if !found() {
        return;
    }
    let region = Region::new();
    region.write_kubeconfig(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    store_pod(&region).await;
    let served = serve(&region, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
    for arguments in [
        &["exec", "web", "--", "ls"][..],
        &["attach", "web"],
        &["cp", "web:/a", "a"],
    ] {
        let (success, text) = run(&region, arguments, "").await;
        assert!(!success && text.contains("use a real cluster"), "{arguments:?}: {text}");
    }
    let (success, text) = run(&region, &["exec", "web", "-c", "other", "--", "ls"], "").await;
    assert!(
        !success && text.contains("container other is not valid for pod web"),
        "{text}"
    );
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server_says = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let url = format!(
        "https://{}/api/v1/namespaces/default/pods/web/portforward",
        served.address
    );
    let plain = server_says.request(Method::GET, url).bearer_auth(crate::region::TOKEN);
    assert_eq!(plain.send().await.unwrap().status(), 400);
    served.stop().await;
}
