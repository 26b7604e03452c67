//! Which quorum this process knows, kept in a file: its identity, its incarnation, and the highest revision that was seen of it. A restarted
//! agent refuses another quorum, or an older state of the same one, as it did before.
//!
//! Flow: [`read`] gives what the driver begins with; [`Pinned`] stands before the driver and has the file written before it passes an
//! answer on. Several answers that wait at the same time are written once. Once a person has written another quorum of a later incarnation into
//! the file, [`Pinned`] goes over to it, and has whoever follows read all of it anew.
//!
//! Invariants: nothing rests on an answer whose identity and incarnation are not in the file, nor on one whose revision is not, unless the
//! file cannot be written: a full disk is no reason to lose a lease; the file is replaced as a whole, and never by an older revision or by
//! the quorum of an earlier incarnation; a file that cannot be read is left as it is.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use leeward_core::name::Incarnation;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::{
    Answer, Changes, Entry, Error, Outcome, Store, Txn,
    etcd::{Config, Etcd, Login, Tls},
    incarnation,
};

/// The file's name in the agent's data directory.
pub const FILE: &str = "quorum.json";

/// What is in the file, and whether it could not be written last.
#[derive(Debug, Default)]
struct Kept {
    pin: Option<Pin>,
    failing: bool,
}

/// What is known of the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The identity of the etcd cluster.
    pub cluster: u64,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The highest revision that was seen.
    pub revision: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    cluster: String,
    incarnation: Incarnation,
    revision: u64,
    /// Of the others, so that a damaged digit is noticed.
    digest: String,
}

impl Pin {
    fn digest(&self) -> String {
        let text = format!("{:x} {} {}", self.cluster, self.incarnation, self.revision);
        hex::encode(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..8])
    }
}

/// The file in a data directory.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Reads the file; none where there is none.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read(path: &Path) -> Result<Option<Pin>, Error> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(path, &format!("{error}; let the agent read and write it"))),
    };
    let damaged = || {
        fault(
            path,
            "it says which quorum this region belongs to, and is damaged, so no quorum can be trusted and nothing was changed; look at the \
             quorum (`leeward quorum status`, and the same file in another region), then write it anew with `leeward quorum adopt --cluster \
             IDENTITY`",
        )
    };
    let form: Form = serde_json::from_str(&text).map_err(|_| damaged())?;
    let cluster = u64::from_str_radix(&form.cluster, 16).map_err(|_| damaged())?;
    let pin = Pin {
        cluster,
        incarnation: form.incarnation,
        revision: form.revision,
    };
    if pin.digest() != form.digest {
        return Err(damaged());
    }
    Ok(Some(pin))
}

/// Replaces the file: after a crash it is the old one or the new one.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, pin: Pin) -> Result<(), Error> {
    let form = Form {
        cluster: format!("{:x}", pin.cluster),
        incarnation: pin.incarnation,
        revision: pin.revision,
        digest: pin.digest(),
    };
    let next = path.with_extension("json.new");
    let written = serde_json::to_vec(&form).map_err(io::Error::other).and_then(|text| {
        let mut file = File::create(&next)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    });
    written.map_err(|error| {
        fault(
            path,
            &format!("{error}; until it can be written nothing is decided and no lease is renewed here: make space, or let the agent write it"),
        )
    })
}

fn fault(path: &Path, reason: &str) -> Error {
    Error::Storage {
        path: path.display().to_string(),
        reason: reason.to_owned(),
    }
}

/// A quorum on etcd whose identity and revision are kept.
pub struct Pinned {
    settings: Mutex<Config>,
    path: Arc<Path>,
    store: Mutex<Arc<Etcd>>,
    /// Locked while the file is written.
    kept: Arc<Mutex<Kept>>,
    /// The quorum was begun anew, and who follows it has not read it yet.
    unread: AtomicBool,
}

impl Pinned {
    /// The quorum of these settings, of which what is known is kept in the file `path`.
    ///
    /// # Errors
    /// The settings cannot be used, or the file is damaged.
    pub fn open(settings: Config, path: &Path) -> Result<Self, Error> {
        let pin = read(path)?;
        Ok(Self {
            store: Mutex::new(Arc::new(connect(&settings, pin)?)),
            settings: Mutex::new(settings),
            path: path.into(),
            kept: Arc::new(Mutex::new(Kept { pin, ..Kept::default() })),
            unread: AtomicBool::new(false),
        })
    }

    /// Shows and trusts these certificates, and logs in so, at every connection from now on; what is open stays open.
    ///
    /// # Errors
    /// One of them cannot be used; then all is as before.
    pub fn renew(&self, tls: Option<Tls>, login: Option<Login>) -> Result<(), Error> {
        let mut settings = lock(&self.settings);
        let next = Config {
            tls,
            login,
            ..settings.clone()
        };
        self.store().renew(&next)?;
        *settings = next;
        Ok(())
    }

    fn store(&self) -> Arc<Etcd> {
        Arc::clone(&lock(&self.store))
    }

    async fn keep(&self, store: &Etcd, revision: u64, entries: &[Entry]) -> Result<(), Error> {
        let seen = Pin {
            cluster: store.cluster(),
            incarnation: incarnation::of(entries),
            revision,
        };
        let (path, kept) = (Arc::clone(&self.path), Arc::clone(&self.kept));
        let written = tokio::task::spawn_blocking(move || keep(&path, &kept, seen)).await;
        written.map_err(|error| Error::Unreachable(error.to_string()))?
    }

    /// Goes over to another quorum where the file names one of a later incarnation: a person began it.
    fn judge(&self, error: Error) -> Error {
        let Error::Replaced(why) = error else { return error };
        let before = lock(&self.kept).pin;
        match read(&self.path) {
            Ok(Some(there)) if before.is_some_and(|before| there.incarnation > before.incarnation) => {
                let settings = lock(&self.settings).clone();
                match connect(&settings, Some(there)) {
                    Ok(store) => {
                        // In this order: what is sent to the new one is refused until it was read.
                        self.unread.store(true, Ordering::SeqCst);
                        lock(&self.kept).pin = Some(there);
                        *lock(&self.store) = Arc::new(store);
                        tracing::warn!(incarnation = %there.incarnation, "the quorum was begun anew");
                        unread()
                    }
                    Err(error) => error,
                }
            }
            Err(error @ Error::Storage { .. }) => error,
            _ => Error::Replaced(format!("{why}; {} says which one is right", self.path.display())),
        }
    }

    async fn run(&self, txn: Txn) -> Result<Outcome, Error> {
        let store = self.store();
        // What was decided on the old one's content is not for the new one.
        if self.unread.load(Ordering::SeqCst) {
            return Err(unread());
        }
        let outcome = store.txn(txn).await?;
        self.keep(&store, outcome.revision, &outcome.entries).await?;
        Ok(outcome)
    }

    async fn follow(&self, after: u64, wait: Duration) -> Result<Changes, Error> {
        if self.unread.load(Ordering::SeqCst) && after > 0 {
            // As of a store that went back: nothing of what was known is kept.
            return Ok(Changes {
                revision: 0,
                entries: Vec::new(),
                whole: false,
            });
        }
        let store = self.store();
        let changes = store.changes(after, wait).await?;
        self.keep(&store, changes.revision, &changes.entries).await?;
        if after == 0 && Arc::ptr_eq(&store, &self.store()) {
            self.unread.store(false, Ordering::SeqCst);
        }
        Ok(changes)
    }
}

fn unread() -> Error {
    Error::Unreachable("it was begun anew, and is read first".to_owned())
}

fn connect(settings: &Config, pin: Option<Pin>) -> Result<Etcd, Error> {
    Etcd::new(Config {
        cluster: pin.map_or(0, |pin| pin.cluster),
        revision: pin.map_or(0, |pin| pin.revision),
        ..settings.clone()
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each guarded value is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the file say what was seen. An older revision does where it cannot be written, another quorum does not.
fn keep(path: &Path, kept: &Mutex<Kept>, seen: Pin) -> Result<(), Error> {
    let mut kept = lock(kept);
    if kept.pin.is_some_and(|kept| kept.cluster != seen.cluster) {
        return Err(Error::Replaced(format!(
            "cluster {:x} answered before it was begun anew",
            seen.cluster
        )));
    }
    let next = kept.pin.map_or(seen, |kept| Pin {
        cluster: seen.cluster,
        incarnation: kept.incarnation.max(seen.incarnation),
        revision: kept.revision.max(seen.revision),
    });
    if kept.pin == Some(next) {
        return Ok(());
    }
    // A person may have begun another incarnation meanwhile: what is written then is not to be undone.
    if let (Some(there), Some(kept)) = (read(path)?, kept.pin)
        && there.cluster != kept.cluster
    {
        return Err(Error::Replaced(format!(
            "{} names cluster {:x} since, and {:x} answers",
            path.display(),
            there.cluster,
            kept.cluster
        )));
    }
    let same = kept.pin.is_some_and(|kept| kept.incarnation == next.incarnation);
    match write(path, next) {
        Ok(()) => kept.pin = Some(next),
        Err(error) if same => {
            if !kept.failing {
                tracing::warn!(%error, "the newest revision of the quorum is not kept");
            }
            kept.failing = true;
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    kept.failing = false;
    Ok(())
}

impl Store for Pinned {
    fn txn(&self, txn: Txn) -> Answer<'_, Outcome> {
        Box::pin(async move { self.run(txn).await.map_err(|error| self.judge(error)) })
    }

    fn changes(&self, after: u64, wait: Duration) -> Answer<'_, Changes> {
        Box::pin(async move { self.follow(after, wait).await.map_err(|error| self.judge(error)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(revision: u64) -> Pin {
        Pin {
            cluster: 0xabc,
            incarnation: Incarnation(1),
            revision,
        }
    }

    fn of(pin: Pin) -> Mutex<Kept> {
        Mutex::new(Kept {
            pin: Some(pin),
            ..Kept::default()
        })
    }

    #[test]
    fn where_the_file_cannot_be_written_an_older_revision_does_but_no_other_incarnation() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path());
        write(&path, pin(7)).unwrap();
        // Whatever is to be written stands in the way.
        fs::create_dir(path.with_extension("json.new")).unwrap();
        let kept = of(pin(7));
        keep(&path, &kept, pin(8)).unwrap();
        let later = Pin {
            incarnation: Incarnation(2),
            ..pin(9)
        };
        assert!(matches!(keep(&path, &kept, later), Err(Error::Storage { .. })));
        assert_eq!(read(&path).unwrap(), Some(pin(7)));
    }

    #[test]
    fn a_damaged_file_is_named_with_what_to_do_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path());
        assert_eq!(read(&path).unwrap(), None);
        write(&path, pin(71)).unwrap();
        assert_eq!(read(&path).unwrap(), Some(pin(71)));
        let whole = fs::read_to_string(&path).unwrap();
        for damaged in [
            String::new(),
            whole[..whole.len() / 2].to_owned(),
            whole.replace("71", "17"),
        ] {
            fs::write(&path, &damaged).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(
                error.contains("quorum.json") && error.contains("quorum adopt"),
                "{error}"
            );
            assert!(keep(&path, &of(pin(71)), pin(80)).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn what_is_kept_never_goes_back_and_a_new_incarnation_is_not_undone() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path());
        let kept = Mutex::default();
        keep(&path, &kept, pin(7)).unwrap();
        keep(&path, &kept, pin(5)).unwrap();
        assert_eq!(read(&path).unwrap(), Some(pin(7)));
        // What a process was killed in the middle of is not taken for the file.
        fs::write(path.with_extension("json.new"), "{").unwrap();
        assert_eq!(read(&path).unwrap(), Some(pin(7)));
        let other = Pin {
            cluster: 0xdef,
            incarnation: Incarnation(2),
            revision: 3,
        };
        write(&path, other).unwrap();
        let error = keep(&path, &kept, pin(8)).unwrap_err();
        assert!(
            matches!(&error, Error::Replaced(why) if why.contains("names cluster def")),
            "{error}"
        );
        assert_eq!(read(&path).unwrap(), Some(other));
    }
}
