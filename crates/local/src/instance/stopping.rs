//! Ending processes of an instance, and making sure that nothing of them is left.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{
    Error, files,
    processes::{self, Record, Stat},
};

/// How long a process may take to end after it was asked.
const GRACE: Duration = Duration::from_secs(3);
/// How long the kernel may take to end one that was killed.
const KILLED: Duration = Duration::from_secs(5);

/// Kills these processes and what they started, and waits until they are gone.
pub(super) fn kill(records: &[Record]) -> Result<(), Error> {
    let family = family(records);
    for record in records {
        record.signal(libc::SIGKILL);
    }
    kill_rest(&family, || records.iter().any(Record::is_alive), || ())
}

/// Signals these processes and what they started, the first ones first.
pub(super) fn signal(records: &[Record], signal: i32) {
    for record in records {
        record.signal(signal);
    }
    for stat in family(records) {
        processes::signal_process(stat.pid, stat.start_time, signal);
    }
}

/// Asks these processes to end, kills them after [`GRACE`], and ends everything else that belongs to the instance.
pub(super) fn stop(dir: &Path, records: &[Record], reap: impl Fn()) -> Result<(), Error> {
    let mut rest: BTreeMap<i32, Stat> = family(records).into_iter().map(|stat| (stat.pid, stat)).collect();
    for record in records {
        record.signal(libc::SIGTERM);
    }
    let alive = || {
        reap();
        records.iter().any(Record::is_alive)
    };
    if !processes::wait_until(GRACE, || !alive()) {
        rest.extend(family(records).into_iter().map(|stat| (stat.pid, stat)));
        for record in records {
            record.signal(libc::SIGKILL);
        }
    }
    let rest: Vec<Stat> = rest.into_values().collect();
    kill_rest(&rest, alive, &reap)?;
    // What left the family, or was just starting and showed no mark at the first look.
    stop_strays(dir, &[])?;
    stop_strays(dir, &[])
}

/// Ends every process that carries the instance's mark.
pub(super) fn stop_marked(dir: &Path) -> Result<(), Error> {
    stop_strays(dir, &[])
}

/// Ends processes that carry the instance's mark but were never written down, because the program that started them was killed
/// in between, or whose parent is gone; what a recorded process started is left alone.
pub(super) fn stop_strays(dir: &Path, records: &[Record]) -> Result<(), Error> {
    let dir = std::path::absolute(dir).map_err(files::fault("find", dir))?;
    let all = Stat::read_all();
    let live: Vec<i32> = records
        .iter()
        .filter(|record| record.is_alive())
        .map(|record| record.pid)
        .collect();
    let kept = processes::descendants(&all, &live);
    let strays: Vec<Stat> = processes::marked(&all, &dir)
        .into_iter()
        .filter(|stat| !live.contains(&stat.pid) && !kept.iter().any(|kept| kept.pid == stat.pid))
        .collect();
    kill_rest(&strays, || false, || ())
}

fn family(records: &[Record]) -> Vec<Stat> {
    let live: Vec<i32> = records
        .iter()
        .filter(|record| record.is_alive())
        .map(|record| record.pid)
        .collect();
    processes::descendants(&Stat::read_all(), &live)
}

fn kill_rest(rest: &[Stat], recorded_alive: impl Fn() -> bool, reap: impl Fn()) -> Result<(), Error> {
    for stat in rest {
        processes::signal_process(stat.pid, stat.start_time, libc::SIGKILL);
    }
    let gone = || {
        reap();
        !recorded_alive() && !rest.iter().any(processes::is_running)
    };
    if processes::wait_until(KILLED, gone) {
        return Ok(());
    }
    Err(Error::Left(
        rest.iter()
            .filter(|stat| processes::is_running(stat))
            .map(|stat| stat.pid)
            .collect(),
    ))
}

/// The last lines of a log, for an error message.
pub(super) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines
        .get(lines.len().saturating_sub(8)..)
        .unwrap_or_default()
        .join("\n");
    if last.is_empty() {
        return format!("(nothing in {})", log.display());
    }
    last
}
