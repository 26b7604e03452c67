//! The two sides: an API server behind a kubeconfig, and a local region's API in this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use leeward_local::apiserver::{self, Server};
use leeward_local::controllers;
use leeward_local::instance::pki::Authority;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A client of the cluster that a kubeconfig names.
///
/// # Errors
/// The file cannot be read, or says nothing that can be used.
pub async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = Kubeconfig::read_from(kubeconfig).with_context(|| kubeconfig.display().to_string())?;
    let mut config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    // A watch that says nothing for long is what some cases show.
    config.read_timeout = None;
    Ok(kube::Client::try_from(config)?)
}

/// A local region without nodes: its API and its controllers.
pub struct Local {
    directory: TempDir,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Local {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Local {
    /// Starts it on a free port of loopback.
    ///
    /// # Errors
    /// Files cannot be written, or no port is free.
    pub async fn start() -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir()?;
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let config = write_files(directory.path(), address)?;
        let server = Server::open(config).await?;
        let client = server.client();
        let settings = controllers::Config {
            volumes_dir: directory.path().join("volumes"),
        };
        let serving = tokio::spawn(async move {
            if let Err(error) = server.serve_on(listener, std::future::pending()).await {
                eprintln!("the local API ended: {error}");
            }
        });
        let controlling = tokio::spawn(async move {
            if let Err(error) = controllers::run(client, settings, std::future::pending()).await {
                eprintln!("the local controllers ended: {error}");
            }
        });
        Ok(Self {
            directory,
            tasks: vec![serving, controlling],
        })
    }

    /// Where its kubeconfig is.
    #[must_use]
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.directory.path().join("kubeconfig")
    }
}

fn write_files(directory: &Path, address: SocketAddr) -> Result<apiserver::Config> {
    let path = |name: &str| directory.join(name);
    let authority = Authority::new("api-diff")?;
    let api = authority.issue("kube-apiserver", &["localhost"], &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
    let token = format!("{:032x}", rand::random::<u128>());
    let tokens = json!([{"token": token, "user": "admin", "groups": ["system:masters"]}]);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "local",
        "clusters": [{"name": "local", "cluster": {"server": format!("https://{address}"),
            "certificate-authority": path("ca.crt")}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "admin"}}],
    });
    for (name, content) in [
        ("ca.crt", authority.certificate().to_owned()),
        ("api.crt", api.certificate),
        ("api.key", api.key),
        ("tokens.json", tokens.to_string()),
        ("kubelet.token", format!("{:032x}\n", rand::random::<u128>())),
        ("kubeconfig", kubeconfig.to_string()),
    ] {
        std::fs::write(path(name), content)?;
    }
    Ok(apiserver::Config {
        region: "local".into(),
        address,
        data_dir: path("data"),
        tls_cert: path("api.crt"),
        tls_key: path("api.key"),
        ca_cert: Some(path("ca.crt")),
        tokens: path("tokens.json"),
        kubelet_token: path("kubelet.token"),
        service_cidr: "127.7.24.0/22".into(),
    })
}
