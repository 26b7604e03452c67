//! What the figures of a fleet have to keep. Pure.

use std::time::Duration;

/// The loss of a region, as far as it is limited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loss {
    /// How many regions there are.
    pub(super) regions: usize,
    /// How many applications moved.
    pub(super) apps: usize,
    /// How long it took to plan and to commit all of it.
    pub(super) all: Duration,
}

/// So many applications move within [`WITHIN`].
const MANY: usize = 1_000;
/// See [`MANY`].
const WITHIN: Duration = Duration::from_secs(2);
/// From [`MANY`] applications on, one more of them may take so many times what it took with [`MANY`]: in all, the time grows no faster than
/// their number, but for what a busy machine adds.
const GROWTH: f64 = 1.5;
/// What the quorum may be written at rest, of the leases' renewals: late answers and timers take a part of them away, and nothing adds to them.
const REST: f64 = 1.05;

/// What the losses do not keep.
pub(super) fn of_losses(losses: &[Loss]) -> Vec<String> {
    let mut missed = Vec::new();
    for loss in losses.iter().filter(|loss| loss.apps <= MANY && loss.all > WITHIN) {
        missed.push(format!(
            "{} applications in {} regions took {} ms, and {MANY} may take {} ms",
            loss.apps,
            loss.regions,
            loss.all.as_millis(),
            WITHIN.as_millis()
        ));
    }
    let each = |loss: &Loss| loss.all.as_secs_f64() / loss.apps as f64;
    for many in losses.iter().filter(|loss| loss.apps == MANY) {
        let more = losses
            .iter()
            .filter(|loss| loss.regions == many.regions && loss.apps > MANY);
        for more in more.filter(|more| each(more) > GROWTH * each(many)) {
            missed.push(format!(
                "in {} regions an application takes {:.2} ms of {}, and {:.2} ms of {MANY}: at most {GROWTH} times as much is allowed",
                more.regions,
                each(more) * 1000.0,
                more.apps,
                each(many) * 1000.0
            ));
        }
    }
    missed
}

/// The writes a second that leases alone make: each region renews its own six times in its length, and the leader its lease as often.
pub(super) fn renewals_a_second(regions: usize, ttl: Duration) -> f64 {
    (regions + 1) as f64 * 6.0 / ttl.as_secs_f64()
}

/// What the writes at rest do not keep: nothing but renewals may be written.
pub(super) fn of_rest(regions: usize, writes_a_second: f64, ttl: Duration) -> Option<String> {
    let renewals = renewals_a_second(regions, ttl);
    (writes_a_second > renewals * REST).then(|| {
        format!(
            "at rest the quorum of {regions} regions is written {writes_a_second:.2} times a second, and renewals are {renewals:.2} of them"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(apps: usize, ms: u64) -> Loss {
        Loss {
            regions: 3,
            apps,
            all: Duration::from_millis(ms),
        }
    }

    #[test]
    fn a_thousand_applications_move_within_two_seconds() {
        assert_eq!(of_losses(&[loss(10, 30), loss(1_000, 2_000)]), Vec::<String>::new());
        let missed = of_losses(&[loss(100, 2_001), loss(1_000, 2_001)]);
        assert_eq!(missed.len(), 2, "{missed:?}");
        assert!(
            missed[1].contains("1000 applications in 3 regions took 2001 ms"),
            "{missed:?}"
        );
    }

    #[test]
    fn the_time_grows_no_faster_than_what_moves() {
        assert_eq!(of_losses(&[loss(1_000, 400), loss(5_000, 3_000)]), Vec::<String>::new());
        let missed = of_losses(&[loss(1_000, 400), loss(5_000, 3_010)]);
        assert_eq!(missed.len(), 1, "{missed:?}");
        // The first few pay for what is paid once.
        assert_eq!(of_losses(&[loss(10, 30), loss(1_000, 400)]), Vec::<String>::new());
        // Other numbers of regions are other measurements.
        let other = Loss {
            regions: 10,
            ..loss(5_000, 9_000)
        };
        assert_eq!(of_losses(&[loss(1_000, 400), other]), Vec::<String>::new());
    }

    #[test]
    fn at_rest_nothing_but_renewals_is_written() {
        let ttl = Duration::from_secs(15);
        assert!((renewals_a_second(3, ttl) - 1.6).abs() < 1e-9);
        assert!((renewals_a_second(10, ttl) - 4.4).abs() < 1e-9);
        assert_eq!(of_rest(3, 1.6, ttl), None);
        assert!(of_rest(3, 1.8, ttl).unwrap().contains("1.80 times a second"));
    }
}
