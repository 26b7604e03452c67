//! What the clients were told, held against what the volumes have. Pure; the counting is that of the demo's oracle.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use crate::demo::{
    client::{Outcome, Write},
    oracle::{self, Volumes},
};

/// What became of all writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// Acknowledged by the application.
    pub(crate) acknowledged: u64,
    /// Certainly not stored.
    pub(crate) refused: u64,
    /// Perhaps stored.
    pub(crate) unknown: u64,
    /// Acknowledged, and absent from the volume of the region that is active in the end.
    pub(crate) lost: u64,
    /// Of these: in an epoch that a switchover handed over, which loses nothing.
    pub(crate) lost_in_order: u64,
    /// Of these: acknowledged longer before the last acknowledgement of their epoch than the rpo.
    pub(crate) lost_beyond_rpo: u64,
    /// The longest time in one epoch from the oldest lost acknowledgement to the last one, milliseconds.
    pub(crate) lost_window_ms: u64,
    /// Lost writes that stood before a kept one of the same epoch.
    pub(crate) holes: u64,
    /// Writes that show two writers.
    pub(crate) conflicts: u64,
    /// The highest epoch.
    pub(crate) epoch: u64,
}

impl Verdict {
    /// What was promised and does not hold.
    pub(crate) fn broken(&self) -> Vec<String> {
        let promised = [
            ("writes of two writers", self.conflicts),
            ("holes", self.holes),
            ("acknowledged writes lost beyond the rpo", self.lost_beyond_rpo),
            ("acknowledged writes lost in a switchover", self.lost_in_order),
        ];
        let broken = promised.into_iter().filter(|(_, count)| *count > 0);
        broken.map(|(what, count)| format!("{count} {what}")).collect()
    }
}

/// Judges. The writes of all clients have different numbers and one clock; `handed_over` are the epochs that a switchover ended in order.
pub(crate) fn judge(writes: &[Write], volumes: Volumes<'_>, rpo: Duration, handed_over: &BTreeSet<u64>) -> Verdict {
    let counted = oracle::writes(writes, volumes, None);
    let kept: BTreeSet<u64> = volumes.kept.iter().map(|record| record.n).collect();
    // For each epoch: the last acknowledgement, and when each lost write was acknowledged.
    let mut epochs: BTreeMap<u64, (u64, Vec<u64>)> = BTreeMap::new();
    for write in writes {
        if let Outcome::Acknowledged { epoch, .. } = write.outcome {
            let (last, lost) = epochs.entry(epoch).or_default();
            *last = write.answered_at.max(*last);
            if !kept.contains(&write.n) {
                lost.push(write.answered_at);
            }
        }
    }
    let mut verdict = Verdict {
        acknowledged: counted.acknowledged,
        refused: counted.refused,
        unknown: counted.unknown,
        lost: counted.lost,
        holes: counted.holes,
        conflicts: counted.two_writer_conflicts,
        epoch: epochs.keys().max().copied().unwrap_or(0),
        ..Verdict::default()
    };
    for (epoch, (last, lost)) in epochs {
        let ages = lost.iter().map(|at| Duration::from_micros(last - at));
        verdict.lost_beyond_rpo += ages.clone().filter(|age| *age > rpo).count() as u64;
        let oldest = ages.max().unwrap_or_default();
        verdict.lost_window_ms = verdict.lost_window_ms.max(oldest.as_millis() as u64);
        if handed_over.contains(&epoch) {
            verdict.lost_in_order += lost.len() as u64;
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::record::Record;

    const RPO: Duration = Duration::from_secs(5);

    fn ack(n: u64, seconds: u64, epoch: u64) -> Write {
        Write {
            n,
            sent_at: seconds * 1_000_000,
            answered_at: seconds * 1_000_000 + 1,
            outcome: Outcome::Acknowledged {
                epoch,
                cluster: if epoch % 2 == 1 { "west" } else { "east" }.into(),
                offset: None,
            },
        }
    }

    fn record(n: u64, epoch: u64, cluster: &str) -> Record {
        Record {
            client: "c".into(),
            n,
            epoch,
            cluster: cluster.into(),
            micros: 0,
            offset: n,
        }
    }

    fn verdict(writes: &[Write], kept: &[Record], handed_over: &[u64]) -> Verdict {
        let volumes = Volumes { kept, all: kept };
        judge(writes, volumes, RPO, &handed_over.iter().copied().collect())
    }

    #[test]
    fn what_is_lost_is_held_against_the_rpo_in_each_epoch_alone() {
        let writes = [ack(1, 1, 1), ack(2, 3, 1), ack(3, 20, 2), ack(4, 24, 2), ack(5, 40, 3)];
        let got = verdict(&writes, &[record(5, 3, "west")], &[]);
        assert_eq!((got.lost, got.lost_beyond_rpo, got.lost_window_ms), (4, 0, 4_000));
        assert_eq!(got.broken(), Vec::<String>::new());
        let longer = [ack(1, 1, 1), ack(2, 7, 1), ack(5, 40, 2)];
        let got = verdict(&longer, &[record(5, 2, "east")], &[]);
        assert_eq!((got.lost_beyond_rpo, got.lost_window_ms), (1, 6_000));
        assert_eq!(got.broken(), ["1 acknowledged writes lost beyond the rpo"]);
    }

    #[test]
    fn nothing_may_be_lost_of_an_epoch_that_was_handed_over() {
        let writes = [ack(1, 1, 1), ack(2, 2, 2)];
        let kept = [record(2, 2, "east")];
        assert_eq!(verdict(&writes, &kept, &[1]).lost_in_order, 1);
        assert_eq!(verdict(&writes, &kept, &[2]).lost_in_order, 0);
    }

    #[test]
    fn a_write_in_an_epoch_that_is_over_shows_two_writers() {
        let writes = [ack(1, 5, 2), ack(2, 9, 1)];
        let kept = [record(1, 2, "east"), record(2, 1, "west")];
        assert_eq!(verdict(&writes, &kept, &[]).conflicts, 1);
    }
}
