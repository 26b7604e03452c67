//! The Kubernetes API server of a local region.
//!
//! Invariants: nothing is acknowledged that is not durable; revisions only grow, across restarts too; a watch misses
//! nothing, or says 410. Objects are `serde_json::Value`s in memory; what is decided about them is in
//! [`crate::machinery`]. A request goes `route` -> `call` -> `read`, `watch`, `write` or `delete` -> `store`; `collect`
//! follows the store's changes and deletes what lost its owner, its namespace or its definition.

mod admit;
mod apply;
mod auth;
mod autoscaling;
mod body;
mod call;
mod collect;
mod decode;
mod definition;
mod delete;
mod discovery;
mod ending;
mod events;
mod eviction;
mod given;
mod idle;
mod log;
mod object;
mod options;
mod patch;
mod protobuf;
mod read;
mod registry;
mod request;
mod review;
mod route;
mod selector;
mod serve;
mod service_ip;
mod status;
mod store;
mod stream;
mod subresource;
mod time;
mod view;
mod watch;
mod write;
mod write_options;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub use store::OpenError;

/// What the server needs to know: the content of the file that `leeward local api --config` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The region's name.
    pub region: String,
    /// Where to serve, such as `127.7.16.1:6443`.
    pub address: SocketAddr,
    /// The directory of the store; made when missing.
    pub data_dir: PathBuf,
    /// The server's certificate chain, PEM.
    pub tls_cert: PathBuf,
    /// The key of the first certificate, PEM.
    pub tls_key: PathBuf,
    /// The certificate of the authority that signed it, PEM: every namespace gets a copy. None: they get none.
    #[serde(default)]
    pub ca_cert: Option<PathBuf>,
    /// The file of bearer tokens: `[{"token", "user", "groups"}]`.
    pub tokens: PathBuf,
    /// The file with the token for the nodes' kubelet endpoints.
    pub kubelet_token: PathBuf,
    /// The range of Services' addresses, such as `127.7.24.0/22`.
    pub service_cidr: String,
}

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be opened.
    #[error("the store of the Kubernetes API cannot be used: {0}")]
    Store(#[from] OpenError),
    /// A directory or file could not be made or read.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        error: String,
    },
    /// The range of Services' addresses is none.
    #[error("\"{0}\" is no range of IPv4 addresses for Services; write it as 127.7.24.0/22")]
    Services(String),
    /// The address is taken, as a rule by another instance.
    #[error(
        "the Kubernetes API cannot listen on {address}: {error}; stop what listens there, or start the regions elsewhere"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("{path}: {error}; start the region anew to have its certificates made again")]
    Pki {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: String,
    },
    /// A namespace of the system could not be made.
    #[error("the region's first objects could not be written: {0}")]
    Bootstrap(String),
}

/// What all requests share.
pub(crate) struct App {
    config: Config,
    /// The address as discovery shows it.
    address: String,
    store: store::Store,
    table: RwLock<Arc<registry::Table>>,
    tokens: auth::Tokens,
    kubelet_token: String,
    root_ca: Option<String>,
    services: service_ip::Range,
    service_turn: service_ip::Turn,
    nodes: log::NodeClient,
    stop: CancellationToken,
}

impl App {
    /// What is served now: what the definitions in the store say.
    fn table(&self) -> Arc<registry::Table> {
        let now = self.store.read().changed_at(definition::TABLE);
        {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            if table.revision == Some(now) {
                return table.clone();
            }
        }
        // The lock is held while the definitions are read, so that an older table never replaces a newer one.
        let mut slot = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let (revision, definitions) = {
            let state = self.store.read();
            (state.changed_at(definition::TABLE), state.list(definition::TABLE, None))
        };
        if slot.revision != Some(revision) {
            *slot = Arc::new(registry::Table::build(revision, &definitions, &slot));
        }
        slot.clone()
    }

    fn namespace(&self, name: &str) -> Option<store::Object> {
        self.store.get(&store::Id {
            resource: "namespaces".into(),
            namespace: String::new(),
            name: name.to_owned(),
        })
    }
}

/// The API server of one region.
pub struct Server {
    app: Arc<App>,
}

impl Server {
    /// To be called every few seconds: what nobody has read meanwhile is then kept smaller.
    pub fn settle(&self) -> impl Fn() + Send + 'static {
        let app = Arc::downgrade(&self.app);
        move || {
            if let Some(app) = app.upgrade() {
                app.store.settle();
            }
        }
    }

    /// Opens the store, makes the first namespaces, and starts the tasks that follow the store. Call it on a tokio runtime.
    ///
    /// # Errors
    /// The store is in use or damaged, or a file of the configuration cannot be read.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let file_error = |path: &std::path::Path, error: String| Error::File {
            path: path.display().to_string(),
            error,
        };
        std::fs::create_dir_all(&config.data_dir).map_err(|e| file_error(&config.data_dir, e.to_string()))?;
        let tokens = auth::Tokens::read(&config.tokens).map_err(|e| file_error(&config.tokens, e))?;
        let kubelet_token = std::fs::read_to_string(&config.kubelet_token)
            .map_err(|e| file_error(&config.kubelet_token, e.to_string()))?;
        let root_ca = config.ca_cert.as_ref().map(std::fs::read_to_string).transpose();
        let root_ca =
            root_ca.map_err(|e| file_error(config.ca_cert.as_deref().unwrap_or(&config.data_dir), e.to_string()))?;
        let services = service_ip::Range::parse(&config.service_cidr)
            .ok_or_else(|| Error::Services(config.service_cidr.clone()))?;
        let (notices, noticed) = tokio::sync::mpsc::unbounded_channel();
        let file = config.data_dir.join("objects.redb");
        let store = store::Store::open(&file, notices)?;
        let app = Arc::new(App {
            address: config.address.to_string(),
            config,
            store,
            table: RwLock::default(),
            tokens,
            kubelet_token: kubelet_token.trim().to_owned(),
            root_ca,
            services,
            service_turn: service_ip::Turn::default(),
            nodes: log::node_client(),
            stop: CancellationToken::new(),
        });
        let server = Self { app };
        server.bootstrap().await?;
        tokio::spawn(collect::run(
            Arc::downgrade(&server.app),
            noticed,
            server.app.stop.clone(),
        ));
        Ok(server)
    }

    async fn bootstrap(&self) -> Result<(), Error> {
        for name in ["default", "kube-system", "kube-public"] {
            let call =
                collect::call(&self.app, "namespaces", "", "").ok_or_else(|| Error::Bootstrap("no kind".into()))?;
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            match call.create(namespace).await {
                Err(failure) if failure.reason != "AlreadyExists" => return Err(Error::Bootstrap(failure.message)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The API as a service, for requests that carry a token.
    pub fn router(&self) -> Router {
        Router::new().fallback(route::handle).with_state(self.app.clone())
    }

    /// A client in this process, without a socket, as `system:leeward-local`.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        let service = self.router().map_request(|request: http::Request<kube::client::Body>| {
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(auth::User::local());
            request
        });
        kube::Client::new(service, "default")
    }

    /// Ends watches and background tasks, writes what was accepted and lets go of the store; what comes later is refused.
    /// Blocks for the last fsync.
    pub fn close(&self) {
        self.app.stop.cancel();
        self.app.store.close();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.close();
    }
}
