//! What each cluster, the witness and the members of etcd are given.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use leeward_api::install;
use leeward_local::instance::files;

use super::{
    Place, address, bundle,
    directory::Directory,
    installation::{Holder, Installation, Quorum},
    issue, misused, script,
};
use crate::{
    output::{self, Misused},
    values,
};

/// Where the witness answers Prometheus, as the agents do.
const EVERYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), install::METRICS_PORT);

/// `leeward join render`
#[derive(Args, Debug)]
pub(crate) struct Render {
    /// The cluster.
    #[arg(value_parser = address::cluster)]
    name: String,
    #[command(flatten)]
    place: Place,
}

/// `leeward join witness`
#[derive(Args, Debug)]
pub(crate) struct Witness {
    /// The directory to write to.
    #[arg(long, value_name = "DIR", required_unless_present = "script", value_parser = values::path)]
    out: Option<PathBuf>,
    /// Prints a script instead, for root's shell on its machine: it writes the files there and starts the witness under systemd.
    #[arg(long, conflicts_with = "out")]
    script: bool,
    /// Where it answers Prometheus there, with plain HTTP.
    #[arg(long, value_name = "IP:PORT", default_value_t = EVERYWHERE)]
    metrics_address: SocketAddr,
    /// Where its files lie on the machine that it runs on.
    #[arg(long, value_name = "DIR", default_value = "/etc/leeward-witness", value_parser = values::path)]
    at: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// `leeward join member`
#[derive(Args, Debug)]
pub(crate) struct Member {
    /// The member's name.
    #[arg(value_parser = address::label)]
    name: String,
    /// A name or address where the others and the agents reach it; as it was where nothing is said. May be repeated.
    #[arg(long = "host", value_name = "HOST", value_parser = address::host)]
    hosts: Vec<String>,
    /// The directory to write to.
    #[arg(long, value_name = "DIR", value_parser = values::path)]
    out: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// What a cluster is given, while nobody else changes the directory.
pub(crate) struct Bundle {
    directory: Directory,
    installation: Installation,
    holder: Holder,
    papers: issue::Papers,
    manifests: String,
}

impl Bundle {
    /// The bundle of a cluster, of the installation in `dir`.
    ///
    /// # Errors
    /// There is no such installation or cluster, or something of it is missing.
    pub(crate) fn of(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let place = Place { dir: dir.to_owned() };
        let (directory, installation) = place.open()?;
        let Some(cluster) = installation.clusters.get(name).cloned() else {
            let known: Vec<&str> = installation.clusters.keys().map(String::as_str).collect();
            bail!(
                "there is no cluster {name}, only {}: add it with `leeward join region {name} --host HOST`",
                or_none(&known)
            );
        };
        let holder = Holder::Cluster(name.to_owned());
        let papers = issue::papers(&directory, &installation, &holder, issue::RENEWED)?;
        let spec_keys = installation.spec_key.keys.iter().map(|number| {
            let file = directory.spec_key(*number);
            ensure!(
                file.exists(),
                "{} is not there: bring it back from a copy",
                file.display()
            );
            issue::key(&directory, &file)
        });
        let spec_keys: Vec<String> = spec_keys.collect::<anyhow::Result<_>>()?;
        let gate_key = issue::key(&directory, &directory.gates(name))?;
        let etcd_ca = etcd_ca(&directory, &installation)?;
        let proof = bundle::Proof {
            papers: &papers,
            spec_keys: &spec_keys,
            gate_key: &gate_key,
            etcd_ca: etcd_ca.as_deref(),
        };
        let manifests = bundle::manifests(&installation, name, &cluster, &proof)?;
        Ok(Self {
            directory,
            installation,
            holder,
            papers,
            manifests,
        })
    }

    /// Its objects as YAML documents, in the order in which they are applied. There are private keys among them.
    pub(crate) fn manifests(&self) -> &str {
        &self.manifests
    }

    /// The namespace that it is for.
    pub(crate) fn namespace(&self) -> &str {
        &self.installation.namespace
    }

    /// Notes that the cluster has it now.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(crate) fn given(mut self) -> anyhow::Result<()> {
        tell(&self.holder, &self.papers);
        given(&self.directory, &mut self.installation, &self.holder)
    }

    /// Prints it after `before`, and notes it as given.
    ///
    /// # Errors
    /// Unlike elsewhere, a reader that has gone is an error: what it did not get was not given to it.
    pub(crate) fn print(self, before: &str) -> anyhow::Result<()> {
        print(&self.holder, &[before, &self.manifests])?;
        self.given()
    }
}

/// Prints what somebody is given, to its end.
fn print(holder: &Holder, parts: &[&str]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut written = parts.iter().map(|part| out.write_all(part.as_bytes()));
    written
        .find(Result::is_err)
        .unwrap_or(Ok(()))
        .and_then(|()| out.flush())
        .with_context(|| {
            let whose = holder.key();
            format!("the bundle of {whose} was not read to its end, so it does not count as given")
        })
}

pub(super) fn render(arguments: &Render) -> anyhow::Result<()> {
    Bundle::of(&arguments.place.dir, &arguments.name)?.print("")
}

/// The authority of etcd's members, where it is another one than the installation's.
fn etcd_ca(directory: &Directory, installation: &Installation) -> anyhow::Result<Option<String>> {
    let other = matches!(
        installation.quorum,
        Quorum::Etcd {
            other_authority: true,
            ..
        }
    );
    let file = directory.etcd_ca();
    let text = directory.read(&file)?.filter(|_| other);
    ensure!(
        text.is_some() == other,
        "{} is not there: bring it back from a copy",
        file.display()
    );
    Ok(text)
}

fn or_none(names: &[&str]) -> String {
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// Says that a certificate was made, and why.
fn tell(holder: &Holder, papers: &issue::Papers) {
    if let Some(why) = &papers.made {
        output::say(format_args!("a new certificate for {} was made: {why}", holder.key()));
    }
}

fn given(directory: &Directory, installation: &mut Installation, holder: &Holder) -> anyhow::Result<()> {
    let before = installation.clone();
    installation.give(holder);
    match *installation == before {
        true => Ok(()),
        false => directory.save(installation),
    }
}

pub(super) fn witness(arguments: &Witness) -> anyhow::Result<()> {
    let (directory, mut installation) = arguments.place.open()?;
    ensure!(
        arguments.at.is_absolute(),
        Misused(anyhow::anyhow!(
            "--at {}: a path from the root is needed",
            arguments.at.display()
        ))
    );
    let papers = issue::papers(&directory, &installation, &Holder::Witness, issue::RENEWED)?;
    let files = bundle::witness(&installation, &arguments.at, arguments.metrics_address, &papers)?;
    let Some(out) = &arguments.out else {
        print(&Holder::Witness, &[&script::script(&arguments.at, &files)])?;
        tell(&Holder::Witness, &papers);
        return given(&directory, &mut installation, &Holder::Witness);
    };
    put(out, bundle::UNIT, &files)?;
    tell(&Holder::Witness, &papers);
    given(&directory, &mut installation, &Holder::Witness)?;
    output::line(format_args!(
        "{} holds what the witness at {} needs in {}",
        out.display(),
        installation.witness,
        arguments.at.display()
    ))
}

pub(super) fn member(arguments: Member) -> anyhow::Result<()> {
    let (directory, mut installation) = arguments.place.open()?;
    match installation.quorum {
        Quorum::Embedded => {
            bail!("the quorum of this installation is embedded, so it has no members; nothing was changed")
        }
        Quorum::Etcd {
            other_authority: true, ..
        } => bail!("another authority signs the certificates of etcd's members (--etcd-ca); nothing was changed"),
        Quorum::Etcd { .. } => {}
    }
    let name = &arguments.name;
    if arguments.hosts.is_empty() && !installation.members.contains_key(name) {
        misused!("the member {name} is new: give the names and addresses where it is reached with --host");
    }
    if !arguments.hosts.is_empty() {
        let mut hosts = arguments.hosts;
        hosts.sort();
        hosts.dedup();
        if installation.members.insert(name.clone(), hosts.clone()) != Some(hosts) {
            directory.save(&installation)?;
        }
    }
    let holder = Holder::Member(name.clone());
    let papers = issue::papers(&directory, &installation, &holder, issue::RENEWED)?;
    let files = [
        ("ca.crt", papers.ca.clone()),
        ("tls.crt", papers.certificate.clone()),
        ("tls.key", papers.key.clone()),
    ];
    put(&arguments.out, "tls.crt", &files)?;
    tell(&holder, &papers);
    given(&directory, &mut installation, &holder)?;
    output::line(format_args!(
        "{} holds the certificate of member {name}: --cert-file, --key-file and --trusted-ca-file, and the same three with --peer-",
        arguments.out.display()
    ))
}

/// Writes files to a directory: a new one, an empty one, or one that has a file of this name from before.
fn put(out: &Path, mark: &str, all: &[(&str, String)]) -> anyhow::Result<()> {
    let filled = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", out.display())),
    };
    ensure!(
        !filled || out.join(mark).is_file(),
        "{} is not empty, and there is no {mark} in it from before; nothing was changed there: choose another directory with --out",
        out.display()
    );
    files::directory(out)?;
    for (name, text) in all {
        files::write(&out.join(name), text.as_bytes())?;
    }
    Ok(())
}
