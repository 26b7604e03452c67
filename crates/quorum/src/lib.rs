//! The compare-and-set store that leases, accepted specifications and decisions live in, and nothing soft.
//!
//! [`Store`] is the one interface. [`etcd`] is the real one, with a member in each failure domain; [`embedded`] is the stand-in
//! for one machine: one copy, in the witness process, reached over HTTP with mutual TLS. Losing it counts as losing the majority of a real quorum: whoever holds a lease steps down
//! when it ends, and nobody takes over.
//!
//! Invariants: the store is linearizable; a transaction applies as a whole or not at all; each applied transaction gets
//! the next revision, durable before it is answered; a revision never comes back.

pub mod certificate;
pub mod commit;
pub mod embedded;
pub mod encrypted;
pub mod etcd;
pub mod incarnation;
pub mod key;
pub mod known;
pub mod pin;
pub mod view;

use std::{future::Future, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};

/// A key's value with the revision that last changed it. `value` is none for a deleted key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value, a JSON text; none once deleted.
    pub value: Option<String>,
    /// The revision of its last change.
    pub revision: u64,
}

/// A key and the revision that it must have; 0 stands for an absent key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// The revision of its last change, 0 when it is absent.
    pub revision: u64,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The new value; none deletes.
    pub value: Option<String>,
}

/// A transaction: when all comparisons hold, all writes are applied at one revision. What is asked to be read is read in
/// the same instant, whether they hold or not, after the writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What is written.
    pub writes: Vec<Write>,
    /// The keys that start with one of these are read.
    pub read_prefixes: Vec<String>,
}

impl Txn {
    /// Also demands that `key` still has `revision` (0: is absent).
    #[must_use]
    pub fn expect(mut self, key: impl Into<String>, revision: u64) -> Self {
        self.compares.push(Compare {
            key: key.into(),
            revision,
        });
        self
    }

    /// Also writes a value as JSON.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn put<T: Serialize>(mut self, key: impl Into<String>, value: &T) -> Result<Self, Error> {
        let value = serde_json::to_string(value).map_err(|e| Error::Refused(e.to_string()))?;
        self.writes.push(Write {
            key: key.into(),
            value: Some(value),
        });
        Ok(self)
    }

    /// Also deletes a key.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.writes.push(Write {
            key: key.into(),
            value: None,
        });
        self
    }

    /// Also reads all keys with a prefix.
    #[must_use]
    pub fn read(mut self, prefix: impl Into<String>) -> Self {
        self.read_prefixes.push(prefix.into());
        self
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the comparisons held and the writes were applied.
    pub applied: bool,
    /// The store's newest revision.
    pub revision: u64,
    /// What was read.
    pub entries: Vec<Entry>,
}

/// What changed since a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The store's newest revision.
    pub revision: u64,
    /// The newest state of each key that changed, deleted ones included, in the order of their revisions.
    pub entries: Vec<Entry>,
    /// This is everything: a key that is not among the entries is not there any more.
    #[serde(default)]
    pub whole: bool,
}

/// Why the quorum gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answered: the outcome of what was sent is unknown. Try again; for a lease it counts as no renewal.
    #[error("the quorum does not answer ({0}): decisions wait, and whoever holds a lease stops when it ends")]
    Unreachable(String),
    /// The request was not understood; sending it again does not help.
    #[error("the quorum refused the request: {0}")]
    Refused(String),
    /// Another store answers than the one that was known, or an older state of it: what it says of epochs cannot be trusted.
    #[error(
        "the quorum is not the one that it was ({0}): nothing is decided on it and no lease is renewed; if it was begun anew by `leeward \
         quorum recover`, give this region its identity with `leeward quorum adopt`, else let the right one answer"
    )]
    Replaced(String),
    /// A specification cannot be decrypted.
    #[error(
        "{key} in the quorum cannot be read: {why}; give every region the same keys for specifications (spec_keys). Until then nothing new \
         is decided here, and what was known goes on"
    )]
    Unreadable {
        /// Where it is.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store could not be opened or written.
    #[error("the quorum's store at {path}: {reason}")]
    Storage {
        /// The file.
        path: String,
        /// What went wrong and what to do.
        reason: String,
    },
}

impl Error {
    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

/// A future of the store.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The store, whatever stands behind it.
pub trait Store: Send + Sync {
    /// Runs a transaction.
    fn txn(&self, txn: Txn) -> Answer<'_, Outcome>;

    /// What changed after a revision; 0 gives everything. Waits up to `wait` when nothing did.
    fn changes(&self, after: u64, wait: Duration) -> Answer<'_, Changes>;
}
