//! Which quorum local regions have, and `leeward quorum`: how one is, and what to do when most of it is lost.

mod adopt;
mod auth;
mod judge;
pub(crate) mod members;
mod recover;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use leeward_controller::{clock, config, quorum::settings};
use leeward_core::lease::{Delays, Timing};
use leeward_local::instance::Instance;
use leeward_local::instance::quorum::ELECTION_MS;
use leeward_quorum::certificate::{self, Certificate, Trouble};
use leeward_quorum::etcd::{
    self,
    status::{self, Status},
};
use leeward_quorum::pin::{self, Pin};

use crate::{output, process, up::Place, values};

/// How long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The store that leases and decisions live in.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quorum {
    /// One copy in the witness's process: nothing needs to be installed.
    Embedded,
    /// etcd, with a member in each region and one beside the witness.
    Etcd,
}

impl Quorum {
    /// Refuses a lease that is too short for it, before anything is started.
    pub(crate) fn check(self, ttl: Duration) -> anyhow::Result<()> {
        let delays = match self {
            Self::Embedded => Delays::WITHOUT_ELECTIONS,
            Self::Etcd => Delays::with_election(Duration::from_millis(u64::from(ELECTION_MS))),
        };
        Timing::new(ttl, delays)?;
        Ok(())
    }

    /// The program that it needs, where it needs one.
    pub(crate) fn program(self) -> anyhow::Result<Option<PathBuf>> {
        if self == Self::Embedded {
            return Ok(None);
        }
        match find(&["etcd"]) {
            Some(program) => Ok(Some(program)),
            None => bail!(
                "etcd is in no directory of PATH, and a quorum on etcd needs it: install version 3.4 or later (Debian, Ubuntu: \
                 `apt-get install etcd-server`), or leave --quorum out for the embedded one"
            ),
        }
    }
}

/// The first of these programs that is there.
fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where `cargo xtask test` unpacks them.
    let unpacked = std::env::current_dir().map(|directory| directory.join("target/tools/usr/bin"));
    let directories: Vec<PathBuf> = std::env::split_paths(&path).chain(unpacked).collect();
    let files = names
        .iter()
        .flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    files.into_iter().find(|file| file.is_file())
}

/// Which region's agent a command is about.
#[derive(Args, Debug)]
struct Which {
    /// The configuration file of the agent.
    #[arg(long, value_name = "FILE", required_unless_present = "region")]
    config: Option<PathBuf>,
    /// A local region, in place of a configuration file.
    #[arg(long, value_name = "REGION", conflicts_with = "config", value_parser = values::name)]
    region: Option<String>,
    #[command(flatten)]
    place: Place,
}

impl Which {
    /// The agent's configuration, and the local regions where it is one of them.
    fn open(&self) -> anyhow::Result<(config::Serve, Option<Instance>)> {
        if let Some(file) = &self.config {
            return Ok((config::read(file)?, None));
        }
        let region = self
            .region
            .as_deref()
            .context("neither --config nor --region is given")?;
        let instance = self.place.open()?;
        instance.addresses(region)?;
        let serve = config::read(&instance.layout().config(Some(region), "serve"))?;
        Ok((serve, Some(instance)))
    }
}

/// `leeward quorum`
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Shows the quorum's incarnation and members, how many may still be lost, its alarms, and when its certificates end
    Status(Arguments),
    /// Begins a new incarnation from the member that is left, after a majority of the members was lost for good
    Recover(recover::Arguments),
    /// Tells a region that is left that the quorum was begun anew, or which one is right where its own record is damaged
    Adopt(adopt::Arguments),
    /// Prints the commands that let etcd answer the agents alone, each known by its certificate
    Auth(auth::Arguments),
}

/// `leeward quorum status`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The configuration file of an agent, whose quorum is asked as the agent asks it; the first local region's without it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Runs one of them.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Status(arguments) => return show(arguments),
        Command::Recover(arguments) => recover::run(arguments)?,
        Command::Adopt(arguments) => adopt::run(arguments)?,
        Command::Auth(arguments) => auth::run(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks and prints. Fails where no decision can be made, an alarm is raised, or a certificate has ended.
fn show(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let file = match &arguments.config {
        Some(file) => file.clone(),
        None => {
            let instance = arguments.place.open()?;
            instance.layout().config(Some(asked_in(&instance)), "serve")
        }
    };
    let serve: config::Serve = config::read(Path::new(&file))?;
    let etcd = match &serve.quorum {
        config::Quorum::Embedded { url } => {
            output::line(format_args!(
                "the quorum is embedded: one copy, in the witness at {url}; losing it counts as losing the majority"
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        config::Quorum::Etcd(etcd) => {
            // A damaged record is no reason to show nothing: this is how it is found out which quorum is the right one.
            let known = pin::read(&pin::path(&serve.data_dir)).unwrap_or_else(|error| {
                output::say(error);
                None
            });
            of(settings(etcd, &serve, PATIENCE)?, known)
        }
    };
    let runtime = process::runtime(1)?;
    let status = runtime
        .block_on(status::ask(&etcd))
        .context("the quorum's members were asked")?;
    let certificates = runtime
        .block_on(certificate::look(&etcd))
        .context("the quorum's certificates were read")?;
    let now = i64::try_from(clock::wall_ms() / 1000)?;
    output::write(&(render(&status) + &terms(&certificates, now)))?;
    let over = |one: &Certificate| matches!(one.trouble(now), Some(Trouble::Over(_)));
    let well = status.spare().is_some()
        && !two_quorums(&status)
        && status.alarms.as_ref().is_some_and(Vec::is_empty)
        && !certificates.iter().flatten().any(over);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The local region whose agent is asked for: that of the only member where the quorum was begun anew.
pub(crate) fn asked_in(instance: &Instance) -> &str {
    instance
        .begun()
        .map_or(instance.regions()[0].as_str(), |begun| begun.region.as_str())
}

/// The quorum that an agent knows as its own, where it does: what else answers is another one.
pub(crate) fn of(settings: etcd::Config, known: Option<Pin>) -> etcd::Config {
    etcd::Config {
        cluster: known.map_or(0, |pin| pin.cluster),
        ..settings
    }
}

/// Whether an endpoint is of another quorum, or two members say that they lead.
fn two_quorums(status: &Status) -> bool {
    let answering = status.endpoints.iter().zip(members::judge(status));
    answering
        .filter(|(member, _)| member.state.as_ref().is_ok_and(|state| state.leader != 0))
        .any(|(_, finding)| finding.grave)
}

fn render(status: &Status) -> String {
    let verdict = match status.spare() {
        None => "NO majority answers: nothing is decided, and writers stop when their leases end".to_owned(),
        Some(0) => "none may be lost any more".to_owned(),
        Some(spare) => format!("{spare} may still be lost"),
    };
    let incarnation = status.incarnation.map(|number| format!("incarnation {number}, "));
    let mut text = format!(
        "etcd cluster {:x}, {}{} members: {verdict}\n\n",
        status.cluster,
        incarnation.unwrap_or_default(),
        status.members
    );
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "ENDPOINT", "MEMBER", "STATE", "TERM", "REVISION", "SIZE", "IN USE", "VERSION",
    ]);
    let findings = members::judge(status);
    for (member, finding) in status.endpoints.iter().zip(&findings) {
        match &member.state {
            Ok(state) => table.add_row([
                member.endpoint.clone(),
                format!("{:x}", state.id),
                finding.word.to_owned(),
                state.term.to_string(),
                state.revision.to_string(),
                kib(state.size),
                kib(state.used),
                state.version.clone(),
            ]),
            Err(_) => table.add_row([member.endpoint.as_str(), "", finding.word]),
        };
    }
    text += &table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect::<String>();
    for (member, finding) in status.endpoints.iter().zip(&findings) {
        if let Some(mend) = &finding.mend {
            text += &format!("\n{} {}\n  -> {mend}\n", member.endpoint, finding.text);
        }
    }
    status.troubles().iter().for_each(|trouble| text += &line(trouble));
    text
}

fn line(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Soon(text) => format!("\nWARNING: {text}\n"),
        Trouble::Over(text) => format!("\nALARM: {text}\n"),
    }
}

/// When each certificate ends, and what to do about those that do so soon.
fn terms(certificates: &[Result<Certificate, String>], now: i64) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["CERTIFICATE", "SUBJECT", "COUNTS"]);
    let mut troubles = String::new();
    for one in certificates.iter().flatten() {
        table.add_row([one.whose.to_string(), one.subject.clone(), one.term(now)]);
        troubles.extend(one.trouble(now).as_ref().map(line));
    }
    for why in certificates.iter().filter_map(|one| one.as_ref().err()) {
        troubles += &format!("\nits certificate cannot be seen: {why}\n");
    }
    let rows = match certificates.iter().any(Result::is_ok) {
        true => {
            table
                .lines()
                .map(|line| format!("\n{}", line.trim_end()))
                .collect::<String>()
                + "\n"
        }
        false => String::new(),
    };
    rows + &troubles
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use leeward_core::name::Incarnation;
    use leeward_quorum::etcd::status::{Alarm, Member, State};

    use super::*;

    fn member(name: &str, id: u64) -> Member {
        let state = State {
            id,
            cluster: 0xabc,
            incarnation: Some(Incarnation(1)),
            version: "3.4.23".into(),
            leader: 7,
            term: 2,
            revision: 40,
            size: 20480,
            used: 8192,
            quota: Some(100 << 10),
        };
        Member {
            endpoint: format!("https://{name}:2379"),
            state: Ok(state),
        }
    }

    #[test]
    fn it_is_said_how_many_may_still_be_lost_and_what_to_do_about_alarms() {
        let mut status = Status {
            cluster: 0xabc,
            incarnation: Some(Incarnation(1)),
            members: 3,
            ids: None,
            endpoints: vec![member("a", 7), member("b", 8), member("c", 9)],
            alarms: Some(vec![]),
        };
        assert!(render(&status).starts_with("etcd cluster abc, incarnation 1, 3 members: 1 may still be lost\n"));
        let silent = Err("the quorum does not answer".to_owned());
        status.endpoints[2].state = silent.clone();
        let text = render(&status);
        assert!(
            text.contains("none may be lost any more")
                && text.contains("\nhttps://c:2379 does not answer: the quorum does not answer\n  -> start it"),
            "{text}"
        );
        status.endpoints[1].state = silent;
        status.incarnation = None;
        status.alarms = Some(vec![(7, Alarm::NoSpace)]);
        let text = render(&status);
        assert!(text.contains("NO majority") && text.contains("alarm disarm"), "{text}");
        assert!(
            text.contains("\nALARM: member 7 of etcd") && !text.contains("WARNING"),
            "{text}"
        );
        status.endpoints[0] = member("a", 7);
        let used = status.endpoints[0].state.as_mut().map(|state| state.size = 90 << 10);
        assert!(used.is_ok() && render(&status).contains("\nWARNING: https://a:2379 has used"));
    }

    #[test]
    fn it_is_said_when_each_certificate_ends_and_what_to_do_about_it() {
        use leeward_quorum::certificate::Whose;
        const DAY: i64 = 24 * 3600;
        let one = |whose, days: i64| {
            Ok(Certificate {
                whose,
                subject: "CN=west".into(),
                from: 0,
                until: 20_000 * DAY + days * DAY,
            })
        };
        assert_eq!(terms(&[], 20_000 * DAY), "");
        let text = terms(
            &[
                one(Whose::Authority, 400),
                one(Whose::Client, 3),
                one(Whose::Member("https://a:2379".into()), 0),
                Err("https://b:2379: no answer".into()),
            ],
            20_000 * DAY,
        );
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[1].contains("CERTIFICATE") && lines[2].contains("400 days left"),
            "{text}"
        );
        for part in [
            "\nWARNING: this agent's certificate for the quorum (CN=west) ends in 3 days",
            "\nALARM: the certificate of https://a:2379 (CN=west) has ended on 2024-10-04",
            "\nits certificate cannot be seen: https://b:2379: no answer",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }

    #[test]
    fn a_lease_too_short_for_elections_is_refused_before_anything_starts() {
        let second = Duration::from_secs(1);
        assert!(Quorum::Embedded.check(second).is_ok());
        let error = Quorum::Etcd.check(second).unwrap_err().to_string();
        assert!(error.contains("1.383s"), "{error}");
    }
}
