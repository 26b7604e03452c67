//! `leeward serve`: the agent of one region, put together.
//!
//! Flow: every listener is bound first, so that a used port ends the start; then the tasks run until `stop`, and end in the
//! order: edge drained, mirrors finished, watches dropped. Nothing waits for another region.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use leeward_core::lease::{Timing, TooShort};
use leeward_core::name::ClusterName;
use leeward_images::{
    inventory::Inventory,
    peers::{Peer as ImagePeer, Peers},
    registry::{self, Mode},
    replicate::Replicator,
    store::Store as ImageStore,
};
use leeward_state::{
    config::{Kept, KeptError},
    volumes::target::Target,
};
use leeward_traffic::{Edge, Limits, Shared};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Start, exchange, follow, lead, renew},
    cache::Cache,
    clock, cluster,
    config::{self, NotAnAddress, Serve as Config},
    edges::Edges,
    gates::{self, Gates},
    holder::{Holder, Reached},
    metrics::{listen as metrics, measured::Measured, of_agent, tasks::Tasks},
    operation,
    pass_on::Way,
    peer::{self, Credentials, PeerError},
    points,
    protected_app::{self, Context, admission, carry, data::Data, show, turn::Turns},
    quorum::{self, QuorumError},
    reach::{self, Reach, ReachError},
    route,
    traces::{self, NotACollector, Traces},
    webhook,
};

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The peer link cannot be set up.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The quorum cannot be used as it is configured.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// The lease is too short.
    #[error(transparent)]
    Timing(#[from] TooShort),
    /// The cluster's API cannot be reached in the way that the configuration says.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// Others would be told an address that leads nowhere.
    #[error(transparent)]
    Address(#[from] NotAnAddress),
    /// Traces cannot be sent where they are to be.
    #[error(transparent)]
    Collector(#[from] NotACollector),
    /// An address cannot be listened on.
    #[error("the {what} cannot listen on {address}: {source}; stop what uses it (see `ss -ltnp`), or give another one")]
    Listen {
        /// Which part.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The edge cannot be set up.
    #[error(transparent)]
    Edge(#[from] leeward_traffic::EdgeError),
    /// The images' store cannot be used.
    #[error(transparent)]
    Images(#[from] leeward_images::store::StoreError),
    /// The points' store cannot be used.
    #[error(transparent)]
    Points(#[from] leeward_state::volumes::target::TargetError),
    /// What was carried here cannot be kept.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The webhook does not know which image to bring gates from.
    #[error(
        "webhook_address is set, and there is no image to bring gates from: set gate_image, or {} in the environment, to Leeward's image",
        leeward_api::install::IMAGE_ENV
    )]
    NoGateImage,
    /// A file or directory cannot be used.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Runs an agent until `stop`.
///
/// # Errors
/// When something that it needs at the start cannot be had.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), ServeError> {
    let timing = Timing::new(Duration::from_millis(config.lease_ttl_ms), config.quorum.delays())?;
    let points = config.data_dir.join("points");
    let staging = config.data_dir.join("staging");
    for directory in [&config.data_dir, &points, &staging, &config.registry_dir] {
        std::fs::create_dir_all(directory).map_err(|source| ServeError::File {
            path: directory.display().to_string(),
            source,
        })?;
    }
    let credentials = Credentials::read(&config.peer_ca, &config.peer_cert, &config.peer_key)?;
    let http = credentials.client()?;
    let asked_by_gates = config.asked_by_gates()?;
    let collector = traces::endpoint(config.traces_url.as_deref(), |name| std::env::var(name).ok())?;
    let reach = Arc::new(Reach::default());
    let kube = reach::config(config.kubeconfig.as_deref()).await?;
    let client = reach::client(kube, &reach).map_err(ReachError::unusable)?;
    let registry = listen("registry", config.registry_address).await?;
    let peer_link = listen("peer link", config.peer_address).await?;
    let for_gates = match config.gate_address {
        Some(address) => Some(listen("service for gates", address).await?),
        None => None,
    };
    let for_metrics = match config.metrics_address {
        Some(address) => Some(listen("page of metrics", address).await?),
        None => None,
    };
    let for_webhook = match config.webhook_address {
        Some(address) => Some((listen("webhook", address).await?, gate_image(&config)?)),
        None => None,
    };
    let holder = holder(&config);
    let opened = quorum::open(&config, &http, timing.ttl / 3)?;
    let (quorum, trips) = Measured::around(Arc::clone(&opened.store));
    let agent = Agent::new(Start {
        me: ClusterName::new(&config.cluster),
        holder: holder.to_string(),
        reached: holder.reached,
        timing,
        moves_together: config.moves_together.get(),
        quorum,
        http: http.clone(),
        witness_url: config.witness_url.clone(),
        #[cfg(feature = "unfenced")]
        unfenced: config.unfenced,
    });
    let grants = admission::Grants::new(Arc::clone(&agent));
    let shared = Arc::new(Shared::open(
        agent.me.clone(),
        Some(config.data_dir.join("table.json")),
        grants.clone(),
    ));
    let edge = Edge::bind(config.ingress_address, Limits::default(), Arc::clone(&shared)).await?;
    let store = ImageStore::open(&config.registry_dir)?;
    let target = Arc::new(Target::open(&points)?);
    let inventory = Inventory::new(store.clone());
    let token = config.kubelet_token.as_ref().map(|path| {
        std::fs::read_to_string(path)
            .map(|token| Arc::from(token.trim()))
            .map_err(|source| ServeError::File {
                path: path.display().to_string(),
                source,
            })
    });
    let tasks = Tasks::until(&stop);
    let cache = Cache::start(&client, &agent, &tasks, &stop);
    let gates = gates_of(asked_by_gates, &config, &credentials, &agent, &cache)?;
    let image_peers = Peers::default();
    let bundles = carry::Bundles::default();
    let context = Arc::new(Context {
        agent: Arc::clone(&agent),
        client: client.clone(),
        cache: cache.clone(),
        inventory: inventory.clone(),
        data: Data::new(
            Arc::clone(&agent),
            client.clone(),
            cache.clone(),
            Arc::clone(&target),
            staging,
            token.transpose()?,
            config.volumes_are_here(),
        ),
        images_from_registry: config.images_from_registry(),
        gates: gates.clone(),
        bundles: bundles.clone(),
        kept: Kept::open(&config.data_dir)?,
        turns: Turns::new(agent.me.clone(), agent.moves_together),
        backends: watch::Sender::default(),
    });
    let from_peers = Router::new()
        .merge(exchange::router(Arc::clone(&agent)))
        .merge(carry::router(Arc::clone(&agent), bundles))
        .merge(points::router(Arc::clone(&agent), target))
        .merge(registry::router(store.clone(), Mode::ReadOnly, image_peers.clone()));
    let to_nodes = registry::router(store.clone(), face_to_nodes(&config), image_peers.clone());

    if let config::Quorum::Etcd(etcd) = &config.quorum {
        tasks.spawn(quorum::watch(
            etcd.clone(),
            config.clone(),
            Arc::clone(&agent),
            stop.clone(),
        ));
    }
    tasks.spawn(quorum::follow(opened, config.clone(), stop.clone()));
    tasks.spawn(credentials.clone().follow(stop.clone()));
    tasks.spawn(follow::run(Arc::clone(&agent), stop.clone()));
    tasks.spawn(renew::run(Arc::clone(&agent), stop.clone()));
    tasks.spawn(exchange::run(Arc::clone(&agent), stop.clone()));
    tasks.spawn(lead::run(Arc::clone(&agent), stop.clone()));
    tasks.spawn(cluster::run(
        Arc::clone(&agent),
        client.clone(),
        cache.clone(),
        stop.clone(),
    ));
    let traces = collector.map(|endpoint| {
        let (traces, sending) = Traces::to(endpoint, traces::PAUSE, stop.clone());
        tasks.spawn(sending);
        traces
    });
    tasks.spawn(operation::run(
        Arc::clone(&agent),
        client.clone(),
        cache.clone(),
        traces,
        stop.clone(),
    ));
    tasks.spawn(show::run(Arc::clone(&context), stop.clone()));
    tasks.spawn(protected_app::run(Arc::clone(&context), stop.clone()));
    let edges = Arc::new(Edges::default());
    tasks.spawn(Arc::clone(&edges).follow(cache.clone(), stop.clone()));
    tasks.spawn(route::run(
        Arc::clone(&context),
        Arc::clone(&shared),
        grants,
        edges,
        stop.clone(),
    ));
    tasks.spawn(edge.serve(stop.clone()));
    if let Some(listener) = for_metrics {
        let sources = of_agent::Sources {
            agent: Arc::clone(&agent),
            cache,
            shared: Arc::clone(&shared),
            store: store.clone(),
            images: image_peers.clone(),
            trips,
            reach,
            tasks: tasks.clone(),
        };
        tasks.spawn(metrics::run(
            listener,
            Arc::new(of_agent::Observer(sources)),
            stop.clone(),
        ));
    }
    tasks.spawn(leeward_traffic::probe::run(shared, stop.clone()));
    tasks.spawn(copy_images(Arc::clone(&agent), store, image_peers, stop.clone()));
    tasks.spawn({
        let stop = stop.clone();
        async move {
            let stopped = axum::serve(registry, to_nodes).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = stopped.await {
                tracing::error!(%error, "the registry ended");
            }
        }
    });
    tracing::info!(cluster = %agent.me, "the agent runs");
    let to_gates = async {
        if let Some((listener, gates)) = for_gates.zip(gates) {
            let to = Way::new(&agent, Reached::gate);
            peer::serve_all(listener, &credentials, gates::router(gates), to, stop.clone()).await;
        }
    };
    let to_api_server = async {
        if let Some((listener, image)) = for_webhook {
            let router = webhook::router(image, inventory);
            peer::serve_all(listener, &credentials, router, None, stop.clone()).await;
        }
    };
    let to_peers = Way::new(&agent, |reached| Some(reached.peer()));
    tokio::join!(
        peer::serve_acting(peer_link, &credentials, from_peers, to_peers, stop.clone()),
        to_gates,
        to_api_server
    );
    tasks.close();
    // Whatever does not end in time ends with the process; everything durable is durable already.
    let _ = tokio::time::timeout(Duration::from_secs(2), tasks.wait()).await;
    Ok(())
}

/// Who this process is among all agents.
fn holder(config: &Config) -> Holder {
    let process = || std::process::id().to_string();
    let reached = config.pod_ip.map(|ip| Reached {
        ip,
        peer: config.peer_address.port(),
        gate: config.gate_address.map(|address| address.port()),
        edge: config.ingress_address.port(),
    });
    Holder {
        cluster: ClusterName::new(&config.cluster),
        process: config.pod_name.clone().unwrap_or_else(process),
        began_ms: clock::wall_ms(),
        reached,
    }
}

fn gates_of(
    asked_at: Option<String>,
    config: &Config,
    credentials: &Credentials,
    agent: &Arc<Agent>,
    cache: &Cache,
) -> Result<Option<Arc<Gates>>, ServeError> {
    let Some(asked_at) = asked_at else {
        return Ok(None);
    };
    let key = config.gate_key.as_ref().unwrap_or(&config.peer_key);
    let made = Gates::new(Arc::clone(agent), cache.clone(), asked_at, credentials.clone(), key);
    let made = made.map_err(|source| ServeError::File {
        path: key.display().to_string(),
        source,
    })?;
    Ok(Some(Arc::new(made)))
}

/// Who the registry is for that is served without asking who comes. On one machine its nodes and users push to it; in a cluster every pod reaches it,
/// and what it holds is what the other regions gave it.
fn face_to_nodes(config: &Config) -> Mode {
    match config.images_from_registry() {
        true => Mode::ReadWrite,
        false => Mode::ReadOnly,
    }
}

fn gate_image(config: &Config) -> Result<String, ServeError> {
    let said = config.gate_image.clone();
    let said = said.or_else(|| std::env::var(leeward_api::install::IMAGE_ENV).ok());
    said.filter(|image| !image.is_empty()).ok_or(ServeError::NoGateImage)
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { what, address, source })
}

/// Copies what the other regions have.
async fn copy_images(agent: Arc<Agent>, store: ImageStore, peers: Peers, stop: CancellationToken) {
    let copying = tokio::spawn(Replicator::new(store, peers.clone()).run());
    let mut changes = agent.changes();
    let mut last = Arc::new(vec![]);
    loop {
        let now = agent.peers();
        if now != last {
            let of = |peer: &crate::agent::Peer| ImagePeer {
                region: peer.cluster.to_string(),
                base_url: peer.url.clone(),
                client: agent.http.clone(),
            };
            peers.set(now.iter().map(of).collect());
            last = now;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            _ = changes.changed() => { changes.borrow_and_update(); }
        }
    }
    copying.abort();
}
