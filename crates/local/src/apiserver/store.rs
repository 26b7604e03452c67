//! The objects of a region: in memory for reading, on disk before a write is acknowledged.
//!
//! One thread writes. It takes what is queued as one batch, checks each write against what the batch and the published
//! state say, commits the batch with a single fsync, and only then publishes it and answers. So a reader never sees what
//! a crash could undo, revisions only grow, and many writers share an fsync. A batch that could not be committed is
//! answered with an error, nothing of it is published, and the file is opened anew.

mod changes;
mod disk;
mod held;
mod reading;
mod state;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};

use serde_json::Value;
use tokio::sync::{mpsc as tokio_mpsc, oneshot, watch};

pub(crate) use changes::{Event, EventType};
pub use disk::OpenError;
pub(crate) use held::{Held, Text};
use reading::Reading;
pub(crate) use state::{State, revision_of};

/// An object as the store hands it out.
pub(crate) type Object = Arc<Value>;

/// Where an object lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id {
    /// The table: the plural and group, such as `deployments.apps`.
    pub(crate) resource: Arc<str>,
    /// Empty for an object outside of namespaces.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What must be true of the object for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Absent,
    Revision(u64),
}

/// Why a write did not happen.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum WriteError {
    #[error("the object exists already")]
    Exists,
    #[error("the object is not there")]
    Missing,
    #[error("the object has been modified")]
    Changed,
    #[error("the disk that holds {path} is full: nothing was written; free some space and try again")]
    Full { path: String },
    #[error("{path} could not be written: {error}")]
    Storage { path: String, error: String },
    #[error("the server is stopping")]
    Closed,
}

struct Request {
    id: Id,
    expect: Expect,
    /// `None` deletes.
    object: Option<Value>,
    answer: oneshot::Sender<Result<Object, WriteError>>,
}

/// A committed change, for the tasks that follow every kind.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) id: Id,
    pub(crate) event: Event,
}

/// The store. Dropping the last handle ends its thread once what is queued is written.
pub(crate) struct Store {
    state: Arc<RwLock<State>>,
    /// `None` once closed.
    requests: RwLock<Option<mpsc::Sender<Request>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Store {
    /// Opens or makes the store in `file`. Every notice goes to `notices`.
    pub(crate) fn open(file: &Path, notices: tokio_mpsc::UnboundedSender<Notice>) -> Result<Self, OpenError> {
        Self::open_with(file, disk::opener(), notices)
    }

    fn open_with(
        file: &Path,
        opener: disk::Opener,
        notices: tokio_mpsc::UnboundedSender<Notice>,
    ) -> Result<Self, OpenError> {
        let mut disk = disk::Disk::open(file, opener)?;
        let state = Arc::new(RwLock::new(State::load(disk.load()?)));
        let (requests, queue) = mpsc::channel();
        let shared = state.clone();
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                Writer {
                    disk,
                    state: shared,
                    notices,
                }
                .run(&queue)
            })
            .map_err(|e| OpenError::Io {
                path: file.display().to_string(),
                error: e.to_string(),
            })?;
        Ok(Self {
            state,
            requests: RwLock::new(Some(requests)),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// The published state. Hold it briefly, and read nothing else of the store meanwhile.
    pub(crate) fn read(&self) -> Reading<'_> {
        Reading::begin(&self.state)
    }

    pub(crate) fn get(&self, id: &Id) -> Option<Object> {
        let held = self.read().get(id);
        held.map(|held| held.open())
    }

    /// The objects of a resource in the order of `namespace/name`, of one namespace or of all.
    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Object> {
        let held = self.read().list(resource, namespace);
        held.iter().map(Held::open).collect()
    }

    /// Told of each revision at which something of the resource changed.
    pub(crate) fn subscribe(&self, resource: &Arc<str>) -> watch::Receiver<u64> {
        if let Some(receiver) = self.read().subscribe(resource) {
            return receiver;
        }
        self.state
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .subscribe_new(resource)
    }

    /// Writes `object` (with `None`, deletes) when what is expected holds; answers once it is durable, with the object at
    /// its new revision.
    pub(crate) async fn write(&self, id: Id, expect: Expect, object: Option<Value>) -> Result<Object, WriteError> {
        let (answer, answered) = oneshot::channel();
        {
            let sender = self.requests.read().unwrap_or_else(PoisonError::into_inner);
            let request = Request {
                id,
                expect,
                object,
                answer,
            };
            sender
                .as_ref()
                .ok_or(WriteError::Closed)?
                .send(request)
                .map_err(|_| WriteError::Closed)?;
        }
        answered.await.map_err(|_| WriteError::Closed)?
    }

    /// Makes small in memory what was not read for the time between two calls.
    pub(crate) fn settle(&self) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).settle();
    }

    /// Writes what is queued, refuses the rest, and lets go of the file. Blocks for the last fsync.
    pub(crate) fn close(&self) {
        *self.requests.write().unwrap_or_else(PoisonError::into_inner) = None;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // The thread ends when the queue is empty; a panic there was already reported.
            let _ = writer.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// Writes of one batch at most; the rest waits for the next fsync.
const BATCH: usize = 512;

struct Writer {
    disk: disk::Disk,
    state: Arc<RwLock<State>>,
    notices: tokio_mpsc::UnboundedSender<Notice>,
}

/// A write of the batch that will be published once the batch is durable.
struct Accepted {
    id: Id,
    event: Event,
    answer: oneshot::Sender<Result<Object, WriteError>>,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Request>) {
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH {
                match queue.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            self.write(batch);
        }
    }

    fn write(&mut self, batch: Vec<Request>) {
        let mut revision = self.state.read().unwrap_or_else(PoisonError::into_inner).revision();
        let mut accepted: Vec<Accepted> = Vec::with_capacity(batch.len());
        for mut request in batch {
            let before = self.current(&accepted, &request.id);
            match judge(before, &mut request, revision + 1) {
                Ok(event) => {
                    revision += 1;
                    accepted.push(Accepted {
                        id: request.id,
                        event,
                        answer: request.answer,
                    });
                }
                Err(error) => {
                    let _ = request.answer.send(Err(error));
                }
            }
        }
        if accepted.is_empty() {
            return;
        }
        match self.disk.commit(revision, accepted.iter().map(|a| (&a.id, &a.event))) {
            Ok(()) => self.publish(accepted),
            Err(error) => {
                tracing::error!(%error, "a batch of {} writes was refused", accepted.len());
                for a in accepted {
                    let _ = a.answer.send(Err(error.clone()));
                }
                self.reopen();
            }
        }
    }

    /// The object as the writes accepted before in this batch leave it.
    fn current(&self, accepted: &[Accepted], id: &Id) -> Option<Object> {
        match accepted.iter().rev().find(|a| a.id == *id) {
            Some(a) if a.event.event_type == EventType::Deleted => None,
            Some(a) => Some(a.event.object.clone()),
            None => {
                let held = self.state.read().unwrap_or_else(PoisonError::into_inner).get(id);
                held.map(|held| held.open())
            }
        }
    }

    fn publish(&mut self, accepted: Vec<Accepted>) {
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for a in &accepted {
                state.apply(&a.id, a.event.clone());
            }
        }
        for a in accepted {
            let _ = a.answer.send(Ok(a.event.object.clone()));
            let _ = self.notices.send(Notice {
                id: a.id,
                event: a.event,
            });
        }
    }

    /// After a failed commit: what the file holds decides. It may hold the batch after all (the error came after the
    /// point of no return), and then readers must see it, too.
    fn reopen(&mut self) {
        match self.disk.reopen().and_then(|()| self.disk.load()) {
            Ok(loaded) => {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                if loaded.revision != state.revision() {
                    state.replace(loaded);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the store could not be opened again; the next write tries once more")
            }
        }
    }
}

/// Whether the write may happen, and the event that it makes, with the request's object in it.
fn judge(before: Option<Object>, request: &mut Request, revision: u64) -> Result<Event, WriteError> {
    match (&before, request.expect) {
        (Some(_), Expect::Absent) => return Err(WriteError::Exists),
        (None, Expect::Revision(_)) => return Err(WriteError::Missing),
        (Some(object), Expect::Revision(expected)) if revision_of(object) != expected => {
            return Err(WriteError::Changed);
        }
        _ => {}
    }
    let (event_type, mut object) = match (request.object.take(), &before) {
        (Some(new), None) => (EventType::Added, new),
        (Some(new), Some(_)) => (EventType::Modified, new),
        (None, Some(old)) => (EventType::Deleted, (**old).clone()),
        (None, None) => return Err(WriteError::Missing),
    };
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
    Ok(Event {
        revision,
        event_type,
        object: Arc::new(object),
        before,
    })
}

#[cfg(test)]
mod tests;
