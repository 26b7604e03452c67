//! Which functions of `leeward` the processes of a region run, so that the linker puts those together.
//!
//! A page of the program counts as memory of each process that ran something in it, and the kernel maps sixteen at a time. A node runs a
//! tenth of the program; strewn all over it, that tenth takes most of it into memory. So the program is run once with a breakpoint on every
//! function ([`trace`]), and the names of those that were run are kept, by the processes that ran them ([`list`]). `crates/leeward/build.rs`
//! tells the linker. A list that is out of date costs memory and nothing else.

mod list;
mod trace;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use leeward_local::instance::Instance;

use crate::region;
use list::Ran;
use trace::{Image, Seen};

/// Where the list goes, and what is done with a region meanwhile.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The program `leeward`, with its symbols.
    #[arg(long)]
    program: PathBuf,
    /// Files that kubectl applies.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    manifest: Vec<PathBuf>,
    /// The kubectl of the session and of the files.
    #[arg(long, default_value = "kubectl")]
    kubectl: PathBuf,
    /// How long a region goes on after that, in seconds, so that what is done now and then is seen.
    #[arg(long, default_value_t = 20)]
    settle: u64,
    /// The list.
    #[arg(long, value_name = "FILE", default_value = "crates/leeward/order.txt")]
    out: PathBuf,
}

/// Runs regions and a demonstration, and writes the list.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let image = Image::read(&options.program)?;
    let mut ran = Ran::default();
    // What every region does comes first, then what is done where there is an application.
    for (demonstration, seen) in [(false, regions(options, &image)?), (true, demo(&image)?)] {
        for (role, functions) in seen {
            println!("{role:?}: {} functions", functions.len());
            functions
                .into_iter()
                .for_each(|function| ran.note(function, role, demonstration));
        }
    }
    let text = list::write(&image.functions, &ran);
    fs::write(&options.out, text).with_context(|| options.out.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn regions(options: &Options, image: &Image) -> Result<Seen> {
    let home = tempfile::tempdir()?;
    let home = home.path().join("home");
    trace::run(image, &["up"], &home, || {
        let used = use_region(options, &home);
        let mut down = Command::new(&options.program);
        let down = down.arg("down").env("LEEWARD_HOME", &home).stdout(Stdio::null());
        ensure!(down.status().context("leeward down")?.success(), "leeward down failed");
        used
    })
}

fn use_region(options: &Options, home: &std::path::Path) -> Result<()> {
    let instance = Instance::open(home)?;
    let name = instance.regions().first().context("no region")?.clone();
    let kubeconfig = instance.kubeconfig(&name)?;
    ensure!(
        region::session(&options.kubectl, &kubeconfig)?,
        "without kubectl little is seen"
    );
    for file in &options.manifest {
        let mut kubectl = Command::new(&options.kubectl);
        kubectl.args(["apply", "--server-side", "-f"]).arg(file);
        let status = kubectl
            .env("KUBECONFIG", &kubeconfig)
            .stdout(Stdio::null())
            .status()
            .context("kubectl")?;
        println!("applied {}: {status}", file.display());
    }
    std::thread::sleep(Duration::from_secs(options.settle));
    Ok(())
}

fn demo(image: &Image) -> Result<Seen> {
    let home = tempfile::tempdir()?;
    // Each breakpoint takes its time, and no lease should end for it. On a machine that is busy besides, no standby is in sync when the region
    // is lost, and the failover is not seen.
    trace::run(image, &["demo", "--ttl", "10"], &home.path().join("home"), || Ok(()))
}
