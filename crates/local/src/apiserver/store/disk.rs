//! The file: one table of objects as JSON, one of the last changes, one of revisions, in redb.
//!
//! The changes are kept for watches that resume and lists that go on after a restart, up to a number and a size. A change
//! and the object that it made are of one transaction.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde_json::Value;

use super::changes::{Event, EventType, Packed};
use super::held::{Held, Text, weight};
use super::{Id, WriteError};

const OBJECTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// Changes by revision: the object's key, what kind of change, the object after and before it; zero bytes between them.
const CHANGES: TableDefinition<'static, u64, &str> = TableDefinition::new("changes");
const REVISION: &str = "revision";
/// The newest change that is no longer kept.
const FLOOR: &str = "changes-floor";
/// Changes that are kept: their number, and their size in bytes.
const KEPT: u64 = 4096;
const KEPT_BYTES: u64 = 8 << 20;

/// Everything is in memory, so the file's own cache may be small. Bytes.
const CACHE: usize = 1 << 20;

/// Why the store could not be opened.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OpenError {
    /// Another process has the file.
    #[error("{path} is in use: another API server of this region is running; stop it first")]
    InUse { path: String },
    /// The file is not a store, or is damaged.
    #[error("{path} is damaged ({error}); move it away to start the region empty, or put a copy of it in its place")]
    Corrupt { path: String, error: String },
    /// The file cannot be read or written.
    #[error("{path} cannot be opened: {error}")]
    Io { path: String, error: String },
}

/// How the file is opened: a test gives one that fails.
pub(super) type Opener = Box<dyn Fn(&Path) -> Result<Database, redb::DatabaseError> + Send>;

pub(super) fn opener() -> Opener {
    Box::new(|path| Database::builder().set_cache_size(CACHE).create(path))
}

/// What the file held when it was opened.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) revision: u64,
    /// Changes up to this revision are forgotten.
    pub(super) floor: u64,
    pub(super) objects: Vec<(Id, Held)>,
    /// The last changes, oldest first.
    pub(super) changes: Vec<(Id, Packed)>,
}

/// The names of tables, each allocated once.
#[derive(Default)]
struct Interned(HashMap<String, Arc<str>>);

impl Interned {
    fn object(&mut self, key: &str, bytes: &[u8]) -> Result<(Id, Held), LoadError> {
        let id = self.id(key)?;
        let object: Value = serde_json::from_slice(bytes)
            .map_err(|e| LoadError::Object(format!("{} {}/{} is not JSON: {e}", id.resource, id.namespace, id.name)))?;
        let weighs = weight(&object);
        Ok((id, Held::new(Arc::new(object), weighs)))
    }

    fn id(&mut self, key: &str) -> Result<Id, LoadError> {
        let mut parts = key.splitn(3, '\0');
        let (Some(resource), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(LoadError::Object(format!("it has a key of another form: {key:?}")));
        };
        Ok(Id {
            resource: self.0.entry(resource.into()).or_insert_with(|| resource.into()).clone(),
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    fn change(&mut self, revision: u64, row: &str) -> Result<(Id, Packed), LoadError> {
        let malformed = || LoadError::Object(format!("the change {revision} has another form"));
        let mut parts = row.rsplitn(4, '\0');
        let (Some(before), Some(object), Some(event_type), Some(key)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let packed = Packed {
            revision,
            event_type: EventType::named(event_type).ok_or_else(malformed)?,
            object: Text::of(object),
            before: (!before.is_empty()).then(|| Text::of(before)),
        };
        Ok((self.id(key)?, packed))
    }
}

pub(super) struct Disk {
    path: PathBuf,
    opener: Opener,
    /// `None` after a failed write, until it could be opened again.
    database: Option<Database>,
    /// What the changes take.
    changes_bytes: u64,
}

impl Disk {
    pub(super) fn open(path: &Path, opener: Opener) -> Result<Self, OpenError> {
        let mut disk = Self {
            path: path.to_owned(),
            opener,
            database: None,
            changes_bytes: 0,
        };
        disk.reopen()?;
        Ok(disk)
    }

    pub(super) fn reopen(&mut self) -> Result<(), OpenError> {
        self.reopen_raw().map_err(|e| self.open_error(e))
    }

    #[allow(clippy::result_large_err)]
    fn reopen_raw(&mut self) -> Result<(), redb::Error> {
        self.database = None;
        self.database = Some((self.opener)(&self.path)?);
        Ok(())
    }

    fn open_error(&self, error: redb::Error) -> OpenError {
        let path = self.path.display().to_string();
        match error {
            redb::Error::DatabaseAlreadyOpen => OpenError::InUse { path },
            redb::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => OpenError::Corrupt {
                path,
                error: e.to_string(),
            },
            redb::Error::Io(e) => OpenError::Io {
                path,
                error: e.to_string(),
            },
            other => OpenError::Corrupt {
                path,
                error: other.to_string(),
            },
        }
    }

    /// Everything that the file holds.
    pub(super) fn load(&mut self) -> Result<Loaded, OpenError> {
        self.load_raw().map_err(|e| match e {
            LoadError::Redb(e) => self.open_error(*e),
            LoadError::Object(error) => OpenError::Corrupt {
                path: self.path.display().to_string(),
                error,
            },
        })
    }

    fn load_raw(&mut self) -> Result<Loaded, LoadError> {
        let Some(database) = &self.database else {
            return Err(LoadError::Object("it is closed".into()));
        };
        let write = database.begin_write()?;
        write.open_table(OBJECTS)?;
        write.open_table(CHANGES)?;
        write.open_table(META)?;
        write.commit()?;
        let read = database.begin_read()?;
        let meta = read.open_table(META)?;
        let revision = meta.get(REVISION)?.map_or(0, |v| v.value());
        let mut loaded = Loaded {
            revision,
            // A file that never kept changes has them from now on.
            floor: meta.get(FLOOR)?.map_or(revision, |v| v.value()),
            ..Loaded::default()
        };
        let mut tables = Interned::default();
        for entry in read.open_table(OBJECTS)?.iter()? {
            let (key, value) = entry?;
            loaded.objects.push(tables.object(key.value(), value.value())?);
        }
        self.changes_bytes = 0;
        for entry in read.open_table(CHANGES)?.iter()? {
            let (revision, row) = entry?;
            self.changes_bytes += row.value().len() as u64;
            loaded.changes.push(tables.change(revision.value(), row.value())?);
        }
        Ok(loaded)
    }

    /// Makes the batch durable, all or nothing.
    pub(super) fn commit<'a>(
        &mut self,
        revision: u64,
        changes: impl Iterator<Item = (&'a Id, &'a Event)>,
    ) -> Result<(), WriteError> {
        if self.database.is_none() {
            self.reopen_raw().map_err(|e| self.refused(&e))?;
        }
        let Some(database) = &self.database else {
            return Err(self.refused(&redb::Error::DatabaseClosed));
        };
        self.changes_bytes = write(database, revision, changes, self.changes_bytes).map_err(|e| self.refused(&e))?;
        Ok(())
    }

    fn refused(&self, error: &redb::Error) -> WriteError {
        let path = self.path.display().to_string();
        if matches!(error, redb::Error::Io(io) if is_full(io)) {
            return WriteError::Full { path };
        }
        WriteError::Storage {
            path,
            error: error.to_string(),
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge
    )
}

fn key(id: &Id) -> String {
    format!("{}\0{}\0{}", id.resource, id.namespace, id.name)
}

fn row(id: &Id, event: &Event) -> String {
    let before = event.before.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{}\0{}\0{}\0{before}", key(id), event.event_type.name(), event.object)
}

/// Writes one transaction; says what the changes take after it.
#[allow(clippy::result_large_err)]
fn write<'a>(
    database: &Database,
    revision: u64,
    changes: impl Iterator<Item = (&'a Id, &'a Event)>,
    mut bytes: u64,
) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        let mut kept = transaction.open_table(CHANGES)?;
        let mut meta = transaction.open_table(META)?;
        for (id, event) in changes {
            if event.event_type == EventType::Deleted {
                objects.remove(key(id).as_str())?;
            } else {
                objects.insert(key(id).as_str(), event.object.to_string().as_bytes())?;
            }
            let row = row(id, event);
            bytes += row.len() as u64;
            kept.insert(event.revision, row.as_str())?;
        }
        if meta.get(FLOOR)?.is_none() {
            let first = kept.first()?.map_or(revision, |(first, _)| first.value() - 1);
            meta.insert(FLOOR, first)?;
        }
        while kept.len()? > KEPT || bytes > KEPT_BYTES {
            let oldest = kept
                .pop_first()?
                .map(|(revision, row)| (revision.value(), row.value().len() as u64));
            let Some((oldest, size)) = oldest else { break };
            bytes = bytes.saturating_sub(size);
            meta.insert(FLOOR, oldest)?;
        }
        meta.insert(REVISION, revision)?;
    }
    transaction.commit()?;
    Ok(bytes)
}

enum LoadError {
    Redb(Box<redb::Error>),
    Object(String),
}

impl<E: Into<redb::Error>> From<E> for LoadError {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}
