//! A local region without nodes, in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use leeward_local::apiserver::{self, Server};
use leeward_local::controllers;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::access;

/// The range of Services' addresses where none is asked for.
pub(crate) const SERVICES: &str = "127.7.24.0/22";

/// A local region's API, with its controllers or without.
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
    /// Starts API and controllers on a free port of loopback.
    ///
    /// # Errors
    /// Files cannot be written, or no port is free.
    pub async fn start() -> Result<Self> {
        Self::serve(SERVICES, true).await
    }

    /// Starts the API alone.
    pub(crate) async fn api(services: &str) -> Result<Self> {
        Self::serve(services, false).await
    }

    async fn serve(services: &str, controlled: bool) -> Result<Self> {
        // More than one provider may be linked in; this is the one that the project uses.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir()?;
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let config = config(directory.path(), listener.local_addr()?, services)?;
        let server = Server::open(config).await?;
        let client = server.client();
        let mut tasks = vec![tokio::spawn(async move {
            if let Err(error) = server.serve_on(listener, std::future::pending()).await {
                eprintln!("the local API ended: {error}");
            }
        })];
        if controlled {
            let settings = controllers::Config {
                volumes_dir: directory.path().join("volumes"),
            };
            tasks.push(tokio::spawn(async move {
                if let Err(error) = controllers::run(client, settings, std::future::pending()).await {
                    eprintln!("the local controllers ended: {error}");
                }
            }));
        }
        Ok(Self { directory, tasks })
    }

    /// Where the kubeconfig of the administrator is.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        access::kubeconfig(self.directory(), access::ADMIN)
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

fn config(directory: &Path, address: SocketAddr, services: &str) -> Result<apiserver::Config> {
    let files = access::write(directory, address)?;
    let path = |name: &str| directory.join(name);
    let tokens: Vec<Value> = files
        .tokens
        .iter()
        .map(|(user, group, token)| json!({"token": token, "user": user, "groups": [group]}))
        .collect();
    std::fs::write(path("tokens.json"), Value::from(tokens).to_string())?;
    std::fs::write(path("kubelet.token"), format!("{:032x}\n", rand::random::<u128>()))?;
    Ok(apiserver::Config {
        region: "local".into(),
        address,
        data_dir: path("data"),
        ca_cert: Some(path("ca.crt")),
        tls_cert: path("api.crt"),
        tls_key: path("api.key"),
        tokens: path("tokens.json"),
        kubelet_token: path("kubelet.token"),
        service_cidr: services.into(),
    })
}
