//! The figures of the demo's report, counted from what the client saw and what the volumes hold. Pure.
//!
//! Where an instant could be read in two ways, the figure takes the one that makes Leeward look worse: a fault lasts from `began`
//! to `ended`, recovery is counted from `began`, loss to `ended`; milliseconds are rounded up. Times are the client's clock, in
//! microseconds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use super::client::{Outcome, Read, Write};
use crate::sample::record::Record;

/// When the fault was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Before the first process was ended.
    pub(crate) began: u64,
    /// When the last process was seen to be gone.
    pub(crate) ended: u64,
}

/// `requests` of the report: the reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Requests {
    /// Reads that ended.
    pub(crate) sent: u64,
    /// Those that an edge answered.
    pub(crate) ok: u64,
    /// Those that no edge answered in time.
    pub(crate) failed: u64,
    /// The longest time in which no read was answered, between two that were, or from the first that was sent, or to the end.
    pub(crate) longest_outage_ms: u64,
}

/// `writes` of the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Writes {
    /// Acknowledged by the application.
    pub(crate) acknowledged: u64,
    /// Certainly not stored.
    pub(crate) refused: u64,
    /// Perhaps stored.
    pub(crate) unknown: u64,
    /// The longest time from when a write was sent to its acknowledgement.
    pub(crate) longest_ms: u64,
    /// Acknowledged, and absent from the new writer's volume.
    pub(crate) lost: u64,
    /// From the acknowledgement of the oldest lost write to the fault, or to the last acknowledgement in its epoch where its writer lived on
    /// for a while; 0 when none was lost.
    pub(crate) lost_window_ms: u64,
    /// Lost writes that stood before a kept one in the same epoch's log.
    pub(crate) holes: u64,
    /// See [`conflicts`].
    pub(crate) two_writer_conflicts: u64,
}

/// `switchover` of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Switchover {
    /// Acknowledged in the epoch that was handed over, and absent from the new writer's volume.
    pub(crate) writes_lost: u64,
    /// The longest time without an acknowledgement from the request for the switchover to the first one in the new epoch.
    pub(crate) outage_ms: u64,
}

/// What the volumes hold of one client's writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Volumes<'a> {
    /// The new writer's volume, read after every write of interest had ended.
    pub(crate) kept: &'a [Record],
    /// Every volume of every region, each as it was before anything was rewound.
    pub(crate) all: &'a [Record],
}

fn milliseconds(micros: u64) -> u64 {
    micros.div_ceil(1_000)
}

/// Counts the reads.
pub(crate) fn requests(reads: &[Read]) -> Requests {
    let ok = reads.iter().filter(|read| read.ok).count() as u64;
    let sent = reads.len() as u64;
    let mut answers: Vec<u64> = reads.iter().filter(|read| read.ok).map(|read| read.ended_at).collect();
    answers.extend(reads.iter().map(|read| read.sent_at).min());
    answers.extend(reads.iter().map(|read| read.ended_at).max());
    let longest_outage_ms = milliseconds(longest_gap(answers));
    Requests {
        sent,
        ok,
        failed: sent - ok,
        longest_outage_ms,
    }
}

fn longest_gap(mut instants: Vec<u64>) -> u64 {
    instants.sort_unstable();
    instants.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// An acknowledged write.
struct Acknowledged<'a> {
    write: &'a Write,
    epoch: u64,
    cluster: &'a str,
    offset: Option<u64>,
}

fn acknowledged(writes: &[Write]) -> impl Iterator<Item = Acknowledged<'_>> {
    writes.iter().filter_map(|write| match &write.outcome {
        Outcome::Acknowledged { epoch, cluster, offset } => Some(Acknowledged {
            write,
            epoch: *epoch,
            cluster,
            offset: *offset,
        }),
        Outcome::Refused | Outcome::Unknown => None,
    })
}

/// Counts the writes against the volumes. `fault` is none when there was none, and then nothing should be lost.
pub(crate) fn writes(writes: &[Write], volumes: Volumes<'_>, fault: Option<Fault>) -> Writes {
    let kept: HashSet<u64> = volumes.kept.iter().map(|record| record.n).collect();
    let lost: Vec<_> = acknowledged(writes)
        .filter(|write| !kept.contains(&write.write.n))
        .collect();
    let window = fault.map_or(0, |fault| lost_window(writes, &lost, fault));
    let longest = acknowledged(writes)
        .map(|write| write.write.answered_at.saturating_sub(write.write.sent_at))
        .max()
        .unwrap_or(0);
    let count = |outcome: fn(&Outcome) -> bool| writes.iter().filter(|write| outcome(&write.outcome)).count() as u64;
    Writes {
        acknowledged: count(|outcome| matches!(outcome, Outcome::Acknowledged { .. })),
        refused: count(|outcome| matches!(outcome, Outcome::Refused)),
        unknown: count(|outcome| matches!(outcome, Outcome::Unknown)),
        longest_ms: milliseconds(longest),
        lost: lost.len() as u64,
        lost_window_ms: milliseconds(window),
        holes: holes(writes, &lost, volumes.kept),
        two_writer_conflicts: conflicts(writes, volumes.all),
    }
}

/// A region that is cut off from the others goes on until its lease is over, and what it acknowledges is lost as well.
fn lost_window(writes: &[Write], lost: &[Acknowledged<'_>], fault: Fault) -> u64 {
    let mut last: HashMap<u64, u64> = HashMap::new();
    for write in acknowledged(writes) {
        let last = last.entry(write.epoch).or_insert(fault.ended);
        *last = write.write.answered_at.max(*last);
    }
    let age = |lost: &Acknowledged<'_>| {
        let end = last.get(&lost.epoch).copied().unwrap_or(fault.ended);
        end.saturating_sub(lost.write.answered_at)
    };
    lost.iter().map(age).max().unwrap_or(0)
}

/// Lost writes that a kept write of the same epoch stands behind: in the log, as the offsets say; or in time, as it was sent only
/// after the lost one was acknowledged.
fn holes(writes: &[Write], lost: &[Acknowledged<'_>], kept: &[Record]) -> u64 {
    let sent: HashMap<u64, u64> = writes.iter().map(|write| (write.n, write.sent_at)).collect();
    let mut last_offset: HashMap<u64, u64> = HashMap::new();
    let mut last_sent: HashMap<u64, u64> = HashMap::new();
    for record in kept {
        let offset = last_offset.entry(record.epoch).or_default();
        *offset = record.offset.max(*offset);
        if let Some(at) = sent.get(&record.n) {
            let last = last_sent.entry(record.epoch).or_default();
            *last = (*at).max(*last);
        }
    }
    let is_hole = |lost: &&Acknowledged<'_>| {
        let in_log = lost
            .offset
            .zip(last_offset.get(&lost.epoch))
            .is_some_and(|(lost, kept)| lost < *kept);
        let in_time = last_sent
            .get(&lost.epoch)
            .is_some_and(|sent| *sent > lost.write.answered_at);
        in_log || in_time
    };
    lost.iter().filter(is_hole).count() as u64
}

/// Writes that show two writers: stored in epoch e although sent after the first acknowledgement of a higher epoch, or stored
/// by one region in an epoch in which another one stored more.
///
/// What a client saw acknowledged counts, and so does what stands on a volume: the application acknowledged it, even where an
/// edge kept the answer back.
pub(crate) fn conflicts(writes: &[Write], volumes: &[Record]) -> u64 {
    let sent: HashMap<u64, u64> = writes.iter().map(|write| (write.n, write.sent_at)).collect();
    let mut first: BTreeMap<u64, u64> = BTreeMap::new();
    // Who stored what: number, epoch, cluster.
    let mut stored: BTreeSet<(u64, u64, &str)> = BTreeSet::new();
    for Acknowledged {
        write, epoch, cluster, ..
    } in acknowledged(writes)
    {
        let at = first.entry(epoch).or_insert(write.answered_at);
        *at = write.answered_at.min(*at);
        stored.insert((write.n, epoch, cluster));
    }
    stored.extend(
        volumes
            .iter()
            .map(|record| (record.n, record.epoch, record.cluster.as_str())),
    );

    let late = |(n, epoch, _): &(u64, u64, &str)| {
        let higher = first.range(epoch + 1..).map(|(_, at)| *at).min();
        higher.zip(sent.get(n)).is_some_and(|(higher, sent)| *sent > higher)
    };
    let mut conflicting: BTreeSet<u64> = stored.iter().filter(|stored| late(stored)).map(|(n, ..)| *n).collect();

    let mut clusters: BTreeMap<u64, BTreeMap<&str, Vec<u64>>> = BTreeMap::new();
    for (n, epoch, cluster) in &stored {
        clusters.entry(*epoch).or_default().entry(cluster).or_default().push(*n);
    }
    for numbers in clusters.into_values() {
        let mut numbers: Vec<_> = numbers.into_values().collect();
        numbers.sort_by_key(Vec::len);
        numbers.pop();
        conflicting.extend(numbers.into_iter().flatten());
    }
    conflicting.len() as u64
}

/// `failover.rto_ms`: from the fault to the first acknowledgement of a write that was sent after it, in an epoch of at least `epoch`: where
/// another region takes over, what the lost one still acknowledges does not count. None when there is none.
pub(crate) fn rto_ms(writes: &[Write], fault: Fault, epoch: u64) -> Option<u64> {
    let after = acknowledged(writes).filter(|write| write.write.sent_at > fault.ended && write.epoch >= epoch);
    after
        .map(|write| write.write.answered_at)
        .min()
        .map(|at| milliseconds(at.saturating_sub(fault.began)))
}

/// Counts a planned switchover that was asked for at `asked` and handed over epoch `from`. None when no write was acknowledged in
/// a higher epoch afterwards: then it did not end.
pub(crate) fn switchover(writes: &[Write], kept: &[Record], asked: u64, from: u64) -> Option<Switchover> {
    let done = acknowledged(writes)
        .filter(|write| write.epoch > from)
        .map(|write| write.write.answered_at)
        .min()?;
    let kept: HashSet<u64> = kept.iter().map(|record| record.n).collect();
    let lost = acknowledged(writes)
        .filter(|write| write.epoch == from && !kept.contains(&write.write.n))
        .count();
    let mut instants: Vec<u64> = acknowledged(writes).map(|write| write.write.answered_at).collect();
    let before = instants
        .iter()
        .copied()
        .filter(|at| *at <= asked)
        .max()
        .unwrap_or(asked);
    instants.retain(|at| (before..=done).contains(at));
    instants.push(before);
    Some(Switchover {
        writes_lost: lost as u64,
        outage_ms: milliseconds(longest_gap(instants)),
    })
}

/// `epochs`: every epoch in which something was written, lowest first.
pub(crate) fn epochs(writes: &[Write], volumes: &[Record]) -> Vec<u64> {
    let seen = acknowledged(writes)
        .map(|write| write.epoch)
        .chain(volumes.iter().map(|record| record.epoch));
    seen.collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests;
