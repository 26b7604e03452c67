//! The check that a new table must pass, and the index by host that requests are looked up in.
//!
//! Invariant: what [`check`] lets through answers at least what a person could expect of it: every profile has an
//! endpoint that is on, every number is in its range, a writer is among its endpoints, and neither the generation nor
//! a writer's epoch goes back. A table that fails is refused as a whole and the last one goes on.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Profile, Table};
use crate::name::{AppKey, ClusterName, Epoch, Generation};

/// Why a table was refused. None is worth a retry with the same table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Older than the one in use.
    #[error("the table is of generation {new}, older than generation {current} in use: it came late and is dropped")]
    Old {
        /// Its generation.
        new: Generation,
        /// The generation in use.
        current: Generation,
    },
    /// No profile at all, while the table in use answers for several.
    #[error(
        "the table has no profile, while the one in use answers for {current}: it would answer nothing. \
         Remove applications one at a time if this is meant"
    )]
    Empty {
        /// Profiles in use.
        current: usize,
    },
    /// A profile that no request could be answered with.
    #[error("{app}: {problem}")]
    Profile {
        /// The application.
        app: AppKey,
        /// What is wrong with it and what is expected.
        problem: Problem,
    },
}

/// What is wrong with a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum Problem {
    #[error("it has more than one profile; an application has one")]
    Repeated,
    #[error("it has no host name, so no request leads to it; give at least one")]
    NoHost,
    #[error("{0:?} is not a host name: expected lower case, without port, at most 253 characters")]
    Host(String),
    #[error("the host {0:?} already leads to {1}; a host belongs to one application")]
    SharedHost(String, AppKey),
    #[error("it names the host {0:?} twice; once is enough")]
    RepeatedHost(String),
    #[error("no endpoint is enabled, so nothing would be answered; enable one or remove the profile")]
    NoEndpoint,
    #[error("{0} is among its endpoints more than once")]
    RepeatedCluster(ClusterName),
    #[error("{0} has priority {1}; expected 1 to 5")]
    Priority(ClusterName, u8),
    #[error("{0} has weight {1}; expected 1 to 1000")]
    Weight(ClusterName, u16),
    #[error("{0} has port 0 in its address")]
    Port(ClusterName),
    #[error("the writer is in {0}, which is not among its endpoints")]
    UnknownWriter(ClusterName),
    #[error("the writer's epoch goes back from {from} to {to}")]
    EpochBack { from: Epoch, to: Epoch },
    #[error("epoch {0} would have two writers, in {1} and in {2}")]
    TwoWriters(Epoch, ClusterName, ClusterName),
    #[error("{0} is {1}; expected {2}")]
    Setting(&'static str, String, &'static str),
}

/// Checks a table against its own rules and against the one in use.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(table: &Table, current: Option<&Table>) -> Result<(), TableError> {
    if let Some(current) = current {
        if table.generation < current.generation {
            return Err(TableError::Old {
                new: table.generation,
                current: current.generation,
            });
        }
        // The last application may go; several at once are more likely a mistake above than a wish.
        if table.profiles.is_empty() && current.profiles.len() > 1 {
            return Err(TableError::Empty {
                current: current.profiles.len(),
            });
        }
    }
    let mut taken = Taken::default();
    for profile in &table.profiles {
        let before = current.and_then(|t| find(t, &profile.app));
        let sound = taken.check(profile).and_then(|()| check_alone(profile, before));
        sound.map_err(|problem| refusal(profile, problem))?;
        taken.take(profile);
    }
    Ok(())
}

/// Leaves out of a table what [`check`] would refuse it for, so that one application's mistake does not hold up the
/// others: a profile that breaks a rule is replaced by the one in use of the same application, where that fits, and the
/// reason is returned. Of two applications that want one host, the one that has it keeps it.
///
/// [`TableError::Old`] and [`TableError::Empty`] concern the table as a whole and are left to [`check`].
pub fn salvage(mut table: Table, current: Option<&Table>) -> (Table, Vec<TableError>) {
    let before = |app: &AppKey| current.and_then(|t| find(t, app));
    // Those that only keep what they have come first, so that a newcomer takes no host from them.
    table.profiles.sort_by_key(|profile| {
        let had = |host| before(&profile.app).is_some_and(|p| p.hosts.contains(host));
        !profile.hosts.iter().all(had)
    });
    let (mut taken, mut refused, mut kept) = (Taken::default(), Vec::new(), Vec::new());
    for profile in table.profiles {
        let last = before(&profile.app);
        let fits = |p: &Profile| taken.check(p).and_then(|()| check_alone(p, last));
        let good = match fits(&profile) {
            Ok(()) => Some(profile),
            Err(problem) => {
                refused.push(refusal(&profile, problem));
                last.filter(|p| fits(p).is_ok()).cloned()
            }
        };
        if let Some(good) = good {
            taken.take(&good);
            kept.push(good);
        }
    }
    table.profiles = kept;
    (table, refused)
}

fn find<'a>(table: &'a Table, app: &AppKey) -> Option<&'a Profile> {
    table.profiles.iter().find(|p| p.app == *app)
}

fn refusal(profile: &Profile, problem: Problem) -> TableError {
    TableError::Profile {
        app: profile.app.clone(),
        problem,
    }
}

/// What the profiles before one have taken.
#[derive(Default)]
struct Taken {
    apps: HashSet<AppKey>,
    hosts: HashMap<String, AppKey>,
}

impl Taken {
    fn check(&self, profile: &Profile) -> Result<(), Problem> {
        if self.apps.contains(&profile.app) {
            return Err(Problem::Repeated);
        }
        for (n, host) in profile.hosts.iter().enumerate() {
            if let Some(other) = self.hosts.get(host) {
                return Err(Problem::SharedHost(host.clone(), other.clone()));
            }
            if profile.hosts[..n].contains(host) {
                return Err(Problem::RepeatedHost(host.clone()));
            }
        }
        Ok(())
    }

    fn take(&mut self, profile: &Profile) {
        self.apps.insert(profile.app.clone());
        self.hosts
            .extend(profile.hosts.iter().map(|host| (host.clone(), profile.app.clone())));
    }
}

fn check_alone(profile: &Profile, before: Option<&Profile>) -> Result<(), Problem> {
    check_profile(profile)?;
    check_writer(profile, before)
}

fn check_profile(profile: &Profile) -> Result<(), Problem> {
    if profile.hosts.is_empty() {
        return Err(Problem::NoHost);
    }
    if let Some(bad) = profile.hosts.iter().find(|h| !is_host(h)) {
        return Err(Problem::Host(bad.clone()));
    }
    if !profile.endpoints.iter().any(|e| e.enabled) {
        return Err(Problem::NoEndpoint);
    }
    let mut clusters = HashSet::new();
    for endpoint in &profile.endpoints {
        let cluster = || endpoint.cluster.clone();
        if !clusters.insert(&endpoint.cluster) {
            return Err(Problem::RepeatedCluster(cluster()));
        }
        if !(1..=5).contains(&endpoint.priority) {
            return Err(Problem::Priority(cluster(), endpoint.priority));
        }
        if !(1..=1000).contains(&endpoint.weight) {
            return Err(Problem::Weight(cluster(), endpoint.weight));
        }
        if endpoint.address.port() == 0 {
            return Err(Problem::Port(cluster()));
        }
    }
    check_settings(profile)
}

fn check_settings(profile: &Profile) -> Result<(), Problem> {
    let (probe, timing) = (&profile.probe, &profile.timing);
    let bad = |name, value: &dyn ToString, expected| Err(Problem::Setting(name, value.to_string(), expected));
    // As in a request line (RFC 9112, section 3.2.1): one with a space or a control character would split it.
    let path_fits = probe.path.starts_with('/') && probe.path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !path_fits || probe.path.len() > 2048 {
        return bad("probe.path", &probe.path, "a path that begins with / and has no spaces");
    }
    if !(1_000..=3_600_000).contains(&probe.interval_ms) {
        return bad(
            "probe.interval_ms",
            &probe.interval_ms,
            "1000 (a second) to 3600000 (an hour)",
        );
    }
    if !(10..=probe.interval_ms).contains(&probe.timeout_ms) {
        return bad("probe.timeout_ms", &probe.timeout_ms, "10 to the probe's interval");
    }
    if probe.successes_required == 0 {
        return bad("probe.successes_required", &0, "at least 1");
    }
    if timing.try_ms == 0 || timing.try_ms > timing.safe_ms {
        return bad("timing.try_ms", &timing.try_ms, "1 to timing.safe_ms");
    }
    if !(1..=3_600_000).contains(&timing.safe_ms) {
        return bad("timing.safe_ms", &timing.safe_ms, "1 to 3600000 (an hour)");
    }
    if !(1..=3_600_000).contains(&timing.unsafe_ms) {
        return bad("timing.unsafe_ms", &timing.unsafe_ms, "1 to 3600000 (an hour)");
    }
    Ok(())
}

fn check_writer(profile: &Profile, before: Option<&Profile>) -> Result<(), Problem> {
    let Some(writer) = &profile.writer else { return Ok(()) };
    if profile.endpoint(&writer.cluster).is_none() {
        return Err(Problem::UnknownWriter(writer.cluster.clone()));
    }
    let Some(last) = before.and_then(|p| p.writer.as_ref()) else {
        return Ok(());
    };
    if writer.epoch < last.epoch {
        return Err(Problem::EpochBack {
            from: last.epoch,
            to: writer.epoch,
        });
    }
    if writer.epoch == last.epoch && writer.cluster != last.cluster {
        return Err(Problem::TwoWriters(
            writer.epoch,
            last.cluster.clone(),
            writer.cluster.clone(),
        ));
    }
    Ok(())
}

/// Letters, digits, `-`, `_` and `.` in labels of 1 to 63, or an address; the port is not part of a host.
fn is_host(host: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// A table with its profiles by host: what a request is looked up in.
#[derive(Debug, Default)]
pub struct Index {
    table: Table,
    profiles: Vec<Arc<Profile>>,
    by_host: HashMap<Box<str>, usize>,
}

impl Index {
    /// Indexes a table that [`check`] let through.
    pub fn new(table: Table) -> Self {
        let profiles: Vec<_> = table.profiles.iter().cloned().map(Arc::new).collect();
        let hosts = |(i, p): (usize, &Profile)| {
            p.hosts
                .iter()
                .map(move |h| (Box::from(h.as_str()), i))
                .collect::<Vec<_>>()
        };
        let by_host = table.profiles.iter().enumerate().flat_map(hosts).collect();
        Self {
            table,
            profiles,
            by_host,
        }
    }

    /// The table itself.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Every profile.
    pub fn profiles(&self) -> &[Arc<Profile>] {
        &self.profiles
    }

    /// The profile that a `Host` leads to. Port, case and a final dot do not count.
    pub fn profile(&self, host: &str) -> Option<&Arc<Profile>> {
        let host = without_port(host);
        let host = host.strip_suffix('.').unwrap_or(host);
        let found = match self.by_host.get(host) {
            None if host.bytes().any(|b| b.is_ascii_uppercase()) => {
                self.by_host.get(host.to_ascii_lowercase().as_str())
            }
            found => found,
        };
        self.profiles.get(*found?)
    }

    /// The profile of an application.
    pub fn profile_of(&self, app: &AppKey) -> Option<&Arc<Profile>> {
        self.profiles.iter().find(|p| p.app == *app)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}
