//! The project's chores: `cargo xtask test`, `generate`, `facts`, `image`, `api-diff`, `bench`, `chaos`, `e2e`, `model` and `sim`.

mod arrows;
mod facts;
mod generate;
mod image;
mod pages;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use tools::Tools;

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
    /// Writes what the local API knows about the types of the built-in kinds.
    ///
    /// The documents are those of a server, each got with `kubectl get --raw /openapi/v3/apis/apps/v1` and its like: the ones
    /// in Kubernetes' repository lack the values of enumerations.
    Facts {
        /// The directory of the OpenAPI v3 documents, JSON.
        #[arg(long)]
        openapi: std::path::PathBuf,
    },
    /// Builds `leeward` and writes it as an image archive, an OCI layout that `ctr images import`, `podman load` and `docker load` take: the program
    /// with the libraries of this machine that it needs, for clusters whose nodes have this machine's processor.
    Image {
        /// The archive.
        #[arg(long, value_name = "FILE", default_value = "leeward.tar")]
        output: std::path::PathBuf,
        /// The image's name; `leeward.dev/leeward` and the version where nothing is said.
        #[arg(long, value_name = "NAME:TAG")]
        name: Option<String>,
        /// `release`, or `dev` for one that is built faster and is larger and slower.
        #[arg(long, default_value = RELEASE, value_parser = [RELEASE, DEV])]
        profile: String,
    },
    /// Compares a local region with a real API server; `cargo xtask api-diff --help` says how.
    #[command(disable_help_flag = true)]
    ApiDiff {
        /// What is passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Measures a local region built for release: `bench api --kubeconfig FILE` beside a real API server, `bench region` its start and
    /// memory, `bench fleet` the loss of a region with many applications, `bench idle` what an agent takes while nothing happens. `bench order`
    /// writes which functions the linker puts together for the memory, into `crates/leeward/order.txt`.
    #[command(disable_help_flag = true)]
    Bench {
        /// What is passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Makes faults in real regions on real etcd, one after the other, and counts what users lost; `cargo xtask chaos --help` says how. Needs
    /// root: regions run in network namespaces, on disks of their own.
    #[command(disable_help_flag = true)]
    Chaos {
        /// What is passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Installs in two clusters that kubeconfigs name, makes faults there, sees whether users are answered, and removes everything;
    /// `cargo xtask e2e --help` says how.
    #[command(name = "e2e", disable_help_flag = true)]
    E2e {
        /// What is passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Looks at every state that leases, epochs and takeovers can come to, built for speed; `cargo xtask model --help` says how.
    #[command(disable_help_flag = true)]
    Model {
        /// What is passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Plays many seeds of regions that fail, built for speed; `cargo xtask sim --help` says how.
    #[command(disable_help_flag = true)]
    Sim {
        /// What is passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
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
        Chore::Facts { openapi } => facts::write(&workspace, &openapi),
        Chore::Image { output, name, profile } => {
            let directory = if profile == DEV { "debug" } else { &profile };
            image::write(&workspace, &profile, directory, &output, name.as_deref())
        }
        Chore::ApiDiff { arguments } => {
            // The file names among the arguments are the caller's, so it runs where the caller is.
            let status = workspace::cargo()
                .args([
                    "run",
                    "--quiet",
                    "--locked",
                    "--package",
                    "leeward-api-diff",
                    "--manifest-path",
                ])
                .arg(workspace.root().join("Cargo.toml"))
                .arg("--")
                .args(arguments)
                .status()
                .context("cargo cannot be started")?;
            ensure!(
                status.success(),
                "the local region answers otherwise, or could not be compared"
            );
            Ok(())
        }
        Chore::Bench { arguments } => {
            build(&workspace, RELEASE, &["leeward", "leeward-bench"], &[])?;
            let program = workspace.built(RELEASE, "leeward");
            let mut bench = std::process::Command::new(workspace.built(RELEASE, "leeward-bench"));
            let status = bench.args(arguments).arg("--program").arg(program).status();
            ensure!(
                status.context("leeward-bench cannot be started")?.success(),
                "it could not be measured, or is more than it may be"
            );
            Ok(())
        }
        Chore::Chaos { arguments } => {
            let tools = Tools::new(&workspace);
            tools.get(&tools::ETCD)?;
            build(&workspace, DEV, &["leeward"], &["leeward/unfenced"])?;
            let mut chaos = std::process::Command::new(workspace.built("debug", "leeward"));
            let status = chaos.arg("chaos").args(arguments).env("PATH", tools.path()?).status();
            ensure!(
                status.context("leeward cannot be started")?.success(),
                "something did not hold, or could not be tried"
            );
            Ok(())
        }
        Chore::E2e { arguments } => {
            // The program that makes the faults is the one in the image, so it is built once.
            let program = image::build(&workspace, DEV, "debug")?;
            let status = std::process::Command::new(program).arg("e2e").args(arguments).status();
            ensure!(
                status.context("leeward cannot be started")?.success(),
                "something did not hold, or could not be tried"
            );
            Ok(())
        }
        Chore::Model { arguments } => {
            build(&workspace, PROOF, &["leeward-model"], &[])?;
            let mut model = std::process::Command::new(workspace.built(PROOF, "leeward-model"));
            let status = model.args(arguments).status();
            ensure!(
                status.context("leeward-model cannot be started")?.success(),
                "an invariant did not hold, or a mutant was not noticed"
            );
            Ok(())
        }
        Chore::Sim { arguments } => {
            build(&workspace, PROOF, &["leeward-sim"], &[])?;
            let mut sim = std::process::Command::new(workspace.built(PROOF, "leeward-sim"));
            let status = sim.args(arguments).status();
            ensure!(
                status.context("leeward-sim cannot be started")?.success(),
                "an invariant did not hold, or a mutant was not noticed"
            );
            Ok(())
        }
    }
}

/// The profile of what users run.
const RELEASE: &str = "release";
/// The profile of what only has to be fast.
const PROOF: &str = "proof";
/// The profile of the tests, in whose build it is mostly there already.
const DEV: &str = "dev";

/// Builds packages with a profile and these features.
fn build(workspace: &workspace::Workspace, profile: &str, packages: &[&str], features: &[&str]) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--locked", "--profile", profile])
        .current_dir(workspace.root());
    for package in packages {
        cargo.args(["--package", package]);
    }
    if !features.is_empty() {
        cargo.arg("--features").arg(features.join(","));
    }
    let built = cargo.status().context("cargo cannot be started")?;
    ensure!(built.success(), "the programs cannot be built");
    Ok(())
}
