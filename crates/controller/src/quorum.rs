//! The store that a configuration names, and the certificates and members that it rests on.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use leeward_quorum::{
    Error, Store,
    certificate::Trouble,
    embedded,
    encrypted::{Encrypted, Keys},
    etcd::{
        self,
        status::{Members, Status},
    },
    pin::{self, Pinned},
};

use tokio_util::sync::CancellationToken;

use crate::{
    agent::Agent,
    clock,
    config::{self, Quorum, Serve},
};

/// How often it is looked when the certificates end, and what is wrong with the members.
const LOOK: Duration = Duration::from_secs(3600);
/// How often the files are looked at.
const LOOK_AT_FILES: Duration = crate::peer::LOOK;

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

/// The store, and what of it follows its files.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    etcd: Option<Arc<Pinned>>,
    encrypted: Option<Arc<Encrypted>>,
    used: Used,
}

/// What is in use.
struct Used {
    papers: Papers,
    spec_keys: Vec<Vec<u8>>,
}

/// Opens the store. Nothing is connected yet; a transaction that is not answered within `timeout` has an unknown outcome.
///
/// # Errors
/// A file cannot be read, or something in it cannot work.
pub fn open(config: &Serve, http: &reqwest::Client, timeout: Duration) -> Result<Opened, QuorumError> {
    let mut used = Used {
        papers: (None, None),
        spec_keys: bytes(&config.spec_keys),
    };
    let (store, etcd): (Arc<dyn Store>, _) = match &config.quorum {
        Quorum::Embedded { url } => (Arc::new(embedded::Client::new(http.clone(), url, timeout)), None),
        Quorum::Etcd(etcd) => {
            let settings = settings(etcd, config, timeout)?;
            used.papers = (settings.tls.clone(), settings.login.clone());
            let pinned = Arc::new(Pinned::open(settings, &pin::path(&config.data_dir))?);
            (Arc::clone(&pinned) as _, Some(pinned))
        }
    };
    if config.spec_keys.is_empty() {
        return Ok(Opened {
            store,
            etcd,
            encrypted: None,
            used,
        });
    }
    let encrypted = Arc::new(Encrypted::new(store, spec_keys(config)?));
    Ok(Opened {
        store: Arc::clone(&encrypted) as _,
        etcd,
        encrypted: Some(encrypted),
        used,
    })
}

/// The keys of the files, in their order; a file may have several, a line each.
fn spec_keys(config: &Serve) -> Result<Keys, QuorumError> {
    let texts = config.spec_keys.iter().map(|path| {
        let bytes = read("key for specifications", path)?;
        Ok::<_, QuorumError>(String::from_utf8_lossy(&bytes).into_owned())
    });
    let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
    // An empty file is a key of another form, too.
    let lines = texts.iter().flat_map(|text| text.trim().split('\n'));
    Ok(Keys::new(lines)?)
}

/// What a connection rests on, as it stands in the files at this moment.
type Papers = (Option<etcd::Tls>, Option<etcd::Login>);

/// Has the store use certificates, password and keys as they stand in their files, also after they were replaced, until `stop`. What cannot be
/// used is said once, and what was there goes on.
pub async fn follow(mut opened: Opened, config: Serve, stop: CancellationToken) {
    let mut looks = tokio::time::interval(LOOK_AT_FILES);
    let config = Arc::new(config);
    let mut refused = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let config = Arc::clone(&config);
        let looked = tokio::task::spawn_blocking(move || {
            let result = opened.renew(&config);
            (opened, result)
        });
        // Only a runtime that ends does not give an answer.
        let Ok((again, result)) = looked.await else { return };
        opened = again;
        match result {
            Ok(()) => refused.clear(),
            Err(why) if why == refused => {}
            Err(why) => {
                tracing::warn!("new files for the quorum are refused, and what was there before goes on: {why}");
                refused = why;
            }
        }
    }
}

impl Opened {
    /// Looks at the files once.
    ///
    /// # Errors
    /// Why what stands in them cannot be used.
    pub fn renew(&mut self, config: &Serve) -> Result<(), String> {
        if let Some(store) = &self.etcd {
            let now = papers(config)?;
            // What differs from one look to the next changes at this moment; the next look is soon.
            if self.used.papers != now && papers(config)? == now {
                now.0.as_ref().map_or(Ok(()), check)?;
                let renewed = store.renew(now.0.clone(), now.1.clone());
                renewed.map_err(|error| error.to_string())?;
                self.used.papers = now;
                tracing::info!("the new certificates for the quorum are in use for every new connection");
            }
        }
        if let Some(store) = &self.encrypted {
            let now = bytes(&config.spec_keys);
            if self.used.spec_keys != now && bytes(&config.spec_keys) == now {
                store.renew(spec_keys(config).map_err(|error| error.to_string())?);
                self.used.spec_keys = now;
                tracing::info!("the new keys for specifications are in use");
            }
        }
        Ok(())
    }
}

fn papers(config: &Serve) -> Result<Papers, String> {
    let Quorum::Etcd(etcd) = &config.quorum else {
        return Ok((None, None));
    };
    // The time-out is of no importance here.
    let settings = settings(etcd, config, LOOK_AT_FILES).map_err(|error| error.to_string())?;
    Ok((settings.tls, settings.login))
}

/// What stands in files; nothing for one that is not there.
fn bytes(files: &[std::path::PathBuf]) -> Vec<Vec<u8>> {
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap_or_default())
        .collect()
}

/// Whether certificate and key belong together and count now.
fn check(tls: &etcd::Tls) -> Result<(), String> {
    leeward_pki::roots(&tls.ca).map_err(|flaw| flaw.to_string())?;
    let Some((certificate, key)) = &tls.identity else {
        return Ok(());
    };
    let pair = leeward_pki::Pair::read(certificate, key).map_err(|flaw| flaw.to_string())?;
    let about = pair.about().map_err(|flaw| flaw.to_string())?;
    match clock::wall_ms() / 1000 {
        now if now > about.until => Err(leeward_pki::Flaw::Ended.to_string()),
        now if now < about.from => Err(leeward_pki::Flaw::NotYet.to_string()),
        _ => Ok(()),
    }
}

/// Watches the members until `stop`, over one connection to each. Once a lease it is looked whether the quorum can lose a member more, and the agent
/// is told. Once an hour it is logged which certificates end soon or have ended, which members have little space left, and their alarms: what was
/// said is said again only as it changes, a certificate's end once a day.
pub async fn watch(etcd: config::Etcd, serve: Serve, agent: Arc<Agent>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(agent.timing.ttl);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watched = Watched::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = watched.look(&etcd, &serve, &agent) => {}
        }
    }
}

/// What is known from looks before.
#[derive(Default)]
struct Watched {
    members: Option<Members>,
    short: Option<String>,
    /// What was logged, and when it was looked for that last.
    told: BTreeSet<String>,
    looked: Option<Instant>,
}

impl Watched {
    async fn look(&mut self, etcd: &config::Etcd, serve: &Serve, agent: &Agent) {
        let is_due = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
        // As the files are now: they may have been replaced.
        let config = match settings(etcd, serve, agent.timing.ttl / 3) {
            Ok(config) => config,
            Err(error) => {
                if is_due {
                    self.looked = Some(Instant::now());
                    tracing::warn!(%error, "the quorum's certificates were not looked at");
                }
                return;
            }
        };
        let members = self.members.take().filter(|members| members.are_of(&config));
        let members = members.map_or_else(|| Members::new(&config), Ok);
        let status = match members {
            Ok(members) => Some(self.members.insert(members).ask().await),
            // Whoever asks it something says so.
            Err(_) => None,
        };
        let short = status.as_ref().and_then(Status::without_spare);
        agent.set_no_spare(said(self.short.as_deref(), short.as_deref()).map(str::to_owned));
        self.short = short;
        if let Some(status) = status.filter(|_| is_due) {
            self.looked = Some(Instant::now());
            let now = i64::try_from(clock::wall_ms() / 1000).unwrap_or(i64::MAX);
            self.tell(&etcd::status::troubles(&config, &status, now).await);
        }
    }

    fn tell(&mut self, troubles: &[Trouble]) {
        for trouble in troubles.iter().filter(|trouble| !self.told.contains(trouble.text())) {
            match trouble {
                Trouble::Soon(text) => tracing::warn!("{text}"),
                Trouble::Over(text) => tracing::error!("{text}"),
            }
        }
        self.told = troubles.iter().map(|trouble| trouble.text().to_owned()).collect();
    }
}

/// Why the quorum cannot lose a member more, from why it could not by the look before and by this one: what only one look found may have been
/// a member that starts, or one answer that was late. What is in order again is believed at once.
fn said<'n>(before: Option<&str>, now: Option<&'n str>) -> Option<&'n str> {
    now.filter(|_| before.is_some())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_without_a_member_to_spare_is_said_from_the_second_look_in_a_row_on_and_taken_back_at_once() {
        const TWO: Option<&str> = Some("2 of the 3");
        const ONE: Option<&str> = Some("1 of the 3");
        for (looks, says) in [
            (&[None, None][..], &[None, None][..]),
            (&[TWO, None, TWO, None], &[None, None, None, None]),
            (&[TWO, TWO, TWO, None], &[None, TWO, TWO, None]),
            // The newest reason, whichever was found before.
            (&[None, TWO, ONE], &[None, None, ONE]),
            (&[TWO, TWO, None, TWO, TWO], &[None, TWO, None, None, TWO]),
        ] {
            let before = std::iter::once(None).chain(looks.iter().copied());
            let found: Vec<_> = before.zip(looks).map(|(before, now)| said(before, *now)).collect();
            assert_eq!(found, says, "{looks:?}");
        }
    }
}
