//! What the edge and the probes read, and the agent writes: the table, the local pods, health and counters.
//!
//! The table is kept on disk and loaded at start, so that an edge answers with the last one when everything else is
//! away. A new one is checked first; one that fails is refused and the last one goes on.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use leeward_core::{
    name::{AppKey, ClusterName, Epoch, Generation},
    routing::{Index, Table, TableError, check},
};
use tokio::sync::Notify;

use crate::{Admission, Answers, Backends, Counters, HealthBook, Verdict};

/// A table is never near this; a file that is larger is not one.
const LARGEST_FILE: u64 = 64 << 20;

/// Why [`Shared::install`] did not do all that it should.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The table breaks a rule. The last one goes on; the same one will be refused again.
    #[error("the routing table was refused and the last one goes on: {0}")]
    Refused(#[from] TableError),
    /// The table is in use, but a restart would begin with the one before. Worth a retry.
    #[error(
        "the routing table is in use but could not be kept in {path}, so a restart would begin with the last one kept; check that the disk is writable and not full: {error}"
    )]
    NotKept {
        /// Where it should have been kept.
        path: PathBuf,
        /// What failed.
        error: io::Error,
    },
}

/// What [`Shared::install`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// The table is in use.
    New,
    /// It is the one in use already.
    Same,
}

/// The state that the edge and the probes of one cluster share with the agent.
pub struct Shared {
    cluster: ClusterName,
    index: ArcSwap<Index>,
    /// Counts tables, so that a guard of an answer in flight sees a new one cheaply.
    version: AtomicU64,
    changed: Notify,
    kept: Option<PathBuf>,
    /// The last table that was kept; held while installing, so that two installs do not interleave.
    installing: Mutex<Option<Table>>,
    backends: ArcSwap<Backends>,
    health: HealthBook,
    admission: Arc<dyn Admission>,
    replica: ArcSwapOption<SocketAddr>,
    counters: Counters,
    answers: Answers,
}

impl Shared {
    /// The state of `cluster`, with the table that `kept` holds, if any. A damaged file is reported and passed over: an
    /// edge without a table answers 404 until it gets one.
    pub fn open(cluster: ClusterName, kept: Option<PathBuf>, admission: Arc<dyn Admission>) -> Self {
        let last = kept.as_deref().and_then(load);
        Self {
            cluster,
            index: ArcSwap::from_pointee(Index::new(last.clone().unwrap_or_default())),
            version: AtomicU64::new(0),
            changed: Notify::new(),
            kept,
            installing: Mutex::new(last),
            backends: ArcSwap::default(),
            health: HealthBook::new(),
            admission,
            replica: ArcSwapOption::empty(),
            counters: Counters::default(),
            answers: Answers::default(),
        }
    }

    /// The cluster that this is.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Takes a new table into use and keeps it on disk. Writes a file, so call it where blocking a little is fine.
    ///
    /// # Errors
    /// [`InstallError::Refused`]: the last table goes on. [`InstallError::NotKept`]: the new one is in use all the same.
    pub fn install(&self, table: Table) -> Result<Installed, InstallError> {
        let mut kept = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.index.load_full();
        check(&table, Some(current.table()))?;
        let same = *current.table() == table;
        if !same {
            self.health.retain(&table);
            self.answers.retain(&table);
            self.index.store(Arc::new(Index::new(table.clone())));
            self.version.fetch_add(1, Ordering::Release);
            self.changed.notify_waiters();
        }
        if let Some(path) = &self.kept
            && kept.as_ref() != Some(&table)
        {
            keep(path, &table).map_err(|error| InstallError::NotKept {
                path: path.clone(),
                error,
            })?;
            *kept = Some(table);
        }
        Ok(if same { Installed::Same } else { Installed::New })
    }

    /// The generation of the table in use.
    pub fn generation(&self) -> Generation {
        self.index.load().table().generation
    }

    /// The table in use.
    pub fn index(&self) -> Guard<Arc<Index>> {
        self.index.load()
    }

    /// Replaces the local pods' addresses.
    pub fn set_backends(&self, backends: Backends) {
        self.backends.store(Arc::new(backends));
    }

    pub(crate) fn backends(&self) -> Guard<Arc<Backends>> {
        self.backends.load()
    }

    /// Where another replica of this cluster's edge is that may answer for writers, while this one may not.
    pub fn set_replica(&self, edge: Option<SocketAddr>) {
        if self.replica.load().as_deref() != edge.as_ref() {
            self.replica.store(edge.map(Arc::new));
        }
    }

    pub(crate) fn replica(&self) -> Option<SocketAddr> {
        self.replica.load().as_deref().copied()
    }

    /// What is known of every endpoint.
    pub fn health(&self) -> &HealthBook {
        &self.health
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What users were answered.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    pub(crate) fn admit(&self, app: &AppKey) -> Verdict {
        self.admission.admit(app)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The epoch of an application's writer in the table in use.
    pub(crate) fn writer_epoch(&self, app: &AppKey) -> Option<Epoch> {
        let index = self.index.load();
        Some(index.profile_of(app)?.writer.as_ref()?.epoch)
    }

    pub(crate) fn table_changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
}

fn load(path: &Path) -> Option<Table> {
    match read(path) {
        Ok(table) => {
            tracing::info!(path = %path.display(), generation = table.generation.0, "serving from the last routing table");
            Some(table)
        }
        Err(LoadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the kept routing table cannot be used; waiting for a new one");
            None
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is not a routing table: {0}")]
    Form(#[from] serde_json::Error),
    #[error(transparent)]
    Rule(#[from] TableError),
    #[error("it is larger than any routing table")]
    Size,
}

fn read(path: &Path) -> Result<Table, LoadError> {
    if fs::metadata(path)?.len() > LARGEST_FILE {
        return Err(LoadError::Size);
    }
    let table = serde_json::from_slice(&fs::read(path)?)?;
    check(&table, None)?;
    Ok(table)
}

/// Writes beside the old file and renames, so that a crash leaves one of the two whole.
fn keep(path: &Path, table: &Table) -> io::Result<()> {
    let beside = path.with_extension("new");
    let folder = path
        .parent()
        .filter(|f| !f.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec(table)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(folder)?.sync_all()
}
