//! The sample's log: one thread owns the file; writes that wait share one append and one fsync.
//!
//! Invariants: a write is answered only after the bytes of its record were synced. After a failed append the file is cut back to
//! what was acknowledged. After a failed fsync nothing more is acknowledged, because the kernel may have dropped the pages and would
//! report the next fsync as good. A log that holds a higher epoch than the writer's refuses every write.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use tokio::sync::oneshot;

use super::record::{self, Record};

/// At most this many writes share one fsync, so that one answer never waits for an unbounded batch.
const BATCH: usize = 512;

/// Why a write, or the whole log, was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    /// The log could not be opened or read.
    #[error("cannot open the log {path}: {source}. Check that the volume is mounted there and writable")]
    Open {
        /// The log's path.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// See [`record::Damaged`].
    #[error("{path}: {source}")]
    Damaged {
        /// The log's path.
        path: PathBuf,
        /// Where.
        source: Arc<record::Damaged>,
    },
    /// The write was not stored; what was acknowledged before is whole. A later write may succeed.
    #[error("the write was not stored: {0}. Free space on the volume, then write again")]
    Append(Arc<std::io::Error>),
    /// It is not known what is on disk. Only a restart, which reads the log again, helps.
    #[error("the log could not be synced ({0}), so nothing more is acknowledged until a restart reads it again")]
    Sync(Arc<std::io::Error>),
    /// The log was written by a later epoch than ours.
    #[error("the log holds epoch {found}, this writer has epoch {ours}: it was superseded and must not write")]
    Superseded {
        /// The highest epoch in the log.
        found: u64,
        /// The writer's.
        ours: u64,
    },
    /// The log's thread is gone.
    #[error("the log is closed: the application is stopping")]
    Closed,
}

/// What a write is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Where its record begins in the log; none for a duplicate.
    pub(crate) offset: Option<u64>,
}

impl Stored {
    /// True when the client's number was in the log already and nothing was written.
    pub(crate) fn duplicate(self) -> bool {
        self.offset.is_none()
    }
}

/// What is durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Durable {
    /// Records.
    pub(crate) count: u64,
    /// Bytes.
    pub(crate) length: u64,
}

struct Request {
    client: String,
    n: u64,
    answer: oneshot::Sender<Result<Stored, Error>>,
}

/// A handle to the log's thread; it ends when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Log {
    path: PathBuf,
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

/// What the log's thread tells its handles.
#[derive(Default)]
struct Shared {
    durable: Mutex<Durable>,
    /// Why no write will ever be acknowledged again.
    broken: OnceLock<Error>,
}

impl Shared {
    fn durable(&self) -> std::sync::MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log that was just opened.
pub(crate) struct Opened {
    /// The handle.
    pub(crate) log: Log,
    /// Bytes of a torn last line that were cut off.
    pub(crate) torn: u64,
}

impl Log {
    /// Opens or makes `directory/writes.log`, cuts a torn last line off, and starts the log's thread.
    pub(crate) fn open(directory: &Path, cluster: &str, epoch: u64) -> Result<Opened, Error> {
        let path = directory.join("writes.log");
        let open = |source: std::io::Error| Error::Open {
            path: path.clone(),
            source: Arc::new(source),
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(open)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(open)?;
        let contents = record::read(&bytes).map_err(|source| Error::Damaged {
            path: path.clone(),
            source: Arc::new(source),
        })?;
        drop(bytes);
        if contents.torn > 0 {
            file.set_len(contents.length).map_err(open)?;
        }
        file.sync_all().map_err(open)?;
        // The file's own entry must be as durable as what will be acknowledged in it.
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(open)?;
        let mut writer = Writer::new(file, cluster, epoch, contents.length);
        for record in &contents.records {
            writer.seen.entry(record.client.clone()).or_default().insert(record.n);
            writer.newest_epoch = writer.newest_epoch.max(record.epoch);
        }
        let durable = Durable {
            count: contents.records.len() as u64,
            length: contents.length,
        };
        let shared = Arc::new(Shared {
            durable: Mutex::new(durable),
            broken: OnceLock::new(),
        });
        if let Some(superseded) = writer.superseded() {
            let _ = shared.broken.set(superseded);
        }
        let (requests, queue) = mpsc::channel();
        let told = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(&queue, &told))
            .map_err(open)?;
        Ok(Opened {
            log: Self { path, requests, shared },
            torn: contents.torn,
        })
    }

    /// Stores a write; returns once it is durable.
    pub(crate) async fn write(&self, client: String, n: u64) -> Result<Stored, Error> {
        let (answer, stored) = oneshot::channel();
        self.requests
            .send(Request { client, n, answer })
            .map_err(|_| Error::Closed)?;
        stored.await.map_err(|_| Error::Closed)?
    }

    /// What is durable now.
    pub(crate) fn durable(&self) -> Durable {
        *self.shared.durable()
    }

    /// Why no write is acknowledged any more, until a restart.
    pub(crate) fn broken(&self) -> Option<&Error> {
        self.shared.broken.get()
    }

    /// The log's file. Only its first [`Durable::length`] bytes count.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The numbers that a client has used, as ranges: a client that counts costs one entry.
#[derive(Debug, Default)]
struct Numbers(BTreeMap<u64, u64>);

impl Numbers {
    fn contains(&self, n: u64) -> bool {
        self.0.range(..=n).next_back().is_some_and(|(_, last)| n <= *last)
    }

    fn insert(&mut self, n: u64) {
        if self.contains(n) {
            return;
        }
        let first = match self.0.range(..n).next_back() {
            Some((first, last)) if last.checked_add(1) == Some(n) => *first,
            _ => n,
        };
        let last = n.checked_add(1).and_then(|next| self.0.remove(&next)).unwrap_or(n);
        self.0.insert(first, last);
    }
}

struct Writer {
    file: File,
    cluster: String,
    epoch: u64,
    newest_epoch: u64,
    length: u64,
    seen: HashMap<String, Numbers>,
    failed: Option<Arc<std::io::Error>>,
}

impl Writer {
    fn new(file: File, cluster: &str, epoch: u64, length: u64) -> Self {
        let (cluster, seen) = (cluster.to_owned(), HashMap::new());
        Self {
            file,
            cluster,
            epoch,
            newest_epoch: epoch,
            length,
            seen,
            failed: None,
        }
    }

    fn superseded(&self) -> Option<Error> {
        (self.newest_epoch > self.epoch).then_some(Error::Superseded {
            found: self.newest_epoch,
            ours: self.epoch,
        })
    }

    fn run(mut self, queue: &mpsc::Receiver<Request>, shared: &Shared) {
        while let Ok(first) = queue.recv() {
            let batch: Vec<Request> = std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)).collect();
            let stored = self.store(&batch);
            if let Some(source) = &self.failed {
                let _ = shared.broken.set(Error::Sync(Arc::clone(source)));
            }
            if let Ok(stored) = &stored {
                let mut durable = shared.durable();
                durable.count += stored.iter().filter(|stored| !stored.duplicate()).count() as u64;
                durable.length = self.length;
            }
            for (index, request) in batch.into_iter().enumerate() {
                // A client that went away reads its answer no more; its write stays.
                let _ = request
                    .answer
                    .send(stored.as_ref().map(|stored| stored[index]).map_err(Clone::clone));
            }
        }
    }

    /// Appends the batch with one write and one fsync, and says where each record begins.
    fn store(&mut self, batch: &[Request]) -> Result<Vec<Stored>, Error> {
        if let Some(source) = &self.failed {
            return Err(Error::Sync(Arc::clone(source)));
        }
        if let Some(superseded) = self.superseded() {
            return Err(superseded);
        }
        let micros = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        let mut bytes = Vec::with_capacity(64 * batch.len());
        let mut stored = Vec::with_capacity(batch.len());
        let mut fresh: HashMap<&str, Numbers> = HashMap::new();
        for Request { client, n, .. } in batch {
            let in_log = self.seen.get(client).is_some_and(|numbers| numbers.contains(*n));
            let in_batch = fresh.entry(client).or_default();
            if in_log || in_batch.contains(*n) {
                stored.push(Stored { offset: None });
                continue;
            }
            in_batch.insert(*n);
            let offset = self.length + bytes.len() as u64;
            let (client, cluster) = (client.clone(), self.cluster.clone());
            let record = Record {
                client,
                n: *n,
                epoch: self.epoch,
                cluster,
                micros,
                offset,
            };
            write!(bytes, "{record}").map_err(|source| Error::Append(Arc::new(source)))?;
            stored.push(Stored { offset: Some(offset) });
        }
        if bytes.is_empty() {
            return Ok(stored);
        }
        if let Err(source) = self.file.write_all_at(&bytes, self.length) {
            if let Err(source) = self.file.set_len(self.length).and_then(|()| self.file.sync_data()) {
                self.failed = Some(Arc::new(source));
            }
            return Err(Error::Append(Arc::new(source)));
        }
        if let Err(source) = self.file.sync_data() {
            let source = Arc::new(source);
            self.failed = Some(Arc::clone(&source));
            return Err(Error::Sync(source));
        }
        self.length += bytes.len() as u64;
        for Request { client, n, .. } in batch {
            self.seen.entry(client.clone()).or_default().insert(*n);
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(directory: &Path) -> Vec<Record> {
        record::read(&std::fs::read(directory.join("writes.log")).unwrap())
            .unwrap()
            .records
    }

    fn open(directory: &Path, epoch: u64) -> Opened {
        Log::open(directory, "west", epoch).unwrap()
    }

    #[tokio::test]
    async fn an_acknowledged_write_is_in_the_file_at_the_offset_it_was_told() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path(), 1).log;
        let waiting: Vec<_> = (0..100).map(|n| log.write("c".into(), n)).collect();
        let stored: Vec<_> = futures::future::join_all(waiting)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let found = records(directory.path());
        assert_eq!(found.len(), 100);
        for (n, stored) in stored.iter().enumerate() {
            let record = found.iter().find(|record| record.n == n as u64).unwrap();
            assert_eq!(stored.offset, Some(record.offset));
        }
        assert_eq!(log.durable().count, 100);
    }

    #[tokio::test]
    async fn a_repeated_number_is_acknowledged_as_a_duplicate_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path(), 1).log;
        assert!(!log.write("c".into(), 5).await.unwrap().duplicate());
        assert!(log.write("c".into(), 5).await.unwrap().duplicate());
        assert!(!log.write("d".into(), 5).await.unwrap().duplicate());
        drop(log);
        let log = open(directory.path(), 1).log;
        assert!(log.write("c".into(), 5).await.unwrap().duplicate());
        assert_eq!(records(directory.path()).len(), 2);
    }

    #[tokio::test]
    async fn a_torn_last_line_is_cut_off_and_told() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path(), 1).log;
        log.write("c".into(), 1).await.unwrap();
        drop(log);
        let path = directory.path().join("writes.log");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"c 2 1 we");
        std::fs::write(&path, bytes).unwrap();
        let opened = open(directory.path(), 1);
        assert_eq!((opened.torn, opened.log.durable().count), (8, 1));
        opened.log.write("c".into(), 2).await.unwrap();
        assert_eq!(records(directory.path()).len(), 2);
    }

    #[tokio::test]
    async fn a_writer_of_an_older_epoch_than_the_log_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), 4).log.write("c".into(), 1).await.unwrap();
        let refused = open(directory.path(), 3).log.write("c".into(), 2).await.unwrap_err();
        assert!(matches!(refused, Error::Superseded { found: 4, ours: 3 }), "{refused}");
        assert_eq!(records(directory.path()).len(), 1);
    }

    #[test]
    fn a_log_that_is_damaged_in_the_middle_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("writes.log");
        let whole = Record {
            client: "c".into(),
            n: 1,
            epoch: 1,
            cluster: "west".into(),
            micros: 1,
            offset: 0,
        }
        .to_string();
        let bytes = format!("garbage\n{whole}");
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(
            Log::open(directory.path(), "west", 1),
            Err(Error::Damaged { .. })
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bytes);
    }

    #[test]
    fn a_missing_volume_is_named() {
        let error = Log::open(Path::new("/nonexistent/volume"), "west", 1)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("/nonexistent/volume/writes.log"), "{error}");
    }

    proptest! {
        #[test]
        fn numbers_hold_what_was_put_in(numbers in proptest::collection::vec(0_u64..40, 0..60)) {
            let mut set = Numbers::default();
            numbers.iter().for_each(|n| set.insert(*n));
            for n in 0..45 {
                prop_assert_eq!(set.contains(n), numbers.contains(&n));
            }
            let ranges: Vec<_> = set.0.iter().collect();
            prop_assert!(ranges.windows(2).all(|pair| *pair[0].1 + 1 < *pair[1].0), "{:?}", ranges);
        }
    }
}
