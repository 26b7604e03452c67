//! What an installation is said to be: its directory made, its clusters added, changed and taken out.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use leeward_api::install;
use leeward_core::lease::{Delays, Timing};

use super::{
    Place, address, directory,
    installation::{self, Authority, Cluster, Holder, Installation, Quorum, SpecKey},
    issue, misused,
};
use crate::{
    output::{self, Misused},
    quorum::Quorum as Kind,
    values,
};

/// `leeward join init`
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// Where the witness is reached, HOST or HOST:PORT.
    #[arg(long, value_name = "HOST", value_parser = address::peer)]
    witness: String,
    /// A cluster and the host where its Services are reached at their usual ports; its region has the same name. May be repeated.
    #[arg(long = "cluster", value_name = "NAME=HOST", value_parser = address::named)]
    clusters: Vec<(String, String)>,
    /// Where leases and decisions live.
    #[arg(long, value_enum, default_value = "embedded")]
    quorum: Kind,
    /// A member of etcd, https://HOST:PORT. May be repeated.
    #[arg(long = "endpoint", value_name = "URL", value_parser = address::endpoint)]
    endpoints: Vec<String>,
    /// The authority that signed the certificates of etcd's members, where it is another one than this installation's.
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    etcd_ca: Option<PathBuf>,
    /// What every key in etcd begins with; it ends with a slash.
    #[arg(long, default_value = "leeward/", value_parser = prefix)]
    prefix: String,
    /// The election time-out of etcd's members, in milliseconds.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    election_ms: u64,
    /// How long a region's lease lives, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=300))]
    ttl: u64,
    /// The namespace that Leeward is installed in.
    #[arg(long, default_value = install::NAMESPACE, value_parser = address::label)]
    namespace: String,
    #[command(flatten)]
    place: Place,
}

/// `leeward join region`
#[derive(Args, Debug)]
pub(crate) struct Region {
    /// The cluster's name.
    #[arg(value_parser = address::cluster)]
    name: String,
    /// The failure domain; as it was, else the cluster's name.
    #[arg(long, value_parser = address::label)]
    region: Option<String>,
    /// The zones of its nodes.
    #[arg(long, value_name = "ZONE,...", value_delimiter = ',', value_parser = address::label)]
    zones: Option<Vec<String>>,
    /// The host where its Services are reached at their usual ports.
    #[arg(long, value_name = "HOST", value_parser = address::host)]
    host: Option<String>,
    /// Where users' requests enter.
    #[arg(long, value_name = "HOST:PORT", value_parser = address::address)]
    ingress: Option<String>,
    /// Where the other agents reach this one.
    #[arg(long, value_name = "HOST:PORT", value_parser = address::address)]
    peer: Option<String>,
    /// Its registry.
    #[arg(long, value_name = "HOST:PORT", value_parser = address::address)]
    registry: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// `leeward join forget`
#[derive(Args, Debug)]
pub(crate) struct Forget {
    /// The cluster.
    #[arg(value_parser = address::cluster)]
    name: String,
    /// It is the member of etcd of this name.
    #[arg(long)]
    member: bool,
    #[command(flatten)]
    place: Place,
}

fn prefix(text: &str) -> Result<String, &'static str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    match text.ends_with('/') && text.len() > 1 && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("it is letters, digits and -_./, and ends with a slash"),
    }
}

/// What a new installation is to be.
fn wanted(arguments: &Init) -> anyhow::Result<Installation> {
    let mut clusters: BTreeMap<String, Cluster> = BTreeMap::new();
    for (name, host) in &arguments.clusters {
        if clusters.insert(name.clone(), installation::at(name, host)).is_some() {
            misused!("the cluster {name} is given twice");
        }
    }
    let quorum = match (arguments.quorum, arguments.endpoints.is_empty()) {
        (Kind::Embedded, true) if arguments.etcd_ca.is_none() => Quorum::Embedded,
        (Kind::Embedded, _) => misused!("--endpoint and --etcd-ca are for --quorum etcd"),
        (Kind::Etcd, true) => misused!("--quorum etcd needs the members: --endpoint https://HOST:PORT for each"),
        (Kind::Etcd, false) => Quorum::Etcd {
            endpoints: arguments.endpoints.clone(),
            prefix: arguments.prefix.clone(),
            election_ms: arguments.election_ms,
            other_authority: arguments.etcd_ca.is_some(),
        },
    };
    let delays = match &quorum {
        Quorum::Embedded => Delays::WITHOUT_ELECTIONS,
        Quorum::Etcd { election_ms, .. } => Delays::with_election(Duration::from_millis(*election_ms)),
    };
    let ttl = Duration::from_secs(arguments.ttl);
    if let Err(error) = Timing::new(ttl, delays) {
        misused!("--ttl {}: {error}", arguments.ttl);
    }
    Ok(Installation {
        version: installation::VERSION,
        id: hex::encode(rand::random::<[u8; 4]>()),
        namespace: arguments.namespace.clone(),
        lease_ttl_ms: arguments.ttl * 1000,
        quorum,
        witness: arguments.witness.clone(),
        clusters,
        members: BTreeMap::new(),
        authority: Authority::first(),
        spec_key: SpecKey::first(),
        generation: 1,
        given: BTreeMap::new(),
    })
}

pub(super) fn init(arguments: Init) -> anyhow::Result<()> {
    let wanted = wanted(&arguments)?;
    let etcd_ca = match &arguments.etcd_ca {
        None => None,
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
            leeward_pki::roots(text.as_bytes()).with_context(|| file.display().to_string())?;
            Some(text)
        }
    };
    let dir = &arguments.place.dir;
    if let Some((directory, there)) = directory::open(dir)? {
        let differs = differences(&there, &wanted);
        ensure!(
            differs.is_empty() && directory.read(&directory.etcd_ca())? == etcd_ca,
            "{} holds an installation already, which is another one than is asked for ({}); nothing was changed. `leeward join region` changes \
             clusters; for another installation choose another directory with --dir",
            dir.display(),
            if differs.is_empty() {
                "--etcd-ca".to_owned()
            } else {
                differs.join(", ")
            }
        );
        return output::line(format_args!("{} is there already, as asked for", dir.display()));
    }
    directory::create(dir, |directory| {
        issue::authority(directory, &wanted.id, 1)?;
        issue::key(directory, &directory.spec_key(1))?;
        if let Some(text) = &etcd_ca {
            directory.write(&directory.etcd_ca(), text)?;
        }
        directory.save(&wanted)
    })?;
    let dir = dir.display();
    output::line(format_args!(
        "{dir} holds the authority of a new installation: keep a copy in a safe place"
    ))?;
    for name in wanted.clusters.keys() {
        output::line(format_args!(
            "  leeward join render {name} --dir {dir} | kubectl --context {name} apply --server-side -f -"
        ))?;
    }
    if wanted.clusters.is_empty() {
        output::line("add its clusters with `leeward join region NAME --host HOST`")?;
    }
    let (host, _) = wanted.witness.rsplit_once(':').unwrap_or((&wanted.witness, ""));
    output::line(format_args!(
        "  leeward join witness --dir {dir} --script | ssh root@{host} sh"
    ))
}

/// How an installation differs from what is asked for, of what `init` is asked for. Clusters may have been added and changed since.
fn differences(there: &Installation, wanted: &Installation) -> Vec<String> {
    let mut differs = vec![];
    if there.quorum != wanted.quorum {
        differs.push("the quorum".to_owned());
    }
    for (what, there, wanted) in [
        ("the witness", &there.witness, &wanted.witness),
        ("the namespace", &there.namespace, &wanted.namespace),
    ] {
        if there != wanted {
            differs.push(format!("{what} is {there} and not {wanted}"));
        }
    }
    if there.lease_ttl_ms != wanted.lease_ttl_ms {
        differs.push(format!("the lease lives {} ms", there.lease_ttl_ms));
    }
    for (name, cluster) in &wanted.clusters {
        if there.clusters.get(name) != Some(cluster) {
            differs.push(format!("the cluster {name}"));
        }
    }
    differs
}

pub(super) fn region(arguments: Region) -> anyhow::Result<()> {
    let (directory, mut installation) = arguments.place.open()?;
    let name = &arguments.name;
    let before = installation.clusters.get(name);
    if let (Some(before), Some(region)) = (before, &arguments.region)
        && before.region != *region
    {
        bail!(
            "{name} is in region {} and does not move to {region}: a cluster stays in its failure domain; nothing was changed. Give the cluster \
             another name, or take this one out first: `leeward join forget {name}`",
            before.region
        );
    }
    let mut cluster = match (&arguments.host, before) {
        (Some(host), before) => Cluster {
            zones: before.map(|before| before.zones.clone()).unwrap_or_default(),
            ..installation::at(before.map_or(name, |before| &before.region), host)
        },
        (None, Some(before)) => before.clone(),
        (None, None) => {
            let missing: Vec<&str> = [
                ("--ingress", &arguments.ingress),
                ("--peer", &arguments.peer),
                ("--registry", &arguments.registry),
            ]
            .into_iter()
            .filter(|(_, given)| given.is_none())
            .map(|(option, _)| option)
            .collect();
            if !missing.is_empty() {
                misused!(
                    "{name} is new, and where it is reached is not said: give --host HOST, or also {}",
                    missing.join(", ")
                );
            }
            installation::at(name, "none")
        }
    };
    let Region {
        region,
        zones,
        ingress,
        peer,
        registry,
        ..
    } = arguments;
    cluster.region = region.unwrap_or(cluster.region);
    cluster.zones = zones.unwrap_or(cluster.zones);
    cluster.ingress = ingress.unwrap_or(cluster.ingress);
    cluster.peer = peer.unwrap_or(cluster.peer);
    cluster.registry = registry.unwrap_or(cluster.registry);
    let changes = installation.put(&arguments.name, cluster);
    if changes.is_empty() {
        return output::line(format_args!("{} is there already, as asked for", arguments.name));
    }
    // Every cluster has a resource of each.
    installation.outdate(|holder| matches!(holder, Holder::Cluster(_)));
    directory.save(&installation)?;
    for change in changes {
        output::line(change)?;
    }
    let names: Vec<&str> = installation.clusters.keys().map(String::as_str).collect();
    output::line(format_args!(
        "render and apply again in every cluster: {}",
        names.join(", ")
    ))
}

pub(super) fn forget(arguments: &Forget) -> anyhow::Result<()> {
    let (directory, mut installation) = arguments.place.open()?;
    let name = &arguments.name;
    let (holder, was) = match arguments.member {
        true => (
            Holder::Member(name.clone()),
            installation.members.remove(name).is_some(),
        ),
        false => (
            Holder::Cluster(name.clone()),
            installation.clusters.remove(name).is_some(),
        ),
    };
    if !was {
        return output::line(format_args!("{name} is not there"));
    }
    installation.given.remove(&holder.key());
    installation.outdate(|other| matches!((&holder, other), (Holder::Cluster(_), Holder::Cluster(_))));
    directory.save(&installation)?;
    directory.remove(&directory.certificate(&holder))?;
    if !arguments.member {
        directory.remove(&directory.gates(name))?;
    }
    output::line(format_args!(
        "{name} is forgotten. What it was given counts until its certificate ends: a new authority ends that (`leeward join authority trust`)"
    ))
}
