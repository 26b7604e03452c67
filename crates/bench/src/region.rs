//! What a region takes: time until it is Ready, and memory, each process and their sum.
//!
//! RSS counts a page that processes share in each of them, as the program's own pages are; PSS counts it in parts, so that the sum
//! is what the region takes of the machine. The sum of RSS is held against the limit. `anon` is what a process has for itself alone:
//! heap, stacks, and relocated data.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use leeward_local::instance::Instance;

use crate::figure::{self, Figure};

/// What a region may take: time until Ready, and memory as the sum of RSS.
const READY_MS: u64 = 3000;
const MEMORY_MIB: f64 = 100.0;

/// Which region, and what is done with it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The program `leeward`.
    #[arg(long)]
    program: PathBuf,
    /// Files that kubectl applies before memory is measured once more.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    manifest: Vec<PathBuf>,
    /// The kubectl of the session after which memory is measured once more; without one there is no session.
    #[arg(long, default_value = "kubectl")]
    kubectl: PathBuf,
    /// How long to wait before each measurement, in seconds, so that what was needed once is given back.
    #[arg(long, default_value_t = 5)]
    settle: u64,
    /// Where the figures are written as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What a person asks a cluster in the first minutes.
const SESSION: &[&[&str]] = &[
    &["api-resources"],
    &["get", "nodes,pods,services,deployments", "-A", "-o", "wide"],
    &["explain", "deployment.spec.template.spec.containers"],
    &["create", "namespace", "bench"],
    &["create", "configmap", "one", "-n", "bench", "--from-literal=a=b"],
    &[
        "create",
        "deployment",
        "web",
        "-n",
        "bench",
        "--image=none:1",
        "--replicas=0",
    ],
    &["describe", "deployment", "web", "-n", "bench"],
    &["set", "env", "deployment/web", "-n", "bench", "A=b"],
    &["scale", "deployment/web", "-n", "bench", "--replicas=0"],
    &["rollout", "history", "deployment/web", "-n", "bench"],
    &["describe", "node"],
    &["get", "events", "-A"],
    &["get", "crds"],
];

/// Regions that end with this.
pub(crate) struct Home {
    program: PathBuf,
    directory: tempfile::TempDir,
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

impl Home {
    /// A directory for regions of this program; nothing runs yet.
    pub(crate) fn new(program: &Path) -> Result<Self> {
        Ok(Self {
            program: program.to_owned(),
            directory: tempfile::tempdir()?,
        })
    }

    /// Where they are.
    pub(crate) fn dir(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Runs the program with them; what it prints.
    pub(crate) fn run(&self, arguments: &[impl AsRef<OsStr> + Debug]) -> Result<String> {
        let mut command = Command::new(&self.program);
        let output = command.args(arguments).env("LEEWARD_HOME", self.dir()).output();
        let output = output.with_context(|| self.program.display().to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }
}

/// Starts two regions, measures the first, and says whether it keeps within what a region may take.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let home = Home::new(&options.program)?;
    let started = home.run(&["up"])?;
    let instance = Instance::open(&home.dir())?;
    let region = instance.regions().first().context("no region")?.clone();
    let ready = started
        .lines()
        .find_map(|line| {
            line.strip_prefix(&format!("region {region} is ready ("))?
                .strip_suffix(" ms)")
        })
        .and_then(|ms| ms.parse::<u64>().ok())
        .context("leeward up does not say how long it took")?;
    println!("two regions were started at once; {region} was Ready after {ready} ms");
    let mut figures = vec![Figure::alone("region/ready", ready as f64, "ms")];
    let mut most = 0.0_f64;
    let mut note = |when: &str| -> Result<()> {
        let sum = measure(&instance, &region, when, options)?;
        figures.push(Figure::alone(format!("region/memory, {when}"), sum, "MiB"));
        most = most.max(sum);
        Ok(())
    };
    note("idle")?;
    let kubeconfig = instance.kubeconfig(&region)?;
    if session(&options.kubectl, &kubeconfig)? {
        note("after a session of kubectl")?;
    }
    for file in &options.manifest {
        let mut kubectl = Command::new(&options.kubectl);
        kubectl
            .args(["apply", "--server-side", "-f"])
            .arg(file)
            .env("KUBECONFIG", &kubeconfig);
        let status = kubectl.stdout(Stdio::null()).status().context("kubectl")?;
        println!("\napplied {}: {status}", file.display());
    }
    if !options.manifest.is_empty() {
        note("after the manifests")?;
    }
    figure::write(options.json.as_deref(), &figures)?;
    let within = ready < READY_MS && most < MEMORY_MIB;
    println!(
        "\nReady in {ready} ms of {READY_MS}; {most:.1} MiB (RSS) of {MEMORY_MIB} at most: {}",
        if within { "within" } else { "NOT within" }
    );
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the session. Whether kubectl is there; what it says is not looked at.
pub(crate) fn session(kubectl: &Path, kubeconfig: &Path) -> Result<bool> {
    for arguments in SESSION {
        let mut command = Command::new(kubectl);
        command
            .args(*arguments)
            .env("KUBECONFIG", kubeconfig)
            .stdout(Stdio::null());
        match command.status() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("\nno session: {} is not there", kubectl.display());
                return Ok(false);
            }
            Err(error) => return Err(error).context("kubectl"),
            Ok(status) if !status.success() => println!("kubectl {}: {status}", arguments.join(" ")),
            Ok(_) => {}
        }
    }
    Ok(true)
}

/// Prints each process of a region; the sum of their RSS, in MiB.
fn measure(instance: &Instance, region: &str, when: &str, options: &Options) -> Result<f64> {
    std::thread::sleep(Duration::from_secs(options.settle));
    println!(
        "\n{when}, in MiB:\n  {:<16} {:>8} {:>8} {:>8} {:>8}",
        "", "RSS", "PSS", "anon", "threads"
    );
    let mut sum = [0.0; 3];
    let mut records = instance.processes()?;
    records.retain(|record| record.region.as_deref() == Some(region));
    for record in records {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", record.pid))?;
        let figures = ["Rss:", "Pss:", "Anonymous:"].map(|name| mib(&rollup, name));
        let threads = fs::read_dir(format!("/proc/{}/task", record.pid))?.count();
        println!(
            "  {:<16} {:>8.1} {:>8.1} {:>8.1} {threads:>8}",
            record.name, figures[0], figures[1], figures[2]
        );
        for (sum, figure) in sum.iter_mut().zip(figures) {
            *sum += figure;
        }
    }
    println!("  {:<16} {:>8.1} {:>8.1} {:>8.1}", "all", sum[0], sum[1], sum[2]);
    Ok(sum[0])
}

fn mib(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
