//! `cargo xtask test`: every check that a change must pass, one after the other, all of them even when one fails.
//!
//! Exit: 0 when all that ran passed, 1 when one failed. A check whose tool is missing is skipped and listed last; with
//! `--require-all` that is a failure too, except for what no package registry has: a real kube-apiserver with etcd, and helm.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tools::{DENY, ETCD, ETCDCTL, KUBECTL, NEXTEST, Tool, Tools};
use crate::workspace::{Workspace, cargo};
use crate::{arrows, generate, pages};

/// One check.
struct Check {
    name: &'static str,
    work: Work,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

/// What does a check.
enum Work {
    /// A function of this program.
    Here(fn(&Workspace) -> Result<()>),
    /// Cargo, with the check's arguments.
    Cargo,
    /// A tool, with the check's arguments.
    Tool(Tool),
}

impl Check {
    const fn new(name: &'static str, work: Work, arguments: &'static [&'static str]) -> Self {
        Self {
            name,
            work,
            arguments,
            environment: &[],
        }
    }
}

/// Cheap ones first; the tests last, so that their summary is what is read last.
const CHECKS: &[Check] = &[
    Check::new("format", Work::Cargo, &["fmt", "--all", "--check"]),
    Check::new("arrows between the crates", Work::Here(arrows::check), &[]),
    Check::new("generated files", Work::Here(generate::check), &[]),
    Check::new("pages", Work::Here(pages::check), &[]),
    Check::new(
        "dependencies",
        Work::Tool(DENY),
        &["check", "licenses", "bans", "sources"],
    ),
    Check::new(
        "lints",
        Work::Cargo,
        &[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
    ),
    Check::new(
        "lints of what tests add",
        Work::Cargo,
        &[
            "clippy",
            "--locked",
            "--package",
            "leeward",
            "--all-targets",
            "--features",
            "leeward/unfenced",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
    ),
    Check {
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        ..Check::new(
            "documentation",
            Work::Cargo,
            &["doc", "--locked", "--workspace", "--no-deps", "--quiet"],
        )
    },
    Check::new(
        "examples in the documentation",
        Work::Cargo,
        &["test", "--locked", "--workspace", "--doc", "--quiet"],
    ),
    Check::new(
        "tests",
        Work::Tool(NEXTEST),
        &[
            "nextest",
            "run",
            "--locked",
            "--workspace",
            "--no-fail-fast",
            "--features",
            "leeward/unfenced",
        ],
    ),
];

/// Tools that some tests use and others do not, with the name of what is left out without them.
const USED_BY_TESTS: &[(&str, Tool)] = &[
    ("tests with kubectl", KUBECTL),
    ("tests with etcd", ETCD),
    ("tests with etcdctl", ETCDCTL),
];

/// What the tests on a real API server need; `leeward-testing` looks in the same places, which are envtest's.
const API_SERVER: &[&str] = &["etcd", "kube-apiserver"];

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
    /// Skipped, and nobody can be required to have what it needs.
    Unavailable(String),
}

/// Runs every check.
///
/// # Errors
/// When a check failed, or was skipped although `require_all`.
pub(crate) fn run(workspace: &Workspace, require_all: bool) -> Result<()> {
    let tools = Tools::new(workspace);
    let mut done = Vec::new();
    for (name, tool) in USED_BY_TESTS {
        // The tests themselves look for it and leave out what needs it.
        if let Err(missing) = tools.get(tool) {
            done.push((*name, Outcome::Skipped(format!("{missing:#}")), Duration::ZERO));
        }
    }
    let directory = std::env::var_os("KUBEBUILDER_ASSETS").filter(|set| !set.is_empty());
    let directory = directory.unwrap_or("/usr/local/kubebuilder/bin".into());
    if let Some(outcome) = api_server(Path::new(&directory)) {
        done.push(("tests on a real API server", outcome, Duration::ZERO));
    }
    if tools.find("helm").is_none() {
        let missing = Outcome::Unavailable("no directory of PATH or LEEWARD_TOOLS has `helm` (helm.sh)".to_owned());
        done.push(("the chart as helm renders it", missing, Duration::ZERO));
    }
    if let Some(outcome) = networks(&tools) {
        done.push(("tests of links that are cut", outcome, Duration::ZERO));
    }
    for check in CHECKS {
        println!("\n== {}", check.name);
        let began = Instant::now();
        let outcome = check.run(workspace, &tools);
        match &outcome {
            Outcome::Passed => {}
            Outcome::Failed(why) => println!("FAILED: {why}"),
            Outcome::Skipped(why) | Outcome::Unavailable(why) => println!("skipped: {why}"),
        }
        done.push((check.name, outcome, began.elapsed()));
    }
    println!("\n{}", summary(&done));
    verdict(&done, require_all)
}

impl Check {
    fn run(&self, workspace: &Workspace, tools: &Tools) -> Outcome {
        let command = match &self.work {
            Work::Here(check) => return outcome(check(workspace)),
            Work::Cargo => cargo(),
            Work::Tool(tool) => match tools.get(tool) {
                Ok(program) => Command::new(program),
                Err(missing) => return Outcome::Skipped(format!("{missing:#}")),
            },
        };
        outcome(self.execute(command, workspace, tools))
    }

    fn execute(&self, mut command: Command, workspace: &Workspace, tools: &Tools) -> Result<()> {
        command
            .args(self.arguments)
            .current_dir(workspace.root())
            .env("PATH", tools.path()?);
        command.envs(self.environment.iter().copied());
        let status = command
            .status()
            .with_context(|| format!("{:?} cannot be started", command.get_program()))?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

/// What is said of the tests on a real API server, where its programs are missing.
fn api_server(directory: &Path) -> Option<Outcome> {
    let missing: Vec<&str> = API_SERVER
        .iter()
        .copied()
        .filter(|name| !directory.join(name).is_file())
        .collect();
    (!missing.is_empty()).then(|| {
        Outcome::Unavailable(format!(
            "no {} in {}; set KUBEBUILDER_ASSETS to a directory with both (setup-envtest makes one)",
            missing.join(" and "),
            directory.display()
        ))
    })
}

/// What is said of the tests that run regions in network namespaces, where those cannot be made.
fn networks(tools: &Tools) -> Option<Outcome> {
    use std::os::unix::fs::MetadataExt as _;
    // A process owns its own directory below /proc.
    let root = std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    let missing = match (root, tools.find("ip")) {
        (true, Some(_)) => return None,
        (false, _) => "network namespaces need root",
        (true, None) => "no directory of PATH has `ip` (Debian, Ubuntu: `apt-get install iproute2`)",
    };
    Some(Outcome::Unavailable(missing.to_owned()))
}

fn outcome(result: Result<()>) -> Outcome {
    result.map_or_else(|error| Outcome::Failed(format!("{error:#}")), |()| Outcome::Passed)
}

type Done = (&'static str, Outcome, Duration);

/// One line a check; what was skipped comes last.
fn summary(done: &[Done]) -> String {
    let line = |(name, outcome, took): &Done| match outcome {
        Outcome::Passed => format!("passed   {name} ({} s)", took.as_secs()),
        Outcome::Failed(why) => format!("FAILED   {name}: {why}"),
        Outcome::Skipped(why) | Outcome::Unavailable(why) => format!("skipped  {name}: {why}"),
    };
    let (skipped, ran): (Vec<_>, Vec<_>) = done
        .iter()
        .partition(|(_, outcome, _)| matches!(outcome, Outcome::Skipped(_) | Outcome::Unavailable(_)));
    ran.into_iter().chain(skipped).map(line).collect::<Vec<_>>().join("\n")
}

fn verdict(done: &[Done], require_all: bool) -> Result<()> {
    let failed = done
        .iter()
        .filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)))
        .count();
    let skipped = done
        .iter()
        .filter(|(_, outcome, _)| matches!(outcome, Outcome::Skipped(_)))
        .count();
    match (failed, skipped) {
        (0, 0) => Ok(()),
        (0, skipped) if require_all => bail!("{skipped} checks were skipped and --require-all was given"),
        (0, _) => Ok(()),
        (failed, _) => bail!("{failed} of {} checks failed", done.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(outcomes: &[Outcome]) -> Vec<Done> {
        outcomes
            .iter()
            .map(|outcome| ("check", outcome.clone(), Duration::ZERO))
            .collect()
    }

    #[test]
    fn a_skipped_check_fails_only_when_all_are_required() {
        let skipped = || Outcome::Skipped("no tool".into());
        let failed = || Outcome::Failed("exit status: 1".into());
        for (outcomes, require_all, passes) in [
            (vec![Outcome::Passed], true, true),
            (vec![Outcome::Passed, skipped()], false, true),
            (vec![Outcome::Passed, skipped()], true, false),
            (vec![failed()], false, false),
            (vec![failed(), skipped()], false, false),
            (vec![Outcome::Passed, Outcome::Unavailable("none".into())], true, true),
        ] {
            assert_eq!(
                verdict(&done(&outcomes), require_all).is_ok(),
                passes,
                "{outcomes:?} {require_all}"
            );
        }
    }

    #[test]
    fn a_real_api_server_is_there_when_both_programs_are() {
        let directory = tempfile::tempdir().unwrap();
        let Some(Outcome::Unavailable(why)) = api_server(directory.path()) else {
            panic!("both are missing");
        };
        assert!(why.starts_with("no etcd and kube-apiserver in "), "{why}");
        for name in API_SERVER {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(api_server(directory.path()), None);
    }

    #[test]
    fn what_was_skipped_is_listed_last() {
        let text = summary(&done(&[Outcome::Skipped("no tool".into()), Outcome::Passed]));
        assert_eq!(text, "passed   check (0 s)\nskipped  check: no tool");
    }
}
