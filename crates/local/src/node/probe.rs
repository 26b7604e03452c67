//! Probes: what they ask, and what a series of answers means.
//!
//! Until its first success a startup or readiness probe is asked more often than its period, since most of an application's
//! start is over long before a period of one second; such early failures do not count. Everything else is as in Kubernetes.

mod check;

pub(super) use check::{Target, check};

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// The times and thresholds of a probe, with the defaults of Kubernetes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Settings {
    pub(super) initial_delay: Duration,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    pub(super) successes: u32,
    pub(super) failures: u32,
    /// Whether it is asked more often at first.
    pub(super) eager: bool,
}

impl Settings {
    /// Of a declared probe.
    pub(super) fn of(probe: &Probe, eager: bool) -> Self {
        let seconds = |value: Option<i32>, default: u64, least: u64| {
            Duration::from_secs(
                value
                    .and_then(|value| u64::try_from(value).ok())
                    .unwrap_or(default)
                    .max(least),
            )
        };
        let count = |value: Option<i32>, default: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds.filter(|period| *period > 0), 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, 3),
            eager,
        }
    }
}

/// The shortest wait between two eager questions.
const EAGER_FIRST: Duration = Duration::from_millis(25);
/// The longest.
const EAGER_MAX: Duration = Duration::from_millis(250);

/// What a probe has come to; changes only when a threshold is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Unknown,
    Passing,
    Failing,
}

/// A series of answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    settings: Settings,
    verdict: Verdict,
    run: u32,
    last: bool,
    asked_for: Duration,
    eager_wait: Duration,
}

impl Series {
    /// Nothing was asked yet.
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            verdict: Verdict::Unknown,
            run: 0,
            last: false,
            asked_for: Duration::ZERO,
            eager_wait: EAGER_FIRST,
        }
    }

    /// Takes one answer in; returns the verdict and when to ask again.
    pub(super) fn add(&mut self, success: bool) -> (Verdict, Duration) {
        let early = self.settings.eager && self.verdict == Verdict::Unknown && self.asked_for < self.settings.period;
        if early && !success {
            let wait = self.eager_wait.min(self.settings.period);
            self.asked_for += wait;
            self.eager_wait = (wait * 2).min(EAGER_MAX);
            return (Verdict::Unknown, wait);
        }
        self.run = if self.run > 0 && self.last == success {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = success;
        let threshold = if success {
            self.settings.successes
        } else {
            self.settings.failures
        };
        if self.run >= threshold {
            self.verdict = if success { Verdict::Passing } else { Verdict::Failing };
        }
        (self.verdict, self.settings.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(eager: bool) -> Settings {
        let probe = Probe {
            period_seconds: Some(1),
            failure_threshold: Some(2),
            ..Probe::default()
        };
        Settings::of(&probe, eager)
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let wanted = Settings {
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            successes: 1,
            failures: 3,
            eager: false,
        };
        assert_eq!(Settings::of(&Probe::default(), false), wanted);
    }

    #[test]
    fn a_threshold_of_failures_in_a_row_is_needed() {
        let mut series = Series::new(settings(false));
        let verdicts: Vec<_> = [true, false, true, false, false, false, true]
            .map(|answer| series.add(answer).0)
            .into();
        use Verdict::{Failing as F, Passing as P};
        assert_eq!(verdicts, [P, P, P, P, F, F, P]);
    }

    #[test]
    fn early_failures_are_asked_again_soon_and_do_not_count() {
        let mut series = Series::new(settings(true));
        let mut total = Duration::ZERO;
        let mut asked = 0;
        while total < Duration::from_secs(1) {
            let (verdict, wait) = series.add(false);
            assert_eq!(verdict, Verdict::Unknown);
            assert!(wait <= EAGER_MAX);
            total += wait;
            asked += 1;
        }
        assert!((5..12).contains(&asked), "{asked}");
        assert_eq!(series.add(false), (Verdict::Unknown, Duration::from_secs(1)));
        assert_eq!(series.add(false), (Verdict::Failing, Duration::from_secs(1)));
        assert_eq!(series.add(true).0, Verdict::Passing);
    }
}
