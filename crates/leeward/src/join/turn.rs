//! How long what was given counts, and what comes in its place.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{
    Place,
    directory::{self, Directory},
    installation::{self, Holder, KeyStep, Step, Stepped},
    issue,
};
use crate::output;

/// `leeward join status`
#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    place: Place,
}

/// `leeward join rotate`
#[derive(Args, Debug)]
pub(crate) struct Rotate {
    /// Whose: a cluster's name, `witness`, or `etcd/NAME`; all of them where nothing is said.
    names: Vec<String>,
    /// Also a certificate with more than half of its time left, such as one whose key somebody else may have seen.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: Place,
}

/// `leeward join authority` and `leeward join spec-key`
#[derive(Args, Debug)]
pub(crate) struct Stepping<S: clap::ValueEnum + Clone + Send + Sync + 'static> {
    /// The step.
    #[arg(value_enum)]
    step: S,
    #[command(flatten)]
    place: Place,
}

pub(super) fn status(arguments: &Status) -> anyhow::Result<()> {
    let (directory, installation) = arguments.place.open()?;
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["FOR", "REACHED AT", "CERTIFICATE", "GIVEN"]);
    for holder in installation.holders() {
        let given = match installation.given.get(&holder.key()) {
            None => "never",
            Some(generation) if *generation == installation.generation => "as it is",
            Some(_) => "what was before",
        };
        let hosts = installation.hosts(&holder).unwrap_or_default();
        let term = term(&directory, &holder)?;
        table.add_row([holder.key(), hosts[0].clone(), term, given.to_owned()]);
    }
    for number in &installation.authority.trusted {
        let authority = issue::read_authority(&directory, *number)?;
        let signs = if *number == installation.authority.signs {
            "signs"
        } else {
            "is trusted"
        };
        let until = issue::end(&authority)?;
        table.add_row([
            format!("authority {number}"),
            signs.to_owned(),
            left(until),
            String::new(),
        ]);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    output::write(&lines.collect::<String>())?;
    if let Some(next) = installation.next() {
        output::line(format_args!("\n{}", coming(next)))?;
    }
    if installation.spec_key.next.is_some() {
        output::line(format_args!("\n{KEY_NEXT}"))?;
    }
    Ok(())
}

/// For how long a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    /// There is none that could be read: the next one given is new.
    Missing,
    /// It has ended.
    Ended,
    /// So many days more.
    Days(u64),
}

/// A certificate that was made here, as `leeward doctor` looks at it.
pub(crate) struct Paper {
    /// Whose it is.
    pub(crate) name: String,
    /// For how long it counts.
    pub(crate) term: Term,
    /// Whether its holder was given the newest of everything.
    pub(crate) newest: bool,
    /// What to do about it.
    pub(crate) mend: String,
}

/// All certificates that were made in this directory.
pub(crate) fn look(dir: &Path) -> anyhow::Result<Vec<Paper>> {
    let opened = directory::open(dir)?;
    let (directory, installation) = opened.with_context(|| format!("there is no installation in {}", dir.display()))?;
    let days = |until: u64| match until.checked_sub(issue::now()) {
        Some(left) => Term::Days(left / (24 * 3600)),
        None => Term::Ended,
    };
    let mut papers = vec![];
    for number in &installation.authority.trusted {
        let until = issue::end(&issue::read_authority(&directory, *number)?)?;
        papers.push(Paper {
            name: format!("authority {number}"),
            term: days(until),
            newest: true,
            mend: "`leeward join authority trust` begins a new one".to_owned(),
        });
    }
    for holder in installation.holders() {
        let key = holder.key();
        let text = directory.read(&directory.certificate(&holder))?;
        let abouts = text.and_then(|text| leeward_pki::abouts(text.as_bytes()).ok());
        let until = abouts.and_then(|all| all.first().map(|about| about.until));
        papers.push(Paper {
            term: until.map_or(Term::Missing, days),
            newest: installation.given.get(&key) == Some(&installation.generation),
            mend: format!("give it what `{}` writes", installation::command(&key)),
            name: key,
        });
    }
    Ok(papers)
}

/// How long the certificate that is there counts.
fn term(directory: &Directory, holder: &Holder) -> anyhow::Result<String> {
    let Some(text) = directory.read(&directory.certificate(holder))? else {
        return Ok("none yet".to_owned());
    };
    Ok(match leeward_pki::abouts(text.as_bytes()).as_deref() {
        Ok([about, ..]) => left(about.until),
        _ => "damaged: the next one given is new".to_owned(),
    })
}

fn left(until: u64) -> String {
    match until.checked_sub(issue::now()) {
        Some(left) => format!("{} days left", left / (24 * 3600)),
        None => "has ended".to_owned(),
    }
}

pub(super) fn rotate(arguments: &Rotate) -> anyhow::Result<()> {
    let (directory, mut installation) = arguments.place.open()?;
    let all = installation.holders();
    let known: Vec<String> = all.iter().map(Holder::key).collect();
    if let Some(name) = arguments.names.iter().find(|name| !known.contains(name)) {
        bail!("there is no {name}, only {}; nothing was changed", known.join(", "));
    }
    let least = match arguments.force {
        true => u64::MAX,
        false => issue::CERTIFICATE / 2,
    };
    let chosen = |holder: &&Holder| arguments.names.is_empty() || arguments.names.contains(&holder.key());
    for holder in all.iter().filter(chosen) {
        let papers = issue::papers(&directory, &installation, holder, least)?;
        let who = holder.key();
        if papers.made.is_some() {
            installation.outdate(|other| other == holder);
            directory.save(&installation)?;
        }
        match papers.made {
            Some(_) => output::line(format_args!(
                "{who}: a new certificate, {}; give it out: `{}`",
                left(papers.until),
                installation::command(&who)
            ))?,
            None => output::line(format_args!("{who}: kept, {}", left(papers.until)))?,
        }
    }
    Ok(())
}

/// What comes next on the way of a new authority.
fn coming(next: Step) -> &'static str {
    match next {
        Step::Trust => "the old authority is gone",
        Step::Use => {
            "the new authority is trusted beside the old one: render and apply for every cluster, witness and member of etcd, wait until each has \
             taken it (a mounted Secret follows within two minutes), then `leeward join authority use`"
        }
        Step::Drop => {
            "the new authority signs: render and apply for every cluster, witness and member of etcd, wait until each has taken it, then `leeward \
             join authority drop`"
        }
    }
}

pub(super) fn authority(arguments: &Stepping<Step>) -> anyhow::Result<()> {
    let (directory, mut installation) = arguments.place.open()?;
    let old = installation.authority.trusted.clone();
    let signing = issue::read_authority(&directory, installation.authority.signs)?;
    let ended = issue::end(&signing)? <= issue::now();
    let stepped = installation
        .step(arguments.step, ended)
        .context("nothing was changed")?;
    if stepped == Stepped::Done {
        match arguments.step {
            Step::Trust => {
                let new = installation.authority.trusted.last().copied().unwrap_or(1);
                issue::authority(&directory, &installation.id, new)?;
            }
            Step::Use => drop(issue::read_authority(&directory, installation.authority.signs)?),
            Step::Drop => {}
        }
        directory.save(&installation)?;
    }
    // Nobody needs the key of an authority that nobody trusts. Also after an interruption.
    for number in 1..*installation.authority.trusted.first().unwrap_or(&1) {
        directory.remove(&directory.authority(number))?;
    }
    let done = if stepped == Stepped::Already {
        "this is done already; "
    } else {
        ""
    };
    match installation.next() {
        Some(next) => output::line(format_args!("{done}{}", coming(next))),
        None => output::line(format_args!(
            "{done}only authority {} is trusted now (before: {}): render and apply for every cluster, witness and member of etcd",
            installation.authority.signs,
            old.iter().map(u32::to_string).collect::<Vec<_>>().join(" and ")
        )),
    }
}

/// What comes next on the way of a new key of specifications.
const KEY_NEXT: &str = "the new key decrypts: render and apply in every cluster, wait until each has taken it (a mounted Secret follows within two \
                        minutes), then `leeward join spec-key use`";

pub(super) fn spec_key(arguments: &Stepping<KeyStep>) -> anyhow::Result<()> {
    let (directory, mut installation) = arguments.place.open()?;
    let stepped = installation.step_key(arguments.step).context("nothing was changed")?;
    if stepped == Stepped::Done {
        for number in &installation.spec_key.keys {
            let file = directory.spec_key(*number);
            let new = arguments.step == KeyStep::Trust && installation.spec_key.next == Some(*number);
            ensure!(
                new || file.exists(),
                "{} is not there: bring it back from a copy; nothing was changed",
                file.display()
            );
            issue::key(&directory, &file)?;
        }
        directory.save(&installation)?;
    }
    let done = if stepped == Stepped::Already {
        "this is done already; "
    } else {
        ""
    };
    match installation.spec_key.next {
        Some(_) => output::line(format_args!("{done}{KEY_NEXT}")),
        None => output::line(format_args!(
            "{done}the new key encrypts from the next change of each application on: render and apply in every cluster. The older ones go on to \
             decrypt what was not changed since"
        )),
    }
}
