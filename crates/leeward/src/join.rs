//! `leeward join`: the authority of an installation on real clusters, in a directory, and what each cluster and the witness are given of it.
//!
//! Flow: a command opens the [`directory`], which nobody else changes meanwhile; [`installation`], pure, says what changes; [`issue`] makes what
//! is missing or ends soon; [`bundle`], pure, writes it down for its receiver. Nothing here asks a cluster: what is applied, and where, is the
//! engineer's affair, or that of `leeward install`. See `docs/decisions/0013-authority-in-a-directory.md`.

mod address;
mod bundle;
mod define;
mod directory;
mod give;
mod installation;
mod issue;
mod script;
mod turn;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::values;
use directory::Directory;
use installation::Installation;

/// Where the installation's authority is kept.
#[derive(Args, Debug)]
struct Place {
    /// The directory of the installation's authority. Whoever reads it can make certificates for anybody.
    #[arg(long, value_name = "DIR", default_value = "leeward-installation", value_parser = values::path)]
    dir: PathBuf,
}

/// `leeward join`
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Makes the directory with the authority of an installation
    Init(define::Init),
    /// Adds a cluster, or changes where one is reached
    Region(define::Region),
    /// Takes a cluster or a member of etcd out, once it has left for good
    Forget(define::Forget),
    /// Prints what is applied in a cluster: its identity, its configuration and the Cluster resources
    Render(give::Render),
    /// Writes what the witness needs to a directory: configuration, certificate and a unit for systemd; or prints a script that sets it up
    Witness(give::Witness),
    /// Writes the certificate of a member of etcd to a directory
    Member(give::Member),
    /// Shows who has which certificate, and what is to be done
    Status(turn::Status),
    /// Makes new certificates, of the same authority
    Rotate(turn::Rotate),
    /// Brings a new authority in the place of the old one, in three steps
    Authority(turn::Stepping<installation::Step>),
    /// Brings a new key for specifications in the place of the old one, in two steps
    SpecKey(turn::Stepping<installation::KeyStep>),
}

/// The command line is wrong as a whole.
macro_rules! misused {
    ($($text:tt)*) => { return Err(Misused(anyhow::anyhow!($($text)*)).into()) };
}

use misused;

pub(crate) use address::cluster;
pub(crate) use give::Bundle;
pub(crate) use turn::{Paper, Term, look};

/// Runs one of them.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(arguments) => define::init(arguments),
        Command::Region(arguments) => define::region(arguments),
        Command::Forget(arguments) => define::forget(&arguments),
        Command::Render(arguments) => give::render(&arguments),
        Command::Witness(arguments) => give::witness(&arguments),
        Command::Member(arguments) => give::member(arguments),
        Command::Status(arguments) => turn::status(&arguments),
        Command::Rotate(arguments) => turn::rotate(&arguments),
        Command::Authority(arguments) => turn::authority(&arguments),
        Command::SpecKey(arguments) => turn::spec_key(&arguments),
    }
}

impl Place {
    fn open(&self) -> anyhow::Result<(Directory, Installation)> {
        let opened = directory::open(&self.dir)?;
        opened.with_context(|| {
            format!(
                "there is no installation in {}: `leeward join init` makes one, or name its directory with --dir",
                self.dir.display()
            )
        })
    }
}
