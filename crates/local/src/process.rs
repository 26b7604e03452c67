//! The processes that a local region is made of, as functions for the program's hidden subcommands.
//!
//! Each reads its configuration file, runs in a small runtime of its own until it is asked to end (SIGTERM or SIGINT), and
//! returns.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{apiserver, controllers, heap, node};

/// Why a process ended otherwise than it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be used.
    #[error("the configuration file {} cannot be used: {reason}; `leeward down` and `leeward up` make all of them anew", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The runtime or the signal handlers could not be set up.
    #[error("the process cannot be set up: {0}")]
    Setup(#[from] io::Error),
    /// The API could not start or go on.
    #[error(transparent)]
    Api(#[from] apiserver::Error),
    /// The node could not start.
    #[error(transparent)]
    Node(#[from] node::Error),
}

/// The configuration of `leeward local api`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiConfig {
    /// That of the API itself.
    #[serde(flatten)]
    pub server: apiserver::Config,
    /// Where the directories of volumes are made.
    pub volumes_dir: PathBuf,
}

/// Runs a region's API with its controllers until SIGTERM or SIGINT.
pub fn api(config: &Path) -> Result<(), Error> {
    let config: ApiConfig = read(config)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        let server = apiserver::Server::open(config.server).await?;
        tokio::spawn(heap::give_back(server.settle()));
        let controllers = tokio::spawn(control(server.client(), config.volumes_dir, stop.clone()));
        server.serve(stop.cancelled()).await?;
        stop.cancel();
        // They end by themselves once they are told; whether one panicked was reported where it did.
        let _ = controllers.await;
        server.close();
        Ok(())
    })
}

/// Runs a node until SIGTERM or SIGINT; its containers have ended when this returns.
pub fn node(config: &Path) -> Result<(), Error> {
    let config: node::Config = read(config)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        tokio::spawn(heap::give_back(|| {}));
        Ok(node::run(config, stop.cancelled()).await?)
    })
}

// The controllers are taken up again if they end before they are told to.
async fn control(client: kube::Client, volumes_dir: PathBuf, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let config = controllers::Config {
            volumes_dir: volumes_dir.clone(),
        };
        if let Err(error) = controllers::run(client.clone(), config, stop.cancelled()).await {
            tracing::warn!(%error, "the controllers are started again");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let fault = |reason: String| Error::Config {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| fault(error.to_string()))
}

// One thread is enough for a region's processes, and keeps them small.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    // Whoever runs first in this program decides; all of it uses ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

// Cancelled by the first SIGTERM or SIGINT.
fn stop_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.json");
        assert!(api(&path).unwrap_err().to_string().contains("api.json"));
        for text in ["", "{}", "[]", "{\"region\":3}"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(api(&path), Err(Error::Config { .. })), "{text}");
        }
    }
}
