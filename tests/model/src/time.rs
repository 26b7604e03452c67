//! Time in ticks. A clock is never said to be at an instant: the state holds how long ago something was, or how much is left of it, on the
//! clock of the region that counts it. "Now" is the same instant for the core in every state.

use std::time::Duration;

use leeward_core::lease::{Moment, Timing};

const TICK: Duration = Duration::from_secs(1);
/// Long enough after the beginning of the clock for everything that was.
const NOW: u64 = 1_000;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The lengths of a lease. Without drift, all clocks run alike.
    pub ticks: Ticks,
    /// Whether agents die.
    pub restarts: bool,
}

/// The lengths of a lease, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticks {
    /// Its time to live, `T`.
    pub ttl: u8,
    /// From the decision to stop until nothing is written any more.
    pub stop: u8,
    /// How far a clock may run off true time.
    pub drift: u8,
}

impl Bounds {
    /// What `cargo xtask model` looks at.
    pub const ALL: Self = Self {
        ticks: Ticks {
            ttl: 3,
            stop: 1,
            drift: 1,
        },
        restarts: true,
    };
}

impl Ticks {
    /// As the core counts them.
    pub(crate) fn timing(self) -> Timing {
        Timing {
            ttl: TICK * u32::from(self.ttl),
            stop: TICK * u32::from(self.stop),
            drift: TICK * u32::from(self.drift),
        }
    }

    /// From here on an age makes no difference any more: every wait is over and every grant has ended.
    pub(crate) fn oldest(self) -> u8 {
        self.ttl + self.drift
    }
}

pub(crate) fn now() -> Moment {
    Moment(TICK * NOW as u32)
}

pub(crate) fn ago(age: u8) -> Moment {
    Moment(TICK * (NOW as u32 - u32::from(age)))
}

pub(crate) fn ahead(left: u8) -> Moment {
    now().after(TICK * u32::from(left))
}

/// How long ago.
pub(crate) fn age(moment: Moment) -> u8 {
    ticks(now().since(moment))
}

/// How much is left.
pub(crate) fn left(moment: Moment) -> u8 {
    ticks(moment.since(now()))
}

fn ticks(duration: Duration) -> u8 {
    u8::try_from(duration.as_secs()).unwrap_or(u8::MAX)
}
