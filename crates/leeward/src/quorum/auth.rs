//! `leeward quorum auth`: the commands that let each region's agent do in etcd what it must, and nobody else anything. They are printed and not
//! run, so that a person reads them, and no password passes through here.
//!
//! All agents have one role: any of them may lead, and a leader seals the lease of a region that is lost. What an agent never writes, the
//! quorum's incarnation, it may only read.

use std::fmt::Write as _;

use anyhow::ensure;
use clap::Args;
use leeward_quorum::key;

use crate::output::{self, Misused};

/// `leeward quorum auth`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The clusters whose agents use the quorum, as their certificates name them
    #[arg(long, value_name = "CLUSTER,...", value_delimiter = ',', required = true)]
    regions: Vec<String>,
    /// What every key of this installation begins with, as `prefix` in the agents' configuration
    #[arg(long, value_name = "PREFIX", default_value = "leeward/")]
    prefix: String,
    /// Agents log in with a user and a password, which etcdctl asks for, and not by their certificates
    #[arg(long)]
    passwords: bool,
}

/// Prints them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    output::write(&script(arguments).map_err(Misused)?)
}

/// Whether the shell takes it for one word, and etcd for a name.
fn is_plain(text: &str, more: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain)
}

fn script(arguments: &Arguments) -> anyhow::Result<String> {
    let Arguments { regions, prefix, .. } = arguments;
    ensure!(
        is_plain(prefix, "-._/") && prefix.ends_with('/'),
        "the prefix {prefix:?} is none: it ends with a slash, and has lower-case letters, digits, `-`, `.`, `_` and `/`"
    );
    for (number, region) in regions.iter().enumerate() {
        ensure!(!regions[..number].contains(region), "{region} is named twice");
        ensure!(
            is_plain(region, "-."),
            "{region:?} is no cluster's name: give the names that the agents' certificates have, as in --regions west,east"
        );
        ensure!(
            region != "root",
            "root is the user of etcd that may do everything: no agent may be it, give the cluster another name"
        );
        ensure!(
            region != super::judge::WITNESS,
            "the witness needs no user: beside an etcd it keeps nothing of the quorum, and speaks to the agents alone"
        );
    }
    let role = prefix.trim_end_matches('/');
    let mut text = format!(
        "#!/bin/sh\n\
         # Users and permissions in etcd of what is below {prefix}. Where etcd is, and by which certificate it is spoken to, stands in ETCDCTL_*.\n\
         # It can be run again; once authentication is on, as root: see docs/how-to/secure-etcd.md.\n\
         set -eu\n"
    );
    let mut line = |line: String| writeln!(text, "{line}");
    let unless = |what: &str, name: &str, more: &str| {
        format!("etcdctl {what} get {name} >/dev/null 2>&1 || etcdctl {what} add {name}{more}")
    };
    line(unless("role", role, ""))?;
    line(format!("etcdctl role grant-permission {role} read --prefix {prefix}"))?;
    for below in key::WRITTEN_BELOW {
        line(format!(
            "etcdctl role grant-permission {role} readwrite --prefix {prefix}{below}"
        ))?;
    }
    line(format!(
        "etcdctl role grant-permission {role} readwrite {prefix}{}",
        key::LEADER
    ))?;
    let password = if arguments.passwords { "" } else { " --no-password" };
    for region in regions {
        line(unless("user", region, password))?;
        line(format!("etcdctl user grant-role {region} {role}"))?;
    }
    line(unless("user", "root", ""))?;
    line(unless("role", "root", ""))?;
    line("etcdctl user grant-role root root".to_owned())?;
    line("etcdctl auth enable".to_owned())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(regions: &[&str], prefix: &str, passwords: bool) -> Result<String, String> {
        let arguments = Arguments {
            regions: regions.iter().map(|region| (*region).to_owned()).collect(),
            prefix: prefix.to_owned(),
            passwords,
        };
        script(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn authentication_is_enabled_last_and_what_agents_never_write_they_may_only_read() {
        let text = of(&["west", "east"], "shops/leeward/", false).unwrap();
        assert!(text.ends_with("\netcdctl auth enable\n"), "{text}");
        for part in [
            "etcdctl role grant-permission shops/leeward read --prefix shops/leeward/\n",
            "etcdctl role grant-permission shops/leeward readwrite --prefix shops/leeward/lease/\n",
            "etcdctl role grant-permission shops/leeward readwrite shops/leeward/leader\n",
            "|| etcdctl user add east --no-password\n",
            "etcdctl user grant-role east shops/leeward\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(
            !text.contains("incarnation") && !text.contains("user grant-role east root"),
            "{text}"
        );
        let text = of(&["west"], "leeward/", true).unwrap();
        assert!(text.contains("|| etcdctl user add west\n"), "{text}");
    }

    #[test]
    fn what_the_shell_would_take_for_more_than_a_name_is_refused() {
        for (regions, prefix, says) in [
            (&["west;reboot"][..], "leeward/", "no cluster's name"),
            (&[""], "leeward/", "no cluster's name"),
            (&["--help"], "leeward/", "no cluster's name"),
            (&["root"], "leeward/", "may do everything"),
            (&["west", "east", "west"], "leeward/", "west is named twice"),
            (&["west", "witness"], "leeward/", "needs no user"),
            (&["west"], "leeward", "ends with a slash"),
            (&["west"], "/", "is none"),
            (&["west"], "a b/", "is none"),
            (&["west"], "$(x)/", "is none"),
        ] {
            let error = of(regions, prefix, false).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
