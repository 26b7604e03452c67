//! The store over a disk that fills up, and under many writers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Expect, Id, Store, WriteError, disk, revision_of};

/// A file on a disk that can be filled and emptied.
#[derive(Debug)]
struct Filling {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Filling {
    fn check(&self) -> Result<(), std::io::Error> {
        if self.full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for Filling {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.write(offset, data)
    }
}

fn filling(full: Arc<AtomicBool>) -> disk::Opener {
    Box::new(move |path: &Path| {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let backend = Filling {
            file: FileBackend::new(file)?,
            full: full.clone(),
        };
        Database::builder().create_with_backend(backend)
    })
}

fn id(name: &str) -> Id {
    Id {
        resource: "things".into(),
        namespace: String::new(),
        name: name.into(),
    }
}

fn thing(name: &str) -> Option<Value> {
    Some(json!({"metadata": {"name": name}}))
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("objects.redb");
    let full = Arc::new(AtomicBool::new(false));
    let (notices, _noticed) = mpsc::unbounded_channel();
    let store = Store::open_with(&file, filling(full.clone()), notices.clone()).unwrap();
    let first = store.write(id("a"), Expect::Absent, thing("a")).await.unwrap();

    full.store(true, Ordering::SeqCst);
    let refused = store.write(id("b"), Expect::Absent, thing("b")).await.unwrap_err();
    assert!(matches!(refused, WriteError::Full { .. }), "{refused:?}");
    assert!(refused.to_string().contains("free some space"));
    assert!(store.get(&id("a")).is_some() && store.get(&id("b")).is_none());
    let again = store.write(id("b"), Expect::Absent, thing("b")).await;
    assert!(matches!(again, Err(WriteError::Full { .. })), "{again:?}");

    full.store(false, Ordering::SeqCst);
    let second = store.write(id("b"), Expect::Absent, thing("b")).await.unwrap();
    assert!(revision_of(&second) > revision_of(&first));
    drop(store);
    let store = Store::open(&file, notices).unwrap();
    assert!(store.get(&id("a")).is_some() && store.get(&id("b")).is_some());
}

#[tokio::test]
async fn a_write_happens_only_on_what_it_was_computed_from() {
    let dir = tempfile::tempdir().unwrap();
    let (notices, _noticed) = mpsc::unbounded_channel();
    let store = Store::open(&dir.path().join("objects.redb"), notices).unwrap();
    let made = store.write(id("a"), Expect::Absent, thing("a")).await.unwrap();
    let at = Expect::Revision(revision_of(&made));
    let (one, two) = futures::join!(
        store.write(id("a"), at, thing("a")),
        store.write(id("a"), at, thing("a"))
    );
    assert!(one.is_ok());
    assert_eq!(two.unwrap_err(), WriteError::Changed);
    assert_eq!(
        store.write(id("a"), Expect::Absent, thing("a")).await.unwrap_err(),
        WriteError::Exists
    );
    assert_eq!(
        store.write(id("b"), at, thing("b")).await.unwrap_err(),
        WriteError::Missing
    );
}

#[tokio::test]
async fn revisions_of_a_batch_are_in_the_order_of_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let (notices, _noticed) = mpsc::unbounded_channel();
    let store = Store::open(&dir.path().join("objects.redb"), notices).unwrap();
    let names: Vec<String> = (0..200).map(|i| format!("n{i}")).collect();
    let writes = names
        .iter()
        .map(|name| store.write(id(name), Expect::Absent, thing(name)));
    assert!(futures::future::join_all(writes).await.iter().all(Result::is_ok));
    let (events, revision) = store.read().since("things", 0).unwrap();
    let revisions: Vec<u64> = events.iter().map(|e| e.revision).collect();
    assert_eq!(revisions, (1..=200).collect::<Vec<u64>>());
    assert_eq!(revision, 200);
}
