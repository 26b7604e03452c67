//! `leeward-api-diff`, which `cargo xtask api-diff` runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use futures::StreamExt as _;
use leeward_api_diff::case::{self, Case};
use leeward_api_diff::difference::{Accepted, Difference, differences};
use leeward_api_diff::session::{self, play::Cluster};
use leeward_api_diff::{Words, answers, manifest, recorded, target};

/// Plays cases against a local region and a real API server and prints each difference in status, body, warnings or
/// order of events. Exits 1 when one is not accepted.
#[derive(Parser)]
#[command(name = "cargo xtask api-diff")]
struct Options {
    /// The kubeconfig of the real cluster. Cases make namespaces and other objects there and delete them again.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Compare the cluster of this kubeconfig, in place of a local region that is started for the purpose.
    #[arg(long)]
    local: Option<PathBuf>,
    /// The directory of the cases.
    #[arg(long, default_value_os_t = here("cases"))]
    cases: PathBuf,
    /// The list of accepted differences.
    #[arg(long, default_value_os_t = here("accepted.yaml"))]
    accepted: PathBuf,
    /// Play only cases whose file or name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Keep the real server's answers, which the tests hold a local region to.
    #[arg(long)]
    record: bool,
    /// Where the real server's answers are kept.
    #[arg(long, default_value_os_t = here("answers"))]
    answers: PathBuf,
    /// In place of the cases: apply the documents of these files to both sides, read every object back and compare.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    manifest: Vec<PathBuf>,
    /// Print the real server's answers too.
    #[arg(long)]
    verbose: bool,
    /// Play the sessions of kubectl in place of the cases. With `--local` the sessions that need pods are played too; both
    /// clusters must have `--image` then.
    #[arg(long)]
    session: bool,
    /// The directory of the sessions.
    #[arg(long, default_value_os_t = here("session"))]
    sessions: PathBuf,
    /// The kubectl that plays them.
    #[arg(long, default_value = "kubectl")]
    kubectl: PathBuf,
    /// The image of the sessions' pods: busybox, with `sh -c` as its entry point.
    #[arg(long, default_value = "box:1")]
    image: String,
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let accepted = Accepted::read(&options.accepted)?;
    let started = match &options.local {
        Some(_) => None,
        None => Some(target::Local::start().await?),
    };
    let kubeconfig = options
        .local
        .clone()
        .or(started.as_ref().map(target::Local::kubeconfig))
        .unwrap_or_default();
    if options.session {
        return sessions(&options, &kubeconfig).await;
    }
    let real = target::client(&options.kubeconfig).await?;
    let local = target::client(&kubeconfig).await?;
    if !options.manifest.is_empty() {
        return manifests(&options.manifest, &accepted, &local, &real).await;
    }
    let mut tally = Tally::default();
    for (stem, cases) in case::read(&options.cases)? {
        let chosen: Vec<&Case> = cases.iter().filter(|case| options.chooses(&stem, case)).collect();
        let mut played = futures::stream::iter(chosen)
            .map(|case| compare(case, &local, &real))
            .buffered(8);
        let mut file = recorded::read(&options.answers, &stem)?;
        file.retain(|name, _| cases.iter().any(|case| case.name == *name));
        let mut any = false;
        while let Some(outcome) = played.next().await {
            any = true;
            if options.verbose
                && let Some(answers) = &outcome.real
            {
                println!("{}: {}", outcome.case.name, serde_json::to_string_pretty(answers)?);
            }
            if let Some(answers) = &outcome.real {
                file.insert(outcome.case.name.clone(), answers.clone());
            }
            tally.count(outcome, &accepted);
        }
        if options.record && any {
            recorded::write(&options.answers, &stem, &file)?;
        }
    }
    tally.print(&accepted);
    Ok(if tally.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn manifests(
    files: &[PathBuf],
    accepted: &[Accepted],
    local: &kube::Client,
    real: &kube::Client,
) -> Result<ExitCode> {
    let mut report = manifest::compare(files, local, real).await?;
    report
        .differences
        .retain(|difference| !accepted.iter().any(|entry| entry.covers(difference)));
    for difference in &report.differences {
        println!("{difference}");
    }
    println!(
        "{} objects: {} differences\nlocal region: {}\nreal API server: {}",
        report.objects,
        report.differences.len(),
        report.local,
        report.real
    );
    Ok(if report.differences.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Options {
    fn chooses(&self, stem: &str, case: &Case) -> bool {
        self.filter
            .as_deref()
            .is_none_or(|filter| stem.contains(filter) || case.name.contains(filter))
    }
}

/// Plays the sessions one after the other, each on both clusters at the same time.
async fn sessions(options: &Options, local: &Path) -> Result<ExitCode> {
    let cluster = |kubeconfig| Cluster::new(kubeconfig, &options.kubectl, &options.image);
    let (local, real) = (cluster(local).await?, cluster(&options.kubeconfig).await?);
    let (mut commands, mut accepted, mut wrong) = (0, 0, 0);
    for session in session::read(&options.sessions)? {
        if options
            .filter
            .as_ref()
            .is_some_and(|filter| !session.name.contains(filter))
        {
            continue;
        }
        if session.pods && !(local.has_nodes() && real.has_nodes()) {
            println!("{}: skipped, it needs nodes on both sides", session.name);
            continue;
        }
        let (here, there) = tokio::join!(local.play(&session), real.play(&session));
        let (here, there) = (here?, there?);
        if options.verbose {
            println!("{}: {}", session.name, serde_json::to_string_pretty(&there)?);
        }
        if options.record {
            session::record(&options.sessions.join("recorded"), &session.name, &there)?;
        }
        for difference in session::compare::differences(&session, &here, &there) {
            wrong += 1;
            println!("{difference}");
        }
        commands += session.steps.len();
        accepted += session.steps.iter().filter(|step| step.accepted.is_some()).count();
    }
    println!("{commands} commands: {wrong} print something else, {accepted} more are accepted");
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Outcome<'a> {
    case: &'a Case,
    real: Option<Vec<recorded::Recorded>>,
    differences: Result<Vec<Difference>, String>,
}

async fn compare<'a>(case: &'a Case, local: &kube::Client, real: &kube::Client) -> Outcome<'a> {
    let words = Words::new();
    let (local, real) = tokio::join!(answers(local, case, &words), answers(real, case, &words));
    let kept = |answers: Vec<_>| recorded::record(case, &answers);
    let (local, real) = (local.map(kept), real.map(kept));
    let differences = match (&local, &real) {
        (Ok(local), Ok(real)) => Ok(local
            .iter()
            .zip(real)
            .enumerate()
            .flat_map(|(index, (local, real))| differences(&case.name, index, local, real))
            .collect()),
        (Err(error), _) => Err(format!("on the local region: {error:#}")),
        (_, Err(error)) => Err(format!("on the real API server: {error:#}")),
    };
    Outcome {
        case,
        real: real.ok(),
        differences,
    }
}

#[derive(Default)]
struct Tally {
    cases: usize,
    steps: usize,
    differences: usize,
    accepted: usize,
    broken: usize,
    used: std::collections::BTreeSet<usize>,
}

impl Tally {
    fn count(&mut self, outcome: Outcome<'_>, accepted: &[Accepted]) {
        self.cases += 1;
        self.steps += outcome.case.steps.len();
        match outcome.differences {
            Err(error) => {
                self.broken += 1;
                println!("{}\n    could not be played: {error}", outcome.case.name);
            }
            Ok(differences) => {
                for difference in differences {
                    if let Some(entry) = accepted.iter().position(|entry| entry.covers(&difference)) {
                        self.accepted += 1;
                        self.used.insert(entry);
                    } else {
                        self.differences += 1;
                        println!("{difference}");
                    }
                }
            }
        }
    }

    fn failed(&self) -> bool {
        self.differences + self.broken > 0
    }

    fn print(&self, accepted: &[Accepted]) {
        println!(
            "{} cases, {} requests: {} differences, {} more accepted ({} entries in the list), {} cases not played to \
             their end",
            self.cases,
            self.steps,
            self.differences,
            self.accepted,
            accepted.len(),
            self.broken
        );
        for (index, entry) in accepted.iter().enumerate() {
            if !self.used.contains(&index) {
                println!(
                    "accepted, but not met in this run: {} ({})",
                    entry.at,
                    entry.reason.trim()
                );
            }
        }
    }
}
