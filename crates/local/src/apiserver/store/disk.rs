//! The file: one table of objects as JSON, one of what was deleted last, one of revisions, in redb.
//!
//! What was deleted is kept for watches that resume after a restart: of what still exists the newest state tells enough.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde_json::Value;

use super::state::{Event, EventType};
use super::{Id, WriteError};

const OBJECTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// Deletions by revision: the object's key, a zero byte, its last state.
const DELETED: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("deleted");
const REVISION: &str = "revision";
/// The newest deletion that is no longer kept.
const FLOOR: &str = "floor";
/// Deletions that are kept.
const KEPT: u64 = 1024;

/// Everything is in memory, so the file's own cache may be small. Bytes.
const CACHE: usize = 4 << 20;

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
    /// Deletions up to this revision are forgotten.
    pub(super) floor: u64,
    pub(super) objects: Vec<(Id, Value)>,
    /// The last deletions, oldest first.
    pub(super) deleted: Vec<(u64, Id, Value)>,
}

/// The names of tables, each allocated once.
#[derive(Default)]
struct Interned(HashMap<String, Arc<str>>);

impl Interned {
    fn object(&mut self, key: &str, bytes: &[u8]) -> Result<(Id, Value), LoadError> {
        let mut parts = key.splitn(3, '\0');
        let (Some(resource), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(LoadError::Object(format!("it has a key of another form: {key:?}")));
        };
        let object = serde_json::from_slice(bytes)
            .map_err(|e| LoadError::Object(format!("{resource} {namespace}/{name} is not JSON: {e}")))?;
        let resource = self.0.entry(resource.into()).or_insert_with(|| resource.into()).clone();
        Ok((
            Id {
                resource,
                namespace: namespace.into(),
                name: name.into(),
            },
            object,
        ))
    }
}

pub(super) struct Disk {
    path: PathBuf,
    opener: Opener,
    /// `None` after a failed write, until it could be opened again.
    database: Option<Database>,
}

impl Disk {
    pub(super) fn open(path: &Path, opener: Opener) -> Result<Self, OpenError> {
        let mut disk = Self {
            path: path.to_owned(),
            opener,
            database: None,
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
        write.open_table(DELETED)?;
        write.open_table(META)?;
        write.commit()?;
        let read = database.begin_read()?;
        let meta = read.open_table(META)?;
        let mut loaded = Loaded {
            revision: meta.get(REVISION)?.map_or(0, |v| v.value()),
            floor: meta.get(FLOOR)?.map_or(0, |v| v.value()),
            ..Loaded::default()
        };
        let mut tables = Interned::default();
        for entry in read.open_table(OBJECTS)?.iter()? {
            let (key, value) = entry?;
            loaded.objects.push(tables.object(key.value(), value.value())?);
        }
        for entry in read.open_table(DELETED)?.iter()? {
            let (revision, value) = entry?;
            let bytes = value.value();
            let split = bytes.iter().position(|b| *b == b'{').unwrap_or(bytes.len());
            let (key, object) = bytes.split_at(split);
            let key = std::str::from_utf8(key).map_err(|e| LoadError::Object(e.to_string()))?;
            let (id, object) = tables.object(key.trim_end_matches('\0'), object)?;
            loaded.deleted.push((revision.value(), id, object));
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
        write(database, revision, changes).map_err(|e| self.refused(&e))
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

#[allow(clippy::result_large_err)]
fn write<'a>(
    database: &Database,
    revision: u64,
    changes: impl Iterator<Item = (&'a Id, &'a Event)>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        let mut deleted = transaction.open_table(DELETED)?;
        let mut meta = transaction.open_table(META)?;
        for (id, event) in changes {
            if event.event_type == EventType::Deleted {
                objects.remove(key(id).as_str())?;
                deleted.insert(event.revision, format!("{}\0{}", key(id), event.object).as_bytes())?;
            } else {
                objects.insert(key(id).as_str(), event.object.to_string().as_bytes())?;
            }
        }
        while deleted.len()? > KEPT {
            let Some(oldest) = deleted.pop_first()?.map(|(revision, _)| revision.value()) else {
                break;
            };
            meta.insert(FLOOR, oldest)?;
        }
        meta.insert(REVISION, revision)?;
    }
    transaction.commit()?;
    Ok(())
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
