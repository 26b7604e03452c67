//! A new quorum from the data of one member, after the majority was lost for good.
//!
//! Flow, each step leaving something that the next run finds: a copy of the member's data is started alone (`--force-new-cluster`), which
//! applies all that the member had written to its log; in it the new incarnation begins, in one transaction; what it then has is restored
//! under a new identity, started once and looked at; only then it takes the place of the member's data, which is kept. Why not one of
//! the two alone: `docs/decisions/0011-incarnations.md`.
//!
//! Invariants: the member's data is never written to, only moved aside; a quorum of the new identity without the new incarnation exists nowhere;
//! whatever was interrupted is finished by running it again, and what was finished is not begun again.

mod files;
mod process;

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use leeward_core::incarnation::Begun;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Config, Etcd, Login, connection::Connection, endpoint, wire};
use crate::{Error as QuorumError, Store as _, Txn, incarnation, pin::Pin};
use process::Alone;

/// A key that is written only to raise the revision.
const FILL: &str = "incarnation-fill";
const MEMBERS: &str = "/etcdserverpb.Cluster/MemberList";

/// How long the started copy may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no new quorum.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The member runs, or another recovery does.
    #[error("{path} is in use: stop the etcd that has it (and a recovery that is under way), then run this again")]
    InUse {
        /// The file that is locked.
        path: String,
    },
    /// There is no member's data.
    #[error("{path} holds no member of etcd ({why}): give the data directory (--data-dir) of the member that is left")]
    NotData {
        /// The directory.
        path: String,
        /// What is missing.
        why: String,
    },
    /// It is of another quorum.
    #[error(
        "the data in {path} is of etcd cluster {found:x}, and this region belongs to {known:x}: give the data of the right member; nothing was \
         changed"
    )]
    Foreign {
        /// The directory.
        path: String,
        /// Its identity.
        found: u64,
        /// The one that is known.
        known: u64,
    },
    /// A program that is needed does not do what it should.
    #[error("{program} {what}; the end of {log}:\n{end}")]
    Program {
        /// Which.
        program: String,
        /// What became of it.
        what: String,
        /// Where it wrote.
        log: String,
        /// The last lines of that.
        end: String,
    },
    /// A file cannot be used.
    #[error("cannot {action} {path}: {source}; remove the cause and run this again")]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no later incarnation.
    #[error("this is the last incarnation that an epoch has room for")]
    Last,
    /// The copy does not answer as it should.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
}

/// What is to be recovered.
pub struct Recovery {
    /// The data directory of the member that is left; nothing else may run on it.
    pub data: PathBuf,
    /// The program `etcd`.
    pub etcd: PathBuf,
    /// The program that restores snapshots: `etcdutl`, or `etcdctl` before etcd 3.6.
    pub restore: PathBuf,
    /// What every key begins with.
    pub prefix: String,
    /// A user that may read and write all of these keys, where etcd asks for one.
    pub login: Option<Login>,
    /// Which quorum the region belongs to, where that is known.
    pub known: Option<Pin>,
    /// What is lost for good.
    pub lost: BTreeSet<String>,
    /// Wall clock, Unix ms; for the record.
    pub now_ms: u64,
    /// What makes the new identity another one than any before.
    pub token: String,
}

/// A step that is done, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The member's data is copied.
    Copied,
    /// The copy is of the new incarnation.
    Begun,
    /// It has a new identity, and was looked at.
    Restored,
    /// The member's data is moved aside.
    MovedAside,
    /// The new data is in its place.
    InPlace,
}

/// What a new incarnation is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    begun: Begun,
    token: String,
    peer_urls: Vec<String>,
    /// How many revisions the member's copy lacks that this region has seen.
    behind: u64,
}

/// The new quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// Its identity.
    pub cluster: u64,
    /// Its newest revision.
    pub revision: u64,
    /// Its incarnation.
    pub begun: Begun,
    /// How many of the old quorum's changes that this region had seen are not in it: the member that is left had not heard of them.
    pub behind: u64,
}

impl Renewed {
    /// What this region is to know of it.
    pub fn pin(&self) -> Pin {
        Pin {
            cluster: self.cluster,
            incarnation: self.begun.number,
            revision: self.revision,
        }
    }
}

impl Recovery {
    /// What an earlier run finished and nobody has used yet: this region has not seen anything of it beyond what that run left.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn finished(&self) -> Result<Option<Renewed>, Error> {
        let Some(known) = self.known else { return Ok(None) };
        let record: Option<Renewed> = self.load(&self.kept(known.incarnation.0).join("new.json"))?;
        Ok(record.filter(|renewed| renewed.pin() == known))
    }

    /// Makes the new quorum's data, or finishes making it. `after` is told of each step; an error of it ends everything there, as a kill would.
    ///
    /// # Errors
    /// Why not. Running it again goes on.
    pub async fn run(&self, after: &mut dyn FnMut(Step) -> Result<(), Error>) -> Result<Renewed, Error> {
        let work = self.work();
        files::private_directory(&work)?;
        let _only_one = files::lock(&work.join("lock"))?;
        let _not_running = self.lock_data()?;
        if !work.join("raised").exists() && !work.join("new.json").exists() {
            self.check_data()?;
            self.begin(after).await?;
        }
        if !work.join("new.json").exists() {
            self.restore(after).await?;
        }
        let renewed: Option<Renewed> = self.load(&work.join("new.json"))?;
        let renewed = renewed.ok_or_else(|| self.lacks("new.json"))?;
        self.put_in_place(after)?;
        Ok(renewed)
    }

    /// Ends it, once this region knows the new quorum's identity. Where the old data is kept.
    ///
    /// # Errors
    /// A directory cannot be moved.
    pub fn finish(&self, renewed: &Renewed) -> Result<PathBuf, Error> {
        let (work, kept) = (self.work(), self.kept(renewed.begun.number.0));
        files::remove(&work.join("raised"))?;
        files::rename(&work, &kept)?;
        Ok(kept)
    }

    fn beside(&self, what: &str) -> PathBuf {
        let mut name = self.data.file_name().unwrap_or_default().to_owned();
        name.push(what);
        self.data.with_file_name(name)
    }

    fn work(&self) -> PathBuf {
        self.beside(".recovery")
    }

    fn kept(&self, incarnation: u32) -> PathBuf {
        self.beside(&format!(".before-incarnation-{incarnation}"))
    }

    fn lacks(&self, what: &str) -> Error {
        Error::NotData {
            path: self.data.display().to_string(),
            why: format!("it has no {what}"),
        }
    }

    fn check_data(&self) -> Result<(), Error> {
        match ["member/snap/db", "member/wal"]
            .iter()
            .find(|part| !self.data.join(part).exists())
        {
            Some(part) => Err(self.lacks(part)),
            None => Ok(()),
        }
    }

    /// Held until the new data is in its place, so that nobody starts the member on the old one meanwhile.
    fn lock_data(&self) -> Result<Option<File>, Error> {
        let database = self.data.join("member/snap/db");
        database.exists().then(|| files::lock(&database)).transpose()
    }

    fn load<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, Error> {
        let Some(text) = files::read(path)? else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&text).map_err(std::io::Error::other);
        value.map(Some).map_err(files::fault("read", path))
    }

    /// A copy of the member's data, started alone, in which the incarnation begins.
    async fn begin(&self, after: &mut dyn FnMut(Step) -> Result<(), Error>) -> Result<(), Error> {
        let work = self.work();
        let copy = work.join("copy");
        files::remove(&copy)?;
        files::copy(&self.data, &copy)?;
        after(Step::Copied)?;
        let alone = Alone::start(&self.etcd, &copy, &work.join("etcd.log"), true)?;
        let etcd = Etcd::new(self.config(&alone))?;
        let there = alone.until(|| etcd.changes(0, Duration::ZERO)).await?;
        if let Some(known) = self.known
            && known.cluster != etcd.cluster()
        {
            return Err(Error::Foreign {
                path: self.data.display().to_string(),
                found: etcd.cluster(),
                known: known.cluster,
            });
        }
        let now = incarnation::of(&there.entries);
        let now = self.known.map_or(now, |known| known.incarnation.max(now));
        let begun = Begun {
            number: now.next().ok_or(Error::Last)?,
            lost: self.lost.clone(),
            began_ms: self.now_ms,
        };
        let origin = Origin {
            peer_urls: self.peer_urls(&alone).await?,
            token: format!("leeward-{}-{}", begun.number, self.token),
            behind: self
                .known
                .map_or(0, |known| known.revision.saturating_sub(there.revision)),
            begun,
        };
        // What this region holds of the old quorum names revisions up to the one that it saw; none of them may stand for something else.
        for _ in 0..origin.behind {
            etcd.txn(Txn::default().put(FILL, &origin.begun.number)?).await?;
        }
        if let Some(txn) = incarnation::begin(&there.entries, &origin.begun)?
            && !etcd.txn(txn).await?.applied
        {
            let why = "somebody else wrote to the copy that was started for the recovery alone".to_owned();
            return Err(QuorumError::Refused(why).into());
        }
        alone.stop()?;
        files::write_json(&work.join("origin.json"), &origin)?;
        files::rename(&copy, &work.join("raised"))?;
        after(Step::Begun)
    }

    /// The same content under a new identity, started once to see that it is what it should be.
    async fn restore(&self, after: &mut dyn FnMut(Step) -> Result<(), Error>) -> Result<(), Error> {
        let work = self.work();
        let origin: Option<Origin> = self.load(&work.join("origin.json"))?;
        let origin = origin.ok_or_else(|| self.lacks("origin.json"))?;
        let new = work.join("new");
        files::remove(&new)?;
        let members: Vec<String> = origin.peer_urls.iter().map(|url| format!("recovered={url}")).collect();
        let arguments = [
            "snapshot".to_owned(),
            "restore".to_owned(),
            work.join("raised/member/snap/db").display().to_string(),
            "--skip-hash-check".to_owned(),
            format!("--data-dir={}", new.display()),
            "--name=recovered".to_owned(),
            format!("--initial-cluster={}", members.join(",")),
            format!("--initial-advertise-peer-urls={}", origin.peer_urls.join(",")),
            format!("--initial-cluster-token={}", origin.token),
        ];
        process::run(&self.restore, &arguments, &work.join("restore.log"))?;
        let alone = Alone::start(&self.etcd, &new, &work.join("etcd.log"), false)?;
        let etcd = Etcd::new(self.config(&alone))?;
        let there = alone.until(|| etcd.changes(0, Duration::ZERO)).await?;
        if incarnation::of(&there.entries) != origin.begun.number {
            let why = format!("what was restored is not of incarnation {}", origin.begun.number);
            return Err(QuorumError::Refused(why).into());
        }
        alone.stop()?;
        files::give(&new, &self.data)?;
        let renewed = Renewed {
            cluster: etcd.cluster(),
            revision: there.revision,
            begun: origin.begun,
            behind: origin.behind,
        };
        files::write_json(&work.join("new.json"), &renewed)?;
        after(Step::Restored)
    }

    fn put_in_place(&self, after: &mut dyn FnMut(Step) -> Result<(), Error>) -> Result<(), Error> {
        let (new, old) = (self.work().join("new"), self.work().join("old"));
        if !new.exists() {
            return Ok(());
        }
        if self.data.exists() {
            files::rename(&self.data, &old)?;
            after(Step::MovedAside)?;
        }
        files::rename(&new, &self.data)?;
        after(Step::InPlace)
    }

    fn config(&self, alone: &Alone) -> Config {
        Config {
            endpoints: vec![alone.url.clone()],
            tls: None,
            login: self.login.clone(),
            prefix: self.prefix.clone(),
            timeout: PATIENCE,
            cluster: 0,
            revision: 0,
        }
    }

    /// Where the other members are to reach the one that is left, as it was told.
    async fn peer_urls(&self, alone: &Alone) -> Result<Vec<String>, Error> {
        let config = self.config(alone);
        let connection = Connection::new(vec![endpoint(&alone.url, &config)?], config.login, PATIENCE, (0, 0));
        let answer: wire::MemberListResponse = connection.ask(MEMBERS, wire::Empty {}).await?;
        match <[wire::Member; 1]>::try_from(answer.members) {
            Ok([member]) => Ok(member.peer_urls),
            Err(members) => {
                let why = format!("the copy has {} members in place of one", members.len());
                Err(QuorumError::Refused(why).into())
            }
        }
    }
}
