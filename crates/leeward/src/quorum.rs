//! Which quorum local regions have.

use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum;

/// The store that leases and decisions live in.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quorum {
    /// One copy in the witness's process: nothing needs to be installed.
    Embedded,
    /// etcd, with a member in each region and one beside the witness.
    Etcd,
}

impl Quorum {
    /// The program that it needs, where it needs one.
    pub(crate) fn program(self) -> anyhow::Result<Option<PathBuf>> {
        if self == Self::Embedded {
            return Ok(None);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Where `cargo xtask test` unpacks it.
        let unpacked = std::env::current_dir().map(|directory| directory.join("target/tools/usr/bin"));
        let found = std::env::split_paths(&path)
            .chain(unpacked)
            .map(|directory| directory.join("etcd"))
            .find(|file| file.is_file());
        match found {
            Some(program) => Ok(Some(program)),
            None => bail!(
                "etcd is in no directory of PATH, and a quorum on etcd needs it: install version 3.4 or later (Debian, Ubuntu: \
                 `apt-get install etcd-server`), or leave --quorum out for the embedded one"
            ),
        }
    }
}
