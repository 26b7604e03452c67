//! An instance: a set of local regions with their witness on this machine, in a directory of its own.
//!
//! The directory is the truth. `instance.json` says what the instance is and is written last when it is made, so a making that
//! was cut short is recognised and done again; `processes.json` says what was started. Commands of several programs may follow one
//! another on the same directory: each that changes something holds `lock` while it does.
//!
//! Flow: [`Instance::create`] writes certificates, tokens and configuration; [`Instance::start_region`] and
//! [`Instance::start_witness`] start what is not running; [`Instance::stop_all`] ends it with all that it started.

pub mod addresses;
pub mod config;
mod faults;
pub mod files;
mod locks;
mod making;
pub mod network;
pub mod processes;
pub mod quorum;
mod starting;
mod stopping;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use leeward_pki as pki;
use serde::{Deserialize, Serialize};

use self::{
    addresses::{Octet, RegionAddresses},
    config::{Layout, Region},
    locks::{absolute, lock, turn},
    network::{Isolated, Network},
    processes::{Children, Record, Usage},
    quorum::Begun,
};

/// What can go wrong with an instance. Only [`Error::Taken`], [`Error::File`] and [`Error::NotReady`] may pass by themselves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// An address is in use.
    #[error(transparent)]
    Taken(#[from] addresses::Taken),
    /// The regions could not be given networks of their own.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// A certificate could not be made.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// The directory holds something else.
    #[error("{} is not empty and holds no local regions; choose another directory, or empty it", .0.display())]
    Foreign(PathBuf),
    /// The directory holds an instance already.
    #[error("{} already holds local regions ({}); use them, or `leeward down` first", .0.display(), .1.join(", "))]
    Exists(PathBuf, Vec<String>),
    /// There is no instance in the directory.
    #[error("there are no local regions in {}; `leeward up` makes some", .0.display())]
    Missing(PathBuf),
    /// The making of the instance was cut short.
    #[error("the local regions in {} were never completed; `leeward up` makes them again, `leeward down` removes them", .0.display())]
    Incomplete(PathBuf),
    /// A state file cannot be read.
    #[error(
        "{} is damaged ({reason}); `leeward down` ends what runs and removes the local regions, `leeward up` makes new ones",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A region's name is not usable, or there are too many.
    #[error("{0}")]
    Regions(String),
    /// No such region.
    #[error("there is no region {name:?} here; the regions are {}", regions.join(", "))]
    UnknownRegion {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        regions: Vec<String>,
    },
    /// No such process.
    #[error("no process {0:?} is running here")]
    UnknownProcess(String),
    /// A process could not be started.
    #[error("cannot start {name}: {source}; see {}", log.display())]
    Start {
        /// The process.
        name: String,
        /// Its log.
        log: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A process ended while it was waited for.
    #[error("{name} has ended; its last lines were:\n{tail}")]
    Ended {
        /// The process.
        name: String,
        /// The end of its log.
        tail: String,
    },
    /// A region's API did not answer in time.
    #[error("the API of region {region} was not ready within {limit:?}: {reason}; see {}", log.display())]
    NotReady {
        /// The region.
        region: String,
        /// How long it was waited for.
        limit: Duration,
        /// The last answer.
        reason: String,
        /// The log of the API process.
        log: PathBuf,
    },
    /// Some processes would not end.
    #[error("these processes did not end although they were killed: {0:?}")]
    Left(Vec<i32>),
}

/// How an instance is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes in each region, 1 to [`addresses::MAX_NODES`].
    pub nodes_per_region: u8,
    /// The TTL of a region's lease.
    pub lease_ttl: Duration,
    /// Whether every process dies together with this program, even when it is killed.
    pub dies_with_owner: bool,
    /// The program to start; none for this one.
    pub program: Option<PathBuf>,
    /// The program etcd, of which a member runs in each region and beside the witness; without it the witness keeps an embedded quorum.
    pub etcd: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes_per_region: 2,
            lease_ttl: Duration::from_secs(15),
            dies_with_owner: false,
            program: None,
            etcd: None,
        }
    }
}

/// What an instance is, as `instance.json` has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    version: u32,
    octet: Octet,
    nodes: u8,
    regions: Vec<String>,
    /// Milliseconds. Instances that were made before this was kept have the usual one.
    #[serde(default = "usual_ttl_ms")]
    lease_ttl_ms: u64,
    /// The program of the quorum's members; none for an embedded quorum.
    #[serde(default)]
    etcd: Option<PathBuf>,
    /// Once the quorum was begun anew: how. The members from before it are no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun: Option<Begun>,
}

fn usual_ttl_ms() -> u64 {
    15_000
}

const STATE_VERSION: u32 = 1;

/// A set of local regions with their witness.
#[derive(Debug)]
pub struct Instance {
    layout: Layout,
    state: State,
    dies_with_owner: bool,
    program: PathBuf,
    network: Option<Network>,
    children: Mutex<Children>,
}

impl Instance {
    /// Makes the directory with everything that the processes need; starts nothing.
    ///
    /// A directory in which a making was cut short is made again. One that holds a complete instance or something else is refused.
    pub fn create(dir: &Path, regions: &[&str], options: &Options) -> Result<Self, Error> {
        making::check_names(regions)?;
        if !(1..=addresses::MAX_NODES).contains(&options.nodes_per_region) {
            return Err(Error::Regions(format!(
                "a region has 1 to {} nodes, not {}",
                addresses::MAX_NODES,
                options.nodes_per_region
            )));
        }
        if let Some(parent) = absolute(dir)?.parent() {
            std::fs::create_dir_all(parent).map_err(files::fault("make the directory", parent))?;
        }
        let _turn = turn(dir)?;
        match Self::open(dir) {
            Ok(there) => return Err(Error::Exists(dir.to_owned(), there.state.regions)),
            Err(Error::Incomplete(_)) => {
                stopping::stop_marked(dir)?;
                files::remove(dir)?;
            }
            Err(Error::Missing(_)) => {}
            Err(other) => return Err(other),
        }
        files::directory(dir)?;
        let layout = Layout::new(absolute(dir)?);
        files::write(&layout.marker(), b"local regions of leeward\n")?;
        let _lock = lock(&layout)?;
        if layout.state().exists() {
            // Another command has made it in the meantime.
            return Err(Error::Exists(dir.to_owned(), Self::open(dir)?.state.regions));
        }
        let state = making::make(&layout, regions, options)?;
        Ok(Self::with(layout, state, options))
    }

    /// Opens the instance in a directory. What it starts outlives this program.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let missing = || Error::Missing(dir.to_owned());
        if !dir.exists() {
            return Err(missing());
        }
        let layout = Layout::new(absolute(dir)?);
        let path = layout.state();
        let text = match files::read(&path) {
            Err(error) if error.is_missing() => {
                let empty = std::fs::read_dir(dir)
                    .map_err(files::fault("read", dir))?
                    .next()
                    .is_none();
                return Err(match (layout.marker().exists(), empty) {
                    (true, _) => Error::Incomplete(dir.to_owned()),
                    (false, true) => missing(),
                    (false, false) => Error::Foreign(dir.to_owned()),
                });
            }
            other => other?,
        };
        let corrupt = |reason: String| Error::Corrupt {
            path: path.clone(),
            reason,
        };
        let state: State = serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))?;
        if state.version != STATE_VERSION {
            return Err(corrupt(format!(
                "it is of version {}, this program knows version {STATE_VERSION}",
                state.version
            )));
        }
        let names: Vec<&str> = state.regions.iter().map(String::as_str).collect();
        making::check_names(&names).map_err(|error| corrupt(error.to_string()))?;
        if !(1..=addresses::MAX_NODES).contains(&state.nodes) || matches!(state.octet.0, 0 | 255) {
            return Err(corrupt(
                "the number of nodes or the addresses are out of range".to_owned(),
            ));
        }
        Ok(Self::with(layout, state, &Options::default()))
    }

    fn with(layout: Layout, state: State, options: &Options) -> Self {
        Self {
            layout,
            state,
            dies_with_owner: options.dies_with_owner,
            program: options.program.clone().unwrap_or_else(|| "/proc/self/exe".into()),
            network: None,
            children: Mutex::default(),
        }
    }

    /// Starts `program` instead of this one.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Gives each region and the witness a network of its own, for as long as this value lives. To be done before anything is started.
    pub fn separate(&mut self, isolated: Isolated) -> Result<(), Error> {
        self.network = Some(Network::make(isolated, self.state.octet, &self.state.regions)?);
        Ok(())
    }

    /// The networks of the regions, where they have some of their own.
    pub fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// Where the files lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The names of the regions, in the order in which they were given.
    pub fn regions(&self) -> &[String] {
        &self.state.regions
    }

    /// The TTL of a region's lease.
    pub fn lease_ttl(&self) -> Duration {
        Duration::from_millis(self.state.lease_ttl_ms)
    }

    /// Whether the quorum is on etcd, with a member in each region and one beside the witness.
    pub fn is_on_etcd(&self) -> bool {
        self.state.etcd.is_some()
    }

    /// How the quorum was begun anew, where it was.
    pub fn begun(&self) -> Option<&Begun> {
        self.state.begun.as_ref()
    }

    /// Writes down that the quorum was begun anew from a region's member: the other members are not started any more, since they would be a
    /// quorum of their own.
    ///
    /// # Errors
    /// The instance is gone, or its state cannot be written.
    pub fn begin_anew(&mut self, begun: Begun) -> Result<(), Error> {
        self.addresses(&begun.region)?;
        let _lock = lock(&self.layout)?;
        let state = State {
            begun: Some(begun),
            ..self.state.clone()
        };
        files::write_json(&self.layout.state(), &state)?;
        self.state = state;
        Ok(())
    }

    /// Whether the quorum has a member in this region, or beside the witness where none is given.
    pub fn has_member(&self, region: Option<&str>) -> bool {
        let begun = self.state.begun.as_ref();
        self.is_on_etcd() && begun.is_none_or(|begun| region == Some(&begun.region))
    }

    /// Where clients reach the member of the quorum in this region, or beside the witness where none is given, and where the others do.
    pub fn member_addresses(&self, region: Option<&str>) -> Result<(SocketAddr, SocketAddr), Error> {
        Ok(match region {
            Some(region) => self.addresses(region)?.etcd(),
            None => self.state.octet.etcd(),
        })
    }

    /// Nodes in each region.
    pub fn nodes_per_region(&self) -> u8 {
        self.state.nodes
    }

    /// The address of the witness.
    pub fn witness_address(&self) -> SocketAddr {
        self.state.octet.witness()
    }

    /// Where the witness is looked at.
    pub fn witness_metrics(&self) -> SocketAddr {
        self.state.octet.witness_metrics()
    }

    /// The addresses of a region.
    pub fn addresses(&self, region: &str) -> Result<RegionAddresses, Error> {
        let index = self.state.regions.iter().position(|name| name == region);
        index
            .and_then(|index| self.state.octet.region(u8::try_from(index + 1).ok()?))
            .ok_or_else(|| Error::UnknownRegion {
                name: region.to_owned(),
                regions: self.state.regions.clone(),
            })
    }

    /// The path of a region's kubeconfig.
    pub fn kubeconfig(&self, region: &str) -> Result<PathBuf, Error> {
        self.addresses(region)?;
        Ok(self.layout.kubeconfig(region))
    }

    fn children(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> Result<Vec<Record>, Error> {
        read_records(&self.layout)
    }

    /// The processes that run now.
    pub fn processes(&self) -> Result<Vec<Record>, Error> {
        self.children().reap();
        let mut records = self.records()?;
        records.retain(Record::is_alive);
        Ok(records)
    }

    /// What a region's processes use now, its applications' excepted.
    pub fn usage(&self, region: &str) -> Result<Usage, Error> {
        let mut records = self.processes()?;
        records.retain(|record| record.region.as_deref() == Some(region));
        Ok(processes::usage(&records))
    }

    /// Ends every process of the instance and what it started: asks, and kills after 3 s. Returns when all are gone.
    pub fn stop_all(&self) -> Result<(), Error> {
        let _lock = lock(&self.layout)?;
        let records = self.records().unwrap_or_default();
        stopping::stop(self.layout.dir(), &records, || self.children().reap())?;
        Ok(files::write_json(&self.layout.processes(), &Vec::<Record>::new())?)
    }

    /// Ends everything and removes the directory.
    pub fn remove(self) -> Result<(), Error> {
        self.stop_all()?;
        Ok(files::remove(self.layout.dir())?)
    }

    /// Ends what runs of the instance in this directory and removes it, also when it is incomplete or damaged. A directory that
    /// holds something else is refused.
    pub fn remove_dir(dir: &Path) -> Result<(), Error> {
        let layout = Layout::new(absolute(dir)?);
        let _turn = turn(dir)?;
        if !layout.marker().exists() {
            return Self::open(dir).and_then(Self::remove);
        }
        // Whoever starts something waits, and finds then that all is gone.
        let _lock = lock(&layout)?;
        let records = read_records(&layout).unwrap_or_default();
        stopping::stop(layout.dir(), &records, || ())?;
        Ok(files::remove(layout.dir())?)
    }
}

fn read_records(layout: &Layout) -> Result<Vec<Record>, Error> {
    let path = layout.processes();
    match files::read(&path) {
        Err(error) if error.is_missing() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
        Ok(text) => serde_json::from_str(&text).map_err(|error| Error::Corrupt {
            path,
            reason: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
