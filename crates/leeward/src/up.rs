//! `leeward up` and `leeward down`: local regions that stay until they are told to go.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use leeward_local::instance::{Error, Instance, Options, addresses::MAX_NODES};

use crate::{
    bring_up::bring_up,
    output::{self, Misused},
    process,
    quorum::Quorum,
    values,
};

/// Where the local regions are.
#[derive(Args, Debug, Clone)]
pub(crate) struct Place {
    /// The directory of the local regions; without it LEEWARD_HOME, else leeward in the user's state directory.
    #[arg(long, value_name = "DIR", value_parser = values::path)]
    home: Option<PathBuf>,
}

/// The environment variable that names the directory. It is read here: as an option's value it would stand in every usage as if it had to be given.
const HOME: &str = "LEEWARD_HOME";

impl Place {
    /// The directory: as given, else in the user's state directory (XDG Base Directory specification).
    pub(crate) fn dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(home) = &self.home {
            return Ok(home.clone());
        }
        if let Some(home) = std::env::var_os(HOME) {
            if home.is_empty() {
                return Err(Misused(anyhow::anyhow!(
                    "the directory of the local regions has no name: give --home DIR, or unset {HOME}"
                ))
                .into());
            }
            return Ok(home.into());
        }
        let state = std::env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let state = state
            .or_else(home)
            .context("neither HOME nor XDG_STATE_HOME is set; give --home DIR")?;
        Ok(state.join("leeward"))
    }

    /// Whether a directory was named, rather than the usual one meant.
    pub(crate) fn is_said(&self) -> bool {
        self.home.is_some() || std::env::var_os(HOME).is_some()
    }

    /// The local regions that are there.
    pub(crate) fn open(&self) -> anyhow::Result<Instance> {
        Ok(Instance::open(&self.dir()?)?)
    }
}

/// `leeward up`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The names of the regions; west,east where nothing is said.
    #[arg(long, value_delimiter = ',')]
    regions: Option<Vec<String>>,
    /// Nodes in each region; 2 where nothing is said.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    nodes: Option<u8>,
    /// How long a region's lease lives, in seconds; 15 where nothing is said.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    ttl: Option<u64>,
    /// Where leases and decisions live; embedded where nothing is said.
    #[arg(long, value_enum)]
    quorum: Option<Quorum>,
    #[command(flatten)]
    place: Place,
}

/// Starts the regions, or those of their processes that do not run.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let dir = arguments.place.dir()?;
    let usual = || vec!["west".to_owned(), "east".to_owned()];
    let regions = arguments.regions.clone().unwrap_or_else(usual);
    let names: Vec<&str> = regions.iter().map(String::as_str).collect();
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let usual = Options::default();
    let lease_ttl = arguments.ttl.map_or(usual.lease_ttl, Duration::from_secs);
    let quorum = arguments.quorum.unwrap_or(Quorum::Embedded);
    quorum.check(lease_ttl).map_err(Misused)?;
    let options = Options {
        nodes_per_region: arguments.nodes.unwrap_or(usual.nodes_per_region),
        lease_ttl,
        etcd: quorum.program()?,
        ..usual
    };
    let instance = match Instance::create(&dir, &names, &options) {
        Ok(instance) => instance,
        Err(Error::Exists(..)) => arguments.existing(Instance::open(&dir)?)?,
        Err(error @ Error::Regions(_)) => return Err(Misused(error.into()).into()),
        Err(error) => return Err(error.into()),
    };
    let ready = process::runtime(2)?.block_on(bring_up(&instance, |what| output::say(what)))?;
    for region in &ready {
        output::line(format_args!(
            "region {} is ready ({} ms)",
            region.region, region.ready_ms
        ))?;
    }
    for record in instance.processes()? {
        output::line(format_args!("  {:<16} pid {}", record.name, record.pid))?;
    }
    output::line(format_args!(
        "\nTry:\n  export KUBECONFIG=$(leeward kubeconfig {})\n  kubectl get clusters,nodes",
        ready.first().map_or("REGION", |first| first.region.as_str())
    ))
}

impl Arguments {
    /// The regions that are there, if they are as asked for. What nothing was said about may be as it is.
    fn existing(&self, there: Instance) -> anyhow::Result<Instance> {
        let other = [
            self.regions.as_ref().is_some_and(|regions| regions != there.regions()),
            self.nodes.is_some_and(|nodes| nodes != there.nodes_per_region()),
            self.ttl
                .is_some_and(|ttl| Duration::from_secs(ttl) != there.lease_ttl()),
            self.quorum
                .is_some_and(|quorum| (quorum == Quorum::Etcd) != there.is_on_etcd()),
        ];
        anyhow::ensure!(
            !other.contains(&true),
            "the local regions in {} were made with --regions {} --nodes {} --ttl {} --quorum {}, and nothing of that is changed \
             afterwards; run `leeward up` without these options to go on with them, or `leeward down` first",
            there.layout().dir().display(),
            there.regions().join(","),
            there.nodes_per_region(),
            there.lease_ttl().as_secs(),
            if there.is_on_etcd() { "etcd" } else { "embedded" }
        );
        Ok(there)
    }
}

/// Stops the regions and removes their directory.
pub(crate) fn down(place: &Place) -> anyhow::Result<()> {
    let dir = place.dir()?;
    match Instance::remove_dir(&dir) {
        Ok(()) => output::line(format_args!("the local regions in {} are gone", dir.display())),
        Err(Error::Missing(_)) => output::line(format_args!("there are no local regions in {}", dir.display())),
        Err(error) => Err(error.into()),
    }
}
