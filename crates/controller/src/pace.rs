//! How often something is looked at that may change all the time: soon after what was quiet, and ever more seldom what is not. So a namespace that
//! somebody writes to without end costs a bounded number of requests. Pure.

use std::time::Duration;

use leeward_core::lease::Moment;

/// After a quiet time the next look follows a change by this: what belongs together often comes together.
const LEAST: Duration = Duration::from_millis(200);
/// There is never more between two looks that are asked for.
const MOST: Duration = Duration::from_secs(5);
/// Nothing was asked for so long: it is quiet.
const QUIET: Duration = Duration::from_secs(10);

/// The pace of one thing that is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    last: Option<Moment>,
    /// Looks one upon the other.
    streak: u32,
}

impl Pace {
    /// It is looked at now.
    pub(crate) fn looks(&mut self, now: Moment) {
        let quiet = self.last.is_none_or(|last| now.since(last) >= QUIET);
        self.streak = if quiet { 0 } else { self.streak.saturating_add(1) };
        self.last = Some(now);
    }

    /// When it may be looked at again, because of what happened at `heard`.
    pub(crate) fn next(&self, heard: Moment) -> Moment {
        let gap = LEAST.saturating_mul(1_u32.checked_shl(self.streak).unwrap_or(u32::MAX));
        let after_last = self.last.map(|last| last.after(gap.min(MOST)));
        after_last.unwrap_or_default().max(heard.after(LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }

    /// How often is looked in a minute, with a change every `every` ms.
    fn looks(every: u64) -> usize {
        let (mut pace, mut looks, mut heard) = (Pace::default(), 0, None);
        for ms in (100_000..160_000).step_by(10) {
            if ms % every == 0 {
                heard.get_or_insert(at(ms));
            }
            if heard.is_some_and(|heard| at(ms) >= pace.next(heard)) {
                pace.looks(at(ms));
                looks += 1;
                heard = None;
            }
        }
        looks
    }

    #[test]
    fn what_was_quiet_is_looked_at_soon_and_what_changes_all_the_time_at_most_every_five_seconds() {
        let mut pace = Pace::default();
        assert_eq!(pace.next(at(1_000)), at(1_200));
        pace.looks(at(1_200));
        assert_eq!(pace.next(at(1_200)), at(1_400));
        pace.looks(at(1_400));
        assert_eq!(pace.next(at(1_410)), at(1_800));
        // Quiet again.
        pace.looks(at(20_000));
        assert_eq!(pace.next(at(20_001)), at(20_201));
        for every in [10, 100, 1_000, 4_000] {
            assert!((10..=18).contains(&looks(every)), "{every}: {}", looks(every));
        }
        assert_eq!(looks(20_000), 3);
    }
}
