//! The store that a configuration names, and the certificates and members that it rests on.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use leeward_quorum::{
    Error, Store,
    certificate::Trouble,
    embedded,
    encrypted::{Encrypted, Keys},
    etcd,
    pin::{self, Pinned},
};

use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    config::{self, Quorum, Serve},
};

/// How often it is looked when the certificates end, and how the members are.
const LOOK: Duration = Duration::from_secs(3600);

/// A quorum that cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// A certificate, key or password cannot be read.
    #[error("the quorum's {what} {path}: {source}; give a file that the agent can read")]
    File {
        /// Which.
        what: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something in it cannot work.
    #[error(transparent)]
    Quorum(#[from] Error),
}

/// The store. Nothing is connected yet; a transaction that is not answered within `timeout` has an unknown outcome.
///
/// # Errors
/// A file cannot be read, or something in it cannot work.
pub fn store(config: &Serve, http: &reqwest::Client, timeout: Duration) -> Result<Arc<dyn Store>, QuorumError> {
    let store: Arc<dyn Store> = match &config.quorum {
        Quorum::Embedded { url } => Arc::new(embedded::Client::new(http.clone(), url, timeout)),
        Quorum::Etcd(etcd) => {
            let settings = settings(etcd, config, timeout)?;
            Arc::new(Pinned::open(settings, &pin::path(&config.data_dir))?)
        }
    };
    if config.spec_keys.is_empty() {
        return Ok(store);
    }
    let keys = config.spec_keys.iter().map(|path| {
        let bytes = read("key for specifications", path)?;
        Ok::<_, QuorumError>(String::from_utf8_lossy(&bytes).into_owned())
    });
    let keys: Vec<String> = keys.collect::<Result<_, _>>()?;
    let keys = Keys::new(keys.iter().map(String::as_str))?;
    Ok(Arc::new(Encrypted::new(store, keys)))
}

/// Logs which certificates of the quorum end soon or have ended, which members have little space left, and their alarms, until `stop`: what was
/// said is said again only as it changes, a certificate's end once a day.
pub async fn watch(etcd: etcd::Config, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut told = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = i64::try_from(clock::wall_ms() / 1000).unwrap_or(i64::MAX);
        let troubles = tokio::select! {
            () = stop.cancelled() => return,
            troubles = etcd::status::troubles(&etcd, now) => troubles,
        };
        for trouble in troubles.iter().filter(|trouble| !told.contains(trouble.text())) {
            match trouble {
                Trouble::Soon(text) => tracing::warn!("{text}"),
                Trouble::Over(text) => tracing::error!("{text}"),
            }
        }
        told = troubles.iter().map(|trouble| trouble.text().to_owned()).collect();
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, QuorumError> {
    std::fs::read(path).map_err(|source| QuorumError::File {
        what,
        path: path.display().to_string(),
        source,
    })
}

/// How etcd is reached by a configuration that names it, with every file read.
///
/// # Errors
/// A file cannot be read.
pub fn settings(etcd: &config::Etcd, serve: &Serve, timeout: Duration) -> Result<etcd::Config, QuorumError> {
    let secure = etcd.endpoints.iter().any(|url| url.starts_with("https://"));
    let tls = secure.then(|| {
        let or = |own: &Option<std::path::PathBuf>, peer: &Path| own.clone().unwrap_or_else(|| peer.to_owned());
        Ok::<_, QuorumError>(etcd::Tls {
            ca: read("authority", &or(&etcd.ca, &serve.peer_ca))?,
            identity: Some((
                read("certificate", &or(&etcd.cert, &serve.peer_cert))?,
                read("key", &or(&etcd.key, &serve.peer_key))?,
            )),
        })
    });
    let login = match (&etcd.user, &etcd.password_file) {
        (Some(user), Some(file)) => Some(etcd::Login {
            user: user.clone(),
            password: String::from_utf8_lossy(&read("password", file)?).trim().to_owned(),
        }),
        (None, None) => None,
        _ => {
            let why = "the quorum needs both of user and password_file, or none".to_owned();
            return Err(Error::Refused(why).into());
        }
    };
    Ok(etcd::Config {
        endpoints: etcd.endpoints.clone(),
        tls: tls.transpose()?,
        login,
        prefix: etcd.prefix.clone(),
        timeout,
        cluster: 0,
        revision: 0,
    })
}
