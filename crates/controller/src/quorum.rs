//! The store that a configuration names.

use std::{path::Path, sync::Arc, time::Duration};

use leeward_quorum::{
    Error, Store, embedded,
    etcd::{self, Etcd},
};

use crate::config::{self, Quorum, Serve};

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
    Ok(match &config.quorum {
        Quorum::Embedded { url } => Arc::new(embedded::Client::new(http.clone(), url, timeout)),
        Quorum::Etcd(etcd) => Arc::new(Etcd::new(settings(etcd, config, timeout)?)?),
    })
}

/// How etcd is reached by a configuration that names it, with every file read.
///
/// # Errors
/// A file cannot be read.
pub fn settings(etcd: &config::Etcd, serve: &Serve, timeout: Duration) -> Result<etcd::Config, QuorumError> {
    let read = |what, path: &Path| {
        std::fs::read(path).map_err(|source| QuorumError::File {
            what,
            path: path.display().to_string(),
            source,
        })
    };
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
    })
}
