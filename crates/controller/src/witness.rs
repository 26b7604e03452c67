//! The witness: a third failure domain. It observes which clusters are heard of, and keeps the embedded quorum where there is no
//! other; it has no access to any cluster and holds no application data.
//!
//! Flow: each agent posts its heartbeat to [`HEARTBEAT`] several times within a lease; the answer says how long ago each
//! cluster was heard of last. That is the witness's vote.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Extension, Json, Router, extract::State, routing::post};
use leeward_core::{lease::Moment, name::ClusterName};
use leeward_quorum::embedded::{self, Embedded};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    config::Witness as Config,
    metrics::{listen as metrics, of_witness},
    peer::{self, Credentials, PeerError, PeerName},
};

/// The path of heartbeats.
pub const HEARTBEAT: &str = "/v1/heartbeat";

/// How long ago each cluster was heard of, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sights {
    /// By cluster.
    pub heard_ms_ago: BTreeMap<ClusterName, u64>,
}

/// A witness that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The peer link cannot be served.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The quorum's file cannot be used.
    #[error(transparent)]
    Quorum(#[from] leeward_quorum::Error),
    /// The data directory cannot be made.
    #[error("cannot make {path}: {source}")]
    Directory {
        /// The directory.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// When each cluster was heard of last.
pub(crate) type Heard = Arc<Mutex<BTreeMap<ClusterName, Moment>>>;

/// Runs the witness until `stop`.
///
/// # Errors
/// When its address, its certificates or its store cannot be used.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), WitnessError> {
    std::fs::create_dir_all(&config.data_dir).map_err(|source| WitnessError::Directory {
        path: config.data_dir.display().to_string(),
        source,
    })?;
    let credentials = Credentials::read(&config.ca, &config.cert, &config.key)?;
    let store = config
        .quorum
        .then(|| Embedded::open(&config.data_dir.join("quorum.redb")))
        .transpose()?;
    tokio::spawn(credentials.clone().follow(stop.clone()));
    let link = listen(config.address).await?;
    let heard = Heard::default();
    if let Some(address) = config.metrics_address {
        let observed = Arc::new(of_witness::Observer(Arc::clone(&heard)));
        tokio::spawn(metrics::run(listen(address).await?, observed, stop.clone()));
    }
    peer::serve_on(link, &credentials, router_with(store, heard), stop).await;
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, PeerError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| PeerError::Listen { address, source })
}

/// What the witness serves; without a store where the quorum is on etcd.
pub fn router(store: Option<Arc<Embedded>>) -> Router {
    router_with(store, Heard::default())
}

fn router_with(store: Option<Arc<Embedded>>, heard: Heard) -> Router {
    Router::new()
        .route(HEARTBEAT, post(heartbeat))
        .with_state(heard)
        .merge(store.map(embedded::router).unwrap_or_default())
}

async fn heartbeat(State(heard): State<Heard>, Extension(PeerName(name)): Extension<PeerName>) -> Json<Sights> {
    let now = clock::now();
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    heard.insert(ClusterName::new(name), now);
    let ago = |moment: &Moment| now.since(*moment).as_millis() as u64;
    Json(Sights {
        heard_ms_ago: heard
            .iter()
            .map(|(cluster, moment)| (cluster.clone(), ago(moment)))
            .collect(),
    })
}
