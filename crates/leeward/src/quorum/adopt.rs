//! `leeward quorum adopt`: a region is told that the quorum was begun anew elsewhere, or its damaged record is written again.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use leeward_controller::{config, quorum::settings};
use leeward_core::name::Incarnation;
use leeward_quorum::{
    Error, Store as _, Txn,
    etcd::{self, Etcd},
    incarnation, key,
    pin::{self, Pin},
};

use super::Which;
use crate::{output, process};

/// How long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `leeward quorum adopt`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// The identity of the quorum, as `leeward quorum recover` or `leeward quorum status` showed it.
    #[arg(long, value_name = "IDENTITY", value_parser = identity)]
    cluster: u64,
}

fn identity(text: &str) -> Result<u64, String> {
    let identity = u64::from_str_radix(text, 16).ok().filter(|identity| *identity != 0);
    identity.ok_or_else(|| "an identity of etcd is a hexadecimal number, and not 0".to_owned())
}

/// Looks at the quorum, and writes down that it is this region's.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (serve, _) = arguments.which.open()?;
    let config::Quorum::Etcd(etcd) = &serve.quorum else {
        bail!("the quorum is embedded: it has no identity of its own");
    };
    let file = pin::path(&serve.data_dir);
    let before = match pin::read(&file) {
        Ok(before) => before,
        // The person says which one is right.
        Err(error @ Error::Storage { .. }) => {
            output::say(format_args!("{error}"));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let settings = etcd::Config {
        cluster: arguments.cluster,
        ..settings(etcd, &serve, PATIENCE)?
    };
    let found = process::runtime(1)?.block_on(look(settings))?;
    judge(before, found).with_context(|| format!("{} was not changed", file.display()))?;
    std::fs::create_dir_all(&serve.data_dir).with_context(|| serve.data_dir.display().to_string())?;
    pin::write(&file, found)?;
    output::line(format_args!(
        "{} belongs to etcd cluster {:x}, incarnation {}, from now on; an agent that runs goes over to it, one that ended is to be started",
        serve.cluster, found.cluster, found.incarnation
    ))
}

/// Asks the members until one of the right identity answers.
async fn look(settings: etcd::Config) -> anyhow::Result<Pin> {
    let etcd = Etcd::new(settings.clone())?;
    let mut last = None;
    for _ in &settings.endpoints {
        match etcd.txn(Txn::default().read(key::INCARNATION)).await {
            Ok(outcome) => {
                return Ok(Pin {
                    cluster: etcd.cluster(),
                    incarnation: incarnation::of(&outcome.entries),
                    revision: outcome.revision,
                });
            }
            Err(error) => last = Some(error),
        }
    }
    let error = last.context("no endpoint of etcd is given")?;
    Err(error).with_context(|| format!("no member of etcd cluster {:x} answers", settings.cluster))
}

/// Another quorum is taken only for a later incarnation of the same one.
fn judge(before: Option<Pin>, found: Pin) -> anyhow::Result<()> {
    let Some(before) = before else { return Ok(()) };
    if before.cluster == found.cluster {
        ensure!(
            found.revision >= before.revision,
            "it is at revision {} and was at {} before: it was restored from a backup, and epochs in it may be lower than some that were \
             given out",
            found.revision,
            before.revision
        );
        return Ok(());
    }
    let (theirs, ours): (Incarnation, Incarnation) = (found.incarnation, before.incarnation);
    ensure!(
        theirs > ours,
        "the quorum {:x} is of incarnation {theirs}, and this region belongs to {:x} of incarnation {ours}: only a later incarnation, begun \
         by `leeward quorum recover`, takes its place",
        found.cluster,
        before.cluster
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_incarnation_or_the_same_quorum_is_adopted() {
        let pin = |cluster, incarnation, revision| Pin {
            cluster,
            incarnation: Incarnation(incarnation),
            revision,
        };
        assert!(judge(None, pin(1, 0, 5)).is_ok());
        assert!(judge(Some(pin(1, 0, 5)), pin(1, 0, 5)).is_ok());
        assert!(judge(Some(pin(1, 0, 5)), pin(2, 1, 3)).is_ok());
        for (before, found, says) in [
            (pin(1, 0, 5), pin(2, 0, 9), "only a later incarnation"),
            (pin(1, 2, 5), pin(2, 1, 9), "only a later incarnation"),
            (pin(1, 0, 5), pin(1, 0, 4), "restored from a backup"),
        ] {
            let error = judge(Some(before), found).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_identity_is_a_hexadecimal_number_that_names_one_quorum() {
        assert_eq!(identity("2ab94e5b1f6d3b0c"), Ok(0x2ab9_4e5b_1f6d_3b0c));
        for bad in ["", "0", "000", "west", "-1", "12345678901234567"] {
            assert!(identity(bad).is_err(), "{bad}");
        }
    }
}
