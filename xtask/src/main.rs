//! The project's chores: `cargo xtask test` and `cargo xtask generate`.

mod arrows;
mod generate;
mod pages;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Chore {
    /// Runs every check that a change must pass.
    Test {
        /// Fails when a check could not run because a tool is missing.
        #[arg(long)]
        require_all: bool,
    },
    /// Writes what is made from the resource kinds: the definitions and the reference page.
    Generate,
}

fn main() -> ExitCode {
    match run(Chore::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    let workspace = workspace::Workspace::find()?;
    match chore {
        Chore::Test { require_all } => test::run(&workspace, require_all),
        Chore::Generate => generate::write(&workspace),
    }
}
