//! Clocks: each process of a region, and each node of its pods, has one that runs off true time within the bound, and a wall clock that somebody
//! steps all the time.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use leeward_core::lease::Moment;
use rand::{Rng, rngs::StdRng};

use crate::{fault::Time, world::SECOND};

/// A monotonic clock that runs within the bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    offset: Time,
    /// Millionths by which it runs fast (or slow).
    rate: i64,
}

impl Clock {
    pub(crate) fn random(random: &mut StdRng) -> Self {
        // Often at the ends of what is allowed: one hundredth, as `drift` is of `ttl`.
        let rate = match random.random_range(0..4) {
            0 => 9_900,
            1 => -9_900,
            _ => random.random_range(-9_900..=9_900),
        };
        Self {
            offset: random.random_range(0..1_000) * SECOND,
            rate,
        }
    }

    pub(crate) fn at(self, now: Time) -> Moment {
        let off = i64::try_from(now).unwrap_or(i64::MAX) / 1_000 * self.rate / 1_000;
        Moment(Duration::from_micros((self.offset + now).saturating_add_signed(off)))
    }
}

/// What an agent's wall clock shows, Unix ms: every few seconds somebody steps it, by years and in either direction. Nothing may be decided by it.
pub(crate) fn wall_ms(agent: &str, now: Moment) -> u64 {
    let mut hash = DefaultHasher::new();
    (agent, now.0.as_secs() / 3).hash(&mut hash);
    hash.finish() % (100 * 365 * 86_400_000)
}
