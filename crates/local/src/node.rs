//! A node of a local region: what the kubelet is for a real one.
//!
//! One process a node. It registers, renews its lease, watches the pods that are bound to it and runs them (see
//! [`crate::container`]); everything that it started dies with it. The API decides, this acts.
//!
//! ```text
//! watch (spec.nodeName) ── pod ── container ── keeper process ── application
//!                           ├── report: status          ├── probes
//!                           └── volumes, images         └── logs ── endpoint
//! ```

mod address;
mod backoff;
mod endpoint;
mod event;
mod freeze;
mod image;
mod log;
mod plan;
mod pod;
mod probe;
mod registration;
mod service;
mod spawn;
mod state;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::container::Isolation;
use pod::{Shared, Update};

/// How long pods may take to end when the node itself is to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a node is told, from its JSON file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Config {
    /// The region.
    pub region: String,
    /// The node's name, unique in its region.
    pub name: String,
    /// Where images, volumes of pods and logs are kept.
    pub dir: PathBuf,
    /// How to reach the region's API.
    pub kubeconfig: PathBuf,
    /// Where the node's endpoint listens.
    pub kubelet_address: SocketAddrV4,
    /// The file with the token that callers of the endpoint must show.
    pub kubelet_token: PathBuf,
    /// The addresses of its pods, `127.a.b.0/24`.
    pub pod_cidr: String,
    /// The region's registry, `http://ADDRESS:PORT`.
    pub registry: String,
}

/// Why a node cannot run. None of these passes by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// The cause.
        reason: String,
    },
    /// A file or directory of the node.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The endpoint's address is taken.
    #[error("cannot listen on {address}: {source}; is another node with this configuration running?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// A value of the configuration.
    #[error("the configuration of node {node}: {reason}")]
    Config {
        /// The node.
        node: String,
        /// What is wrong.
        reason: String,
    },
}

/// The parts that everything on a node uses.
struct Node {
    config: Config,
    client: kube::Client,
    spawner: spawn::Spawner,
    images: image::Images,
    events: event::Recorder,
    freezer: freeze::Freezer,
    token: String,
    namespaces: Result<(), String>,
    addresses: Mutex<address::Addresses>,
    pods: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    shared: Arc<Shared>,
    updates: watch::Sender<Update>,
}

impl Node {
    fn pod(&self, uid: &str) -> Option<Arc<Shared>> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(uid).map(|entry| Arc::clone(&entry.shared))
    }

    /// The newest pod of a name; one that is going may still be there with it.
    fn pod_named(&self, namespace: &str, name: &str) -> Option<Arc<Shared>> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let named = pods
            .values()
            .filter(|entry| entry.shared.namespace == namespace && entry.shared.name == name);
        named
            .min_by_key(|entry| entry.updates.borrow().pod.metadata.deletion_timestamp.is_some())
            .map(|entry| Arc::clone(&entry.shared))
    }

    fn forget(&self, shared: &Shared) {
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&shared.uid);
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .release(shared.ip);
    }

    fn isolation(&self, image: &image::Image) -> Result<Isolation, String> {
        match &self.namespaces {
            Ok(()) => Ok(Isolation::Namespaces),
            Err(_) if image.config.plain_process => Ok(Isolation::Plain),
            Err(reason) => Err(format!(
                "this machine refuses the namespaces that a container needs ({reason}), and the image has no label \
                 dev.leeward.plain-process=true, which would let it run as a plain process"
            )),
        }
    }

    /// Takes in what the API says about a pod.
    fn apply(self: &Arc<Self>, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let update = Update {
            pod: Arc::new(pod),
            gone: false,
        };
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = pods.get(&uid) {
            entry.updates.send_replace(update);
            return;
        }
        let wanted = update
            .pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.as_deref()?.parse().ok());
        let ip = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(wanted);
        let Some(ip) = ip else {
            self.events.warning(
                &update.pod,
                None,
                "NoAddress",
                "the node has no free pod address".to_owned(),
            );
            return;
        };
        let dir = self.config.dir.join("pods").join(&uid);
        let shared = Arc::new(Shared::new(&update.pod, ip, dir, Timestamp::now()));
        let (updates, receiver) = watch::channel(update);
        pods.insert(
            uid,
            Entry {
                shared: Arc::clone(&shared),
                updates,
            },
        );
        tokio::spawn(pod::run(Arc::clone(self), shared, receiver));
    }

    /// The API has no such pod any more.
    fn vanish(&self, uid: &str) {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = pods.get(uid) {
            entry.updates.send_modify(|update| update.gone = true);
        }
    }

    fn uids(&self) -> BTreeSet<String> {
        self.pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .cloned()
            .collect()
    }
}

/// Runs a node until `shutdown`; its containers have ended when this returns.
///
/// # Errors
/// When it cannot start. What fails later is tried again.
pub async fn run(config: Config, shutdown: impl Future) -> Result<(), Error> {
    let node = Arc::new(start(config).await?);
    let address = SocketAddr::V4(node.config.kubelet_address);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    let router = endpoint::router(Arc::clone(&node));
    let tasks = [
        tokio::spawn(registration::keep(Arc::clone(&node))),
        tokio::spawn(watch_pods(Arc::clone(&node))),
        tokio::spawn(service::forward(Arc::clone(&node))),
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the node's endpoint ended");
            }
        }),
    ];
    shutdown.await;
    for task in &tasks {
        task.abort();
    }
    farewell(&node).await;
    Ok(())
}

async fn start(config: Config) -> Result<Node, Error> {
    // Whoever installed one first is right; all parts use ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |source| Error::File { path, source }
    };
    let bad = |reason: String| Error::Config {
        node: config.name.clone(),
        reason,
    };
    let token = std::fs::read_to_string(&config.kubelet_token).map_err(file(&config.kubelet_token))?;
    let token = token.trim().to_owned();
    if token.is_empty() {
        return Err(bad("the kubelet token file is empty".to_owned()));
    }
    let addresses = address::Addresses::new(&config.pod_cidr).map_err(|error| bad(error.to_string()))?;
    std::fs::create_dir_all(config.dir.join("pods")).map_err(file(&config.dir))?;
    let images =
        image::Images::new(config.dir.join("images"), &config.registry).map_err(|error| bad(error.to_string()))?;
    let client = client(&config).await?;
    let spawner = spawn::Spawner::start().map_err(file(&config.dir))?;
    let namespaces = tokio::task::spawn_blocking(crate::container::namespaces_available)
        .await
        .unwrap_or_else(|error| Err(error.to_string()));
    if let Err(reason) = &namespaces {
        tracing::warn!(
            "containers run as plain processes, and only those whose image has the label \
             dev.leeward.plain-process=true: {reason}"
        );
    }
    Ok(Node {
        events: event::Recorder::start(client.clone(), config.name.clone()),
        client,
        spawner,
        images,
        freezer: freeze::Freezer::default(),
        token,
        namespaces,
        addresses: Mutex::new(addresses),
        pods: Mutex::default(),
        config,
    })
}

async fn client(config: &Config) -> Result<kube::Client, Error> {
    let fail = |reason: String| Error::Kubeconfig {
        path: config.kubeconfig.display().to_string(),
        reason,
    };
    let kubeconfig =
        kube::config::Kubeconfig::read_from(&config.kubeconfig).map_err(|error| fail(error.to_string()))?;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| fail(error.to_string()))?;
    kube::Client::try_from(config).map_err(|error| fail(error.to_string()))
}

/// Follows the pods that are bound to this node.
async fn watch_pods(node: Arc<Node>) {
    let api: Api<Pod> = Api::all(node.client.clone());
    let selection = watcher::Config::default().fields(&format!("spec.nodeName={}", node.config.name));
    let mut stream = watcher(api, selection)
        .backoff(Patience::default())
        // Nothing here reads who set what, which is more than half of a pod.
        .modify(|pod| pod.metadata.managed_fields = None)
        .boxed();
    let mut listed = BTreeSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Apply(pod)) => node.apply(pod),
            Ok(watcher::Event::Delete(pod)) => node.vanish(&pod.metadata.uid.unwrap_or_default()),
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(pod)) => {
                listed.extend(pod.metadata.uid.clone());
                node.apply(pod);
            }
            Ok(watcher::Event::InitDone) => {
                for uid in node.uids().difference(&listed) {
                    node.vanish(uid);
                }
                sweep(&node, &listed).await;
            }
            Err(error) => tracing::debug!(%error, "the watch of pods broke; it is started again"),
        }
    }
}

/// Removes what pods left that are not bound to this node any more.
async fn sweep(node: &Node, listed: &BTreeSet<String>) {
    let known = node.uids();
    let dir = node.config.dir.join("pods");
    let left: Vec<PathBuf> = std::fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            !listed.contains(&name) && !known.contains(&name)
        })
        .map(|entry| entry.path())
        .collect();
    for path in left {
        let _ = tokio::task::spawn_blocking(move || crate::container::path::remove_tree(&path)).await;
    }
}

/// Ends every container: the API keeps what it knows, and the next process of this node starts them again.
async fn farewell(node: &Node) {
    node.spawner.close();
    let pods: Vec<Arc<Shared>> = {
        let pods = node.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.values().map(|entry| Arc::clone(&entry.shared)).collect()
    };
    let running: Vec<_> = pods.iter().flat_map(|pod| pod.running()).collect();
    for container in &running {
        container.signal(libc::SIGTERM).await;
    }
    let ended = async {
        for container in &running {
            container.ended().await;
        }
    };
    if tokio::time::timeout(FAREWELL, ended).await.is_err() {
        for container in &running {
            container.signal(libc::SIGKILL).await;
            container.ended().await;
        }
    }
}

/// How a watch comes back: at once, then slower, since the API of a region may be away for long.
#[derive(Clone, Debug, Default)]
struct Patience {
    failures: u32,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        Some(
            Duration::from_millis(50)
                .saturating_mul(1 << self.failures.min(5))
                .min(Duration::from_secs(1)),
        )
    }
}

impl kube::runtime::utils::Backoff for Patience {
    fn reset(&mut self) {
        self.failures = 0;
    }
}
