//! The project's chores: `cargo xtask test` and `cargo xtask generate`.

mod arrows;
mod generate;
mod test;
mod tools;
mod workspace;

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

fn main() -> Result<()> {
    let workspace = workspace::Workspace::find()?;
    match Chore::parse() {
        Chore::Test { require_all } => test::run(&workspace, require_all),
        Chore::Generate => generate::write(&workspace),
    }
}
