//! What was found, judged: pure functions, with the limits that they use.

use leeward_local::instance::quorum::Begun;
use leeward_quorum::{
    certificate::{Certificate, Trouble},
    etcd::status::Status,
};

use crate::{belonging, quorum::members, status::seconds};

/// Under this a demo does not fit: the sample's image, its volumes and the copies of both.
const DISK_FAIL: u64 = 512 << 20;
/// Under this a longer session may fill the disk.
const DISK_WARN: u64 = 4 << 30;
/// Under this an API server with a few watches runs out.
const FILES_FAIL: u64 = 256;
/// Under this a busy edge may run out: two descriptors a request.
const FILES_WARN: u64 = 1024;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Nothing to do.
    Ok,
    /// It works, but less well.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// What was looked at.
    pub(super) name: String,
    /// How it ended.
    pub(super) level: Level,
    /// What was found.
    pub(super) finding: String,
    /// What to do about it.
    pub(super) advice: Option<String>,
}

impl Check {
    pub(super) fn ok(name: impl Into<String>, finding: impl Into<String>) -> Self {
        Self::new(name.into(), Level::Ok, finding.into(), None)
    }

    pub(super) fn warn(name: impl Into<String>, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(name.into(), Level::Warn, finding.into(), Some(advice.into()))
    }

    pub(super) fn fail(name: impl Into<String>, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(name.into(), Level::Fail, finding.into(), Some(advice.into()))
    }

    fn new(name: String, level: Level, finding: String, advice: Option<String>) -> Self {
        Self {
            name,
            level,
            finding,
            advice,
        }
    }
}

/// Whether containers can have namespaces of their own.
pub(super) fn namespaces(tried: Result<(), String>) -> Check {
    match tried {
        Ok(()) => Check::ok("namespaces", "user, mount and PID namespaces can be made"),
        Err(reason) => Check::warn(
            "namespaces",
            reason,
            "until then only images with the label dev.leeward.plain-process=true run, as plain processes",
        ),
    }
}

/// Whether the addresses of a region can be bound.
pub(super) fn loopback(tried: Result<std::net::SocketAddr, String>) -> Check {
    match tried {
        Ok(address) => Check::ok("loopback", format!("addresses such as {address} can be bound")),
        Err(reason) => Check::fail(
            "loopback",
            reason,
            "every address of 127.0.0.0/8 must be local: `ip address show lo` should have 127.0.0.1/8",
        ),
    }
}

/// Whether the disk has room: `free` bytes.
pub(super) fn disk(dir: &std::path::Path, free: Result<u64, String>) -> Check {
    let dir = dir.display();
    match free {
        Err(reason) => Check::fail(
            "disk",
            format!("{dir}: {reason}"),
            "choose another directory with --home DIR",
        ),
        Ok(free) => {
            let finding = format!("{} free in {dir}", size(free));
            let advice = |least| {
                format!(
                    "free {} there, or choose another directory with --home DIR",
                    size(least)
                )
            };
            match free {
                0..DISK_FAIL => Check::fail("disk", finding, advice(DISK_FAIL)),
                DISK_FAIL..DISK_WARN => Check::warn("disk", finding, advice(DISK_WARN)),
                _ => Check::ok("disk", finding),
            }
        }
    }
}

/// Whether the file system clones files.
pub(super) fn reflinks(tried: Result<bool, String>) -> Check {
    match tried {
        Ok(true) => Check::ok("file clones", "the file system clones files without copying them"),
        Ok(false) => Check::ok(
            "file clones",
            "the file system has none (XFS and Btrfs do): what changed in a volume is copied for each point",
        ),
        Err(reason) => Check::fail(
            "file clones",
            reason,
            "choose a directory that you may write to with --home DIR",
        ),
    }
}

/// Whether a process may open enough files.
pub(super) fn files(limit: u64) -> Check {
    let finding = format!("a process may have {limit} files open");
    let advice = format!("raise it: ulimit -n {}", FILES_WARN * 4);
    match limit {
        0..FILES_FAIL => Check::fail("open files", finding, advice),
        FILES_FAIL..FILES_WARN => Check::warn("open files", finding, advice),
        _ => Check::ok("open files", finding),
    }
}

/// Whether kubectl is there.
pub(super) fn kubectl(found: Option<std::path::PathBuf>) -> Check {
    match found {
        Some(path) => Check::ok("kubectl", path.display().to_string()),
        None => Check::warn(
            "kubectl",
            "not found in PATH",
            "optional: `leeward apply` and `leeward status` do without; see https://kubernetes.io/docs/tasks/tools/",
        ),
    }
}

/// What became of a process of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs.
    Alive(i32),
    /// It does not run; what another program holds, if its address is taken.
    Dead(Option<String>),
}

/// Whether a process of the instance runs.
pub(super) fn process(name: &str, life: &Life) -> Check {
    match life {
        Life::Alive(pid) => Check::ok(name, format!("runs, pid {pid}")),
        Life::Dead(None) => Check::fail(
            name,
            "does not run; its addresses are free",
            "`leeward up` starts what does not run; its log says why it ended",
        ),
        Life::Dead(Some(taken)) => Check::fail(name, "does not run, and cannot be started", taken.clone()),
    }
}

/// Whether a region's API answers: how long it took, or what went wrong.
pub(super) fn api(region: &str, answer: Result<std::time::Duration, String>) -> Check {
    let name = format!("{region} API");
    match answer {
        Ok(took) => Check::ok(name, format!("ready, answered in {}", seconds(took))),
        Err(reason) => Check::fail(
            name,
            format!("does not answer that it is ready: {reason}"),
            "`leeward up` starts it again if its process is gone",
        ),
    }
}

/// Whether the certificates of a region's quorum go on to count, at this time in Unix seconds, and what is wrong with its members; nothing where
/// there are no certificates and nothing is wrong.
pub(super) fn quorum(
    region: &str,
    read: Result<Vec<Certificate>, String>,
    members: Vec<Trouble>,
    file: &std::path::Path,
    now: i64,
) -> Option<Check> {
    let name = format!("{region} quorum");
    let advice = format!("`leeward quorum status --config {}` shows all of them", file.display());
    let all = match read {
        Ok(all) => all,
        Err(reason) => return Some(Check::fail(name, reason, advice)),
    };
    let first = all.iter().min_by_key(|one| one.until);
    let troubles: Vec<Trouble> = members
        .into_iter()
        .chain(all.iter().filter_map(|one| one.trouble(now)))
        .collect();
    let over = troubles.iter().find(|trouble| matches!(trouble, Trouble::Over(_)));
    Some(match over.or(troubles.first()) {
        Some(Trouble::Over(text)) => Check::fail(name, text, advice),
        Some(Trouble::Soon(text)) => Check::warn(name, text, advice),
        None => Check::ok(
            name,
            format!("{} certificates, the first counts {}", all.len(), first?.term(now)),
        ),
    })
}

/// The members of the quorum on etcd. `named` says of each endpoint what it is called, and whether a member should be there.
pub(super) fn members(status: &Status, named: &[(String, String, bool)]) -> Vec<Check> {
    let mut checks = vec![];
    for (member, finding) in status.endpoints.iter().zip(members::judge(status)) {
        let known = named.iter().find(|(endpoint, ..)| *endpoint == member.endpoint);
        let (name, should_be) = known.map_or((member.endpoint.as_str(), true), |(_, name, should)| (name, *should));
        // Nobody misses one where none should be.
        if member.state.is_err() && !should_be {
            continue;
        }
        checks.push(match finding.mend {
            None => Check::ok(name, finding.text),
            Some(mend) if finding.grave => Check::fail(name, finding.text, mend),
            Some(mend) => Check::warn(name, finding.text, mend),
        });
    }
    checks
}

/// The regions that belong to the quorum from before the newest incarnation.
pub(super) fn left_behind(regions: &[String], begun: &Begun) -> Vec<Check> {
    let check = |region: &String| {
        let finding = format!(
            "belongs to the quorum from before incarnation {}, so it is not started",
            begun.incarnation
        );
        Check::warn(region, finding, belonging::way(region, begun))
    };
    regions.iter().map(check).collect()
}

/// A size for a person.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_scarce_is_warned_of_and_what_is_gone_fails() {
        let dir = Path::new("/x");
        let gib = 1 << 30;
        let cases = [
            (disk(dir, Ok(100 * gib)), Level::Ok),
            (disk(dir, Ok(2 * gib)), Level::Warn),
            (disk(dir, Ok(1 << 20)), Level::Fail),
            (disk(dir, Err("it is gone".into())), Level::Fail),
            (files(65_536), Level::Ok),
            (files(512), Level::Warn),
            (files(64), Level::Fail),
            (kubectl(None), Level::Warn),
            (namespaces(Err("refused".into())), Level::Warn),
            (loopback(Err("refused".into())), Level::Fail),
            (reflinks(Ok(false)), Level::Ok),
            (reflinks(Err("refused".into())), Level::Fail),
            (process("west-api", &Life::Alive(7)), Level::Ok),
            (process("west-api", &Life::Dead(None)), Level::Fail),
            (process("west-api", &Life::Dead(Some("taken".into()))), Level::Fail),
            (api("west", Err("refused".into())), Level::Fail),
        ];
        for (check, level) in cases {
            assert_eq!(check.level, level, "{check:?}");
            assert_eq!(check.advice.is_some(), level != Level::Ok, "{check:?}");
        }
        assert_eq!(disk(dir, Ok(3 * gib)).finding, "3.0 GiB free in /x");
    }

    #[test]
    fn certificates_are_warned_of_before_they_end_and_fail_after() {
        use leeward_quorum::certificate::Whose;
        const DAY: i64 = 24 * 3600;
        let one = |days: i64| Certificate {
            whose: Whose::Client,
            subject: "CN=west".into(),
            from: -DAY,
            until: days * DAY,
        };
        let judged = |all| quorum("west", all, vec![], Path::new("/c"), 0).unwrap();
        let cases = [
            (vec![one(30), one(400)], Level::Ok),
            (vec![one(400), one(29)], Level::Warn),
            (vec![one(29), one(0)], Level::Fail),
        ];
        for (all, level) in cases {
            let check = judged(Ok(all));
            assert_eq!(check.level, level, "{check:?}");
            assert_eq!(check.advice.is_some(), level != Level::Ok, "{check:?}");
        }
        assert_eq!(
            judged(Ok(vec![one(31), one(400)])).finding,
            "2 certificates, the first counts until 1970-02-01 00:00 UTC, 31 days left"
        );
        assert_eq!(judged(Err("no certificate".into())).level, Level::Fail);
        assert_eq!(quorum("west", Ok(vec![]), vec![], Path::new("/c"), 0), None);
    }

    #[test]
    fn members_without_space_are_warned_of_and_an_alarm_fails() {
        let judged = |troubles| quorum("west", Ok(vec![]), troubles, Path::new("/c"), 0).unwrap();
        let (soon, over) = (Trouble::Soon("little is left".into()), Trouble::Over("an alarm".into()));
        assert_eq!(judged(vec![soon.clone()]).level, Level::Warn);
        let check = judged(vec![soon, over]);
        assert_eq!((check.level, check.finding.as_str()), (Level::Fail, "an alarm"));
    }
}
