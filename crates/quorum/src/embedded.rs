//! The embedded stand-in: one copy of the store in one process, durable in a file, served to the agents over HTTP.
//!
//! Flow: [`Embedded`] owns the file and the copy in memory; [`router`] puts it behind two paths; [`Client`] is the other
//! end. A transaction is written and synced to the file before the copy changes and before it is answered, so what was
//! acknowledged is there after a kill at any moment.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{Answer, Changes, Entry, Error, Outcome, Store, Txn};

const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
/// More memory than this is never needed for leases and decisions.
const CACHE_BYTES: usize = 2 << 20;
/// No change is waited for longer than this, so that a connection that died is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// The store itself.
pub struct Embedded {
    path: PathBuf,
    database: Database,
    copy: Mutex<Copy>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct Copy {
    entries: BTreeMap<String, Entry>,
    revision: u64,
}

impl Embedded {
    /// Opens the store's file, or makes it.
    ///
    /// # Errors
    /// When the file cannot be opened, or is not a store.
    pub fn open(path: &Path) -> Result<Arc<Self>, Error> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|e| Error::Storage {
                path: path.display().to_string(),
                reason: format!(
                    "{e}; stop whatever else uses it; if it is damaged, move it away: every cluster then starts fenced"
                ),
            })?;
        let copy = load(&database).map_err(|reason| Error::Storage {
            path: path.display().to_string(),
            reason,
        })?;
        let revision = watch::Sender::new(copy.revision);
        Ok(Arc::new(Self {
            path: path.to_owned(),
            database,
            copy: Mutex::new(copy),
            revision,
        }))
    }

    fn run(&self, txn: &Txn) -> Result<Outcome, Error> {
        // A thread that panicked in here has not changed the copy: it changes last, in one go.
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = txn
            .compares
            .iter()
            .all(|compare| copy.revision_of(&compare.key) == compare.revision);
        if applied && !txn.writes.is_empty() {
            let revision = copy.revision + 1;
            let changed: Vec<_> = txn
                .writes
                .iter()
                .map(|write| Entry {
                    key: write.key.clone(),
                    value: write.value.clone(),
                    revision,
                })
                .collect();
            persist(&self.database, &changed).map_err(|reason| Error::Storage {
                path: self.path.display().to_string(),
                reason,
            })?;
            copy.revision = revision;
            copy.entries
                .extend(changed.into_iter().map(|entry| (entry.key.clone(), entry)));
            self.revision.send_replace(revision);
        }
        let entries = txn
            .read_prefixes
            .iter()
            .flat_map(|prefix| {
                copy.entries
                    .range(prefix.clone()..)
                    .take_while(move |(key, _)| key.starts_with(prefix.as_str()))
                    .map(|(_, entry)| entry.clone())
            })
            .collect();
        Ok(Outcome {
            applied,
            revision: copy.revision,
            entries,
        })
    }

    fn since(&self, after: u64) -> Changes {
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<_> = copy
            .entries
            .values()
            .filter(|entry| entry.revision > after)
            .cloned()
            .collect();
        entries.sort_by_key(|entry| entry.revision);
        Changes {
            revision: copy.revision,
            entries,
            whole: after == 0,
        }
    }
}

impl Copy {
    fn revision_of(&self, key: &str) -> u64 {
        self.entries
            .get(key)
            .filter(|entry| entry.value.is_some())
            .map_or(0, |entry| entry.revision)
    }
}

fn load(database: &Database) -> Result<Copy, String> {
    let mut copy = Copy::default();
    let read = database.begin_read().map_err(|e| e.to_string())?;
    let table = match read.open_table(ENTRIES) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(copy),
        Err(e) => return Err(e.to_string()),
    };
    for row in table.iter().map_err(|e| e.to_string())? {
        let (key, value) = row.map_err(|e| e.to_string())?;
        let entry: Entry =
            serde_json::from_slice(value.value()).map_err(|e| format!("entry {:?} is damaged: {e}", key.value()))?;
        copy.revision = copy.revision.max(entry.revision);
        copy.entries.insert(entry.key.clone(), entry);
    }
    Ok(copy)
}

fn persist(database: &Database, entries: &[Entry]) -> Result<(), String> {
    let write = database.begin_write().map_err(|e| e.to_string())?;
    {
        let mut table = write.open_table(ENTRIES).map_err(|e| e.to_string())?;
        for entry in entries {
            let value = serde_json::to_vec(entry).map_err(|e| e.to_string())?;
            table
                .insert(entry.key.as_str(), value.as_slice())
                .map_err(|e| e.to_string())?;
        }
    }
    write.commit().map_err(|e| e.to_string())
}

impl Store for Arc<Embedded> {
    fn txn(&self, txn: Txn) -> Answer<'_, Outcome> {
        let store = Arc::clone(self);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || store.run(&txn))
                .await
                .map_err(|e| Error::Unreachable(e.to_string()))?
        })
    }

    fn changes(&self, after: u64, wait: Duration) -> Answer<'_, Changes> {
        Box::pin(async move {
            let mut revision = self.revision.subscribe();
            // Only a time-out or the end of the store ends the wait early; both mean that nothing changed.
            let _ = tokio::time::timeout(wait.min(LONGEST_WAIT), revision.wait_for(|r| *r > after)).await;
            Ok(self.since(after))
        })
    }
}

#[derive(Serialize, Deserialize)]
struct ChangesRequest {
    after: u64,
    wait_ms: u64,
}

/// The store behind `POST /v1/quorum/txn` and `POST /v1/quorum/changes`.
pub fn router(store: Arc<Embedded>) -> Router {
    Router::new()
        .route("/v1/quorum/txn", post(serve_txn))
        .route("/v1/quorum/changes", post(serve_changes))
        .with_state(store)
}

async fn serve_txn(State(store): State<Arc<Embedded>>, Json(txn): Json<Txn>) -> axum::response::Response {
    answer(store.txn(txn).await)
}

async fn serve_changes(
    State(store): State<Arc<Embedded>>,
    Json(request): Json<ChangesRequest>,
) -> axum::response::Response {
    answer(
        store
            .changes(request.after, Duration::from_millis(request.wait_ms))
            .await,
    )
}

fn answer<T: Serialize>(result: Result<T, Error>) -> axum::response::Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            tracing::error!(%error, "the quorum could not answer");
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
        }
    }
}

/// The store in another process.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    timeout: Duration,
}

impl Client {
    /// A client of the store at `base` (`https://HOST:PORT`), over an HTTP client that proves who asks. A transaction
    /// that is not answered within `timeout` has an unknown outcome.
    pub fn new(http: reqwest::Client, base: impl Into<String>, timeout: Duration) -> Self {
        Self {
            http,
            base: base.into(),
            timeout,
        }
    }

    async fn ask<Q: Serialize, A: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        question: &Q,
        timeout: Duration,
    ) -> Result<A, Error> {
        let unreachable = |e: reqwest::Error| Error::Unreachable(e.without_url().to_string());
        let answer = self
            .http
            .post(format!("{}{path}", self.base))
            .timeout(timeout)
            .json(question)
            .send()
            .await
            .map_err(unreachable)?;
        match answer.status() {
            status if status.is_success() => answer.json().await.map_err(unreachable),
            status if status.is_client_error() => Err(Error::Refused(format!(
                "{status}: {}",
                answer.text().await.unwrap_or_default()
            ))),
            status => Err(Error::Unreachable(format!(
                "{status}: {}",
                answer.text().await.unwrap_or_default()
            ))),
        }
    }
}

impl Store for Client {
    fn txn(&self, txn: Txn) -> Answer<'_, Outcome> {
        Box::pin(async move { self.ask("/v1/quorum/txn", &txn, self.timeout).await })
    }

    fn changes(&self, after: u64, wait: Duration) -> Answer<'_, Changes> {
        Box::pin(async move {
            let question = ChangesRequest {
                after,
                wait_ms: wait.as_millis() as u64,
            };
            self.ask("/v1/quorum/changes", &question, wait + self.timeout).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &tempfile::TempDir) -> Arc<Embedded> {
        Embedded::open(&directory.path().join("quorum.redb")).unwrap()
    }

    #[tokio::test]
    async fn a_transaction_applies_only_while_its_comparisons_hold() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let first = store
            .txn(Txn::default().expect("a", 0).put("a", &1).unwrap())
            .await
            .unwrap();
        assert!(first.applied);
        let again = store
            .txn(Txn::default().expect("a", 0).put("a", &2).unwrap().read("a"))
            .await
            .unwrap();
        assert!(!again.applied);
        assert_eq!(again.entries[0].value.as_deref(), Some("1"));
        let next = Txn::default()
            .expect("a", first.revision)
            .put("a", &3)
            .unwrap()
            .delete("b")
            .read("");
        let next = store.txn(next).await.unwrap();
        assert!(next.applied && next.revision > first.revision);
        assert_eq!(next.entries.len(), 2);
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_reopening_and_revisions_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let before = store.txn(Txn::default().put("a", &1).unwrap()).await.unwrap();
        drop(store);
        let store = open(&directory);
        let changes = store.changes(0, Duration::ZERO).await.unwrap();
        assert_eq!(changes.revision, before.revision);
        assert_eq!(changes.entries.len(), 1);
        let after = store
            .txn(Txn::default().expect("a", before.revision).delete("a"))
            .await
            .unwrap();
        assert!(after.applied && after.revision > before.revision);
    }

    #[tokio::test]
    async fn a_watcher_hears_of_every_change_and_of_deletions() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let outcome = store.txn(Txn::default().put("a", &1).unwrap()).await.unwrap();
        let waiting = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.changes(outcome.revision, Duration::from_secs(10)).await })
        };
        store.txn(Txn::default().delete("a")).await.unwrap();
        let changes = waiting.await.unwrap().unwrap();
        assert_eq!(changes.entries.len(), 1);
        assert_eq!(changes.entries[0].value, None);
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_store_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("quorum.redb");
        std::fs::write(&path, "not a store, but long enough to be taken for one? no").unwrap();
        let error = Embedded::open(&path).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("quorum.redb"), "{error}");
    }

    #[tokio::test]
    async fn the_client_speaks_to_the_served_store() {
        let directory = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let store = open(&directory);
        tokio::spawn(async move { axum::serve(listener, router(store)).await });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::new(reqwest::Client::new(), base, Duration::from_secs(5));
        let outcome = client
            .txn(Txn::default().expect("a", 0).put("a", &7).unwrap())
            .await
            .unwrap();
        assert!(outcome.applied);
        let changes = client.changes(0, Duration::ZERO).await.unwrap();
        assert_eq!(changes.entries[0].value.as_deref(), Some("7"));
        let nobody = Client::new(reqwest::Client::new(), "http://127.0.0.1:1", Duration::from_secs(5));
        assert!(nobody.txn(Txn::default()).await.unwrap_err().is_transient());
    }
}
