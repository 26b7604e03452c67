//! How long to wait before a container is started again, or an image is pulled again.

use std::time::Duration;

/// The first wait after a crash.
const RESTART_FIRST: Duration = Duration::from_secs(10);
/// The longest wait after a crash.
const RESTART_MAX: Duration = Duration::from_secs(300);
/// A run of this length is forgiven everything before it.
const RESTART_RESET: Duration = Duration::from_secs(600);
/// The first wait after a failed pull; shorter than Kubernetes', since the registry is on this machine.
const PULL_FIRST: Duration = Duration::from_secs(1);
/// The longest wait after a failed pull.
const PULL_MAX: Duration = Duration::from_secs(60);

/// The waits of one container. The first restart is immediate, then 10 s, doubling up to 5 min, as Kubernetes does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Restarts {
    crashes: u32,
}

impl Restarts {
    /// What a container that had `restarts` before the node started is owed.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= RESTART_RESET {
            self.crashes = 0;
        }
        let wait = match self.crashes {
            0 => Duration::ZERO,
            crashes => doubled(RESTART_FIRST, crashes - 1, RESTART_MAX),
        };
        self.crashes = self.crashes.saturating_add(1);
        wait
    }
}

/// How long to wait after failed pull number `failures` (from 0).
pub(super) fn after_pull(failures: u32) -> Duration {
    doubled(PULL_FIRST, failures, PULL_MAX)
}

fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    first
        .saturating_mul(1_u32.checked_shl(times.min(16)).unwrap_or(u32::MAX))
        .min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_double() {
        let mut restarts = Restarts::default();
        let waits: Vec<u64> = (0..8)
            .map(|_| restarts.after(Duration::from_secs(1)).as_secs())
            .collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(restarts.after(RESTART_RESET), Duration::ZERO);
    }

    #[test]
    fn pulls_wait_from_one_second_to_a_minute() {
        assert_eq!(after_pull(0).as_secs(), 1);
        assert_eq!(after_pull(3).as_secs(), 8);
        assert_eq!(after_pull(u32::MAX).as_secs(), 60);
    }
}
