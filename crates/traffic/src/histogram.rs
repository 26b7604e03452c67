//! How long something took, in ranges: what is observed costs two additions, so that it can be done where users' requests pass.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How often a time fell into each of some ranges.
#[derive(Debug)]
pub struct Histogram {
    /// The upper end of each range, in seconds and belonging to it; what is longer than all falls into one more.
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

impl Histogram {
    /// The upper ends for round trips and answers.
    pub const SHORT: &[f64] = &[
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];
    /// The upper ends for what takes seconds to minutes.
    pub const LONG: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0];

    /// With these upper ends, in seconds, in their order.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_us: AtomicU64::new(0),
        }
    }

    /// Takes in one time.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let range = self.bounds.partition_point(|end| *end < seconds);
        self.counts[range].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Each range's upper end, infinity the last one, and how often a time fell into that range alone.
    pub fn ranges(&self) -> Vec<(f64, u64)> {
        let ends = self.bounds.iter().copied().chain([f64::INFINITY]);
        ends.zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
            .collect()
    }

    /// All times together, in seconds.
    pub fn sum(&self) -> f64 {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_range_that_it_is_not_longer_than() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for ms in [50, 100, 101, 1000, 5000] {
            histogram.observe(Duration::from_millis(ms));
        }
        assert_eq!(histogram.ranges(), [(0.1, 2), (1.0, 2), (f64::INFINITY, 1)]);
        assert!((histogram.sum() - 6.251).abs() < 1e-9, "{}", histogram.sum());
    }
}
