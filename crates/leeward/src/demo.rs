//! `leeward demo`: an application survives the loss of a region, and the report says what it cost.

pub(crate) mod client;
pub(crate) mod oracle;

use clap::Args;

/// `leeward demo`
#[derive(Args, Debug)]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: Arguments) -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!("not yet")
}
