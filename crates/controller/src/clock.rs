//! The two clocks: a monotonic one that goes on while the machine sleeps, for leases, and the wall clock, for records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leeward_core::lease::Moment;

/// Now, on the monotonic clock. `CLOCK_BOOTTIME` counts a machine's suspension too, so that a lease ends while its holder
/// sleeps.
pub fn now() -> Moment {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from);
    // The clock exists on every Linux that this runs on; without it nothing is ever granted, since 0 is in the past.
    Moment(time.unwrap_or(Duration::MAX))
}

/// Now, on the wall clock, in milliseconds since 1970.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
