//! What many tests begin with.

use std::time::Duration;

use crate::lease::{Delays, Moment, Timing};

/// A moment on somebody's clock.
pub(crate) fn at(ms: u64) -> Moment {
    Moment(Duration::from_millis(ms))
}

/// Leases of three seconds.
pub(crate) fn timing() -> Timing {
    Timing::new(Duration::from_secs(3), Delays::WITHOUT_ELECTIONS).unwrap()
}
