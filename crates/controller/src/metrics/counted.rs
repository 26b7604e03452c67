//! What happens to an agent and leaves no trace to be read later: counted as it does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::operations::Operations;
use crate::clock;

/// What an agent counts.
#[derive(Debug, Default)]
pub struct Counted {
    renewed: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
    /// When the renewing task came round last, in milliseconds of the monotonic clock; 0 before it began.
    round_ms: AtomicU64,
    /// Whether it was ready once.
    pub(super) was_ready: AtomicBool,
    /// The operations that ended.
    pub(crate) operations: Operations,
}

impl Counted {
    /// The quorum answered a renewal.
    pub(crate) fn answered(&self, applied: bool) {
        let counter = if applied { &self.renewed } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// It did not.
    pub(crate) fn unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// The renewing task came round, whatever the quorum said.
    pub(crate) fn came_round(&self) {
        self.round_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// How long ago that was, in milliseconds; none before it began.
    pub(super) fn round_ms_ago(&self) -> Option<u64> {
        let last = self.round_ms.load(Ordering::Relaxed);
        (last > 0).then(|| now_ms().saturating_sub(last))
    }

    /// How many renewals had each outcome.
    pub(super) fn renewals(&self) -> [(&'static str, u64); 3] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("renewed", of(&self.renewed)),
            ("refused", of(&self.refused)),
            ("unanswered", of(&self.unanswered)),
        ]
    }
}

fn now_ms() -> u64 {
    u64::try_from(clock::now().0.as_millis()).unwrap_or(u64::MAX)
}
