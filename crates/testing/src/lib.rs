//! Servers for tests: a local region's API in this process ([`Local`]), a real kube-apiserver with etcd ([`Real`]), or etcd alone
//! ([`Etcd`]).
//!
//! A test of what speaks to Kubernetes is a scenario: a function of a [`Cluster`]. [`scenarios!`] makes of each a test against a
//! local region, and of all together one test against a real API server, which they share; each therefore uses a namespace of
//! its own ([`Cluster::fresh`]) and leaves no object behind that another one would act on. Only the API is there, no controller
//! and no node: a scenario that needs one plays it.
//!
//! Where the programs of the real one are not found the test says so and passes; `cargo xtask test` lists that.

mod access;
mod etcd;
mod local;
mod process;
mod real;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

pub use access::{ADMIN, AGENT};
pub use etcd::Etcd;
pub use leeward_local::instance::pki::Authority;
pub use local::Local;
pub use real::{Programs, Real, free};

/// An API server, and how it is reached.
pub struct Cluster {
    server: Server,
}

enum Server {
    Local(Local),
    Real(Real),
}

impl Cluster {
    /// A local region's API, without its controllers.
    ///
    /// # Errors
    /// Files cannot be written, or no port is free.
    pub async fn local() -> Result<Arc<Self>> {
        let server = Server::Local(Local::api(local::SERVICES).await?);
        Ok(Arc::new(Self { server }))
    }

    /// The same with another range of addresses for Services.
    ///
    /// # Errors
    /// As [`Cluster::local`].
    pub async fn local_with(services: &str) -> Result<Arc<Self>> {
        let server = Server::Local(Local::api(services).await?);
        Ok(Arc::new(Self { server }))
    }

    /// A real kube-apiserver with etcd; none where the programs are missing.
    ///
    /// # Errors
    /// They are there and cannot be started.
    pub async fn real() -> Result<Option<Arc<Self>>> {
        let Some(programs) = Programs::find() else {
            eprintln!("skipped: {}", Programs::MISSING);
            return Ok(None);
        };
        let server = Server::Real(Real::start(&programs).await?);
        Ok(Some(Arc::new(Self { server })))
    }

    /// Whether it is a real one.
    #[must_use]
    pub fn is_real(&self) -> bool {
        matches!(self.server, Server::Real(_))
    }

    /// Where the kubeconfig of a user is: [`ADMIN`] or [`AGENT`].
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        let directory = match &self.server {
            Server::Local(local) => local.directory(),
            Server::Real(real) => real.directory(),
        };
        access::kubeconfig(directory, user)
    }

    /// A client that may do everything.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub async fn client(&self) -> Result<Client> {
        self.client_as(ADMIN).await
    }

    /// A client of a user: [`ADMIN`] or [`AGENT`].
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub async fn client_as(&self, user: &str) -> Result<Client> {
        client(&self.kubeconfig(user)).await
    }

    /// A name that nobody else uses, for a namespace.
    #[must_use]
    pub fn fresh(&self, prefix: &str) -> String {
        format!("{prefix}-{:06x}", rand::random::<u32>() & 0xff_ffff)
    }
}

/// A client of the cluster that a kubeconfig names.
///
/// # Errors
/// The file cannot be read, or says nothing that can be used.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = Kubeconfig::read_from(kubeconfig).with_context(|| kubeconfig.display().to_string())?;
    let mut config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    // A watch that says nothing for long is what some tests show.
    config.read_timeout = None;
    // An answer is shown as it came, also one that asks to try again.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Runs scenarios one after the other and names those that failed, after all of them ran.
///
/// # Panics
/// When one failed.
pub async fn play(cluster: &Arc<Cluster>, scenarios: Vec<(&str, Scenario)>) {
    let mut failed = Vec::new();
    for (name, scenario) in scenarios {
        let began = std::time::Instant::now();
        // In a task of its own, so that the others still run after a panic; its message was printed already.
        let ended = tokio::spawn(scenario(Arc::clone(cluster))).await;
        eprintln!(
            "{name}: {} ({:.1?})",
            if ended.is_ok() { "passed" } else { "FAILED" },
            began.elapsed()
        );
        if ended.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "on a real API server failed: {}", failed.join(", "));
}

/// A test that needs an API server.
pub type Scenario = Box<dyn FnOnce(Arc<Cluster>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Makes tests of scenarios, `async fn(Arc<Cluster>)`: `local::NAME` for each, and `on_a_real_api_server` for all of them.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        mod local {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::Cluster::local().await.unwrap()).await;
                }
            )*
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn on_a_real_api_server() {
            let Some(cluster) = $crate::Cluster::real().await.unwrap() else { return };
            let only = std::env::var("SCENARIO").unwrap_or_default();
            let mut all: Vec<(&str, $crate::Scenario)> = vec![
                $((stringify!($name), Box::new(|cluster| Box::pin($name(cluster))))),*
            ];
            all.retain(|(name, _)| name.contains(&only));
            $crate::play(&cluster, all).await;
        }
    };
}
