//! Many applications that move into one cluster at the same time: its agent starts them a few at a time, so that a cluster that takes over
//! all that another one had is not overrun, and those with the tightest objective come first.
//!
//! To whom each belongs is decided at once, for all: their roles have moved, nobody writes at an old epoch, and what waits here waits only
//! to be started.
//!
//! Invariant: what cannot start does not keep the others waiting for longer than its own objective.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{lease::Moment, name::AppKey};

/// An application that this cluster has to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Which one.
    pub app: AppKey,
    /// The time that its owner gave for being back.
    pub rto: Duration,
    /// When its move was decided; wall clock of who decided, Unix ms.
    pub decided_ms: u64,
    /// Whether its start has begun: whoever began it may have been this agent's predecessor.
    pub begun: bool,
}

/// What is being started, and since when.
#[derive(Debug, Clone, Default)]
pub struct Starting(BTreeMap<AppKey, Moment>);

impl Starting {
    /// The applications that may be started now, at most `together` of them, besides those that take longer than they should.
    /// What has begun goes on until it arrives.
    pub fn admit(&mut self, arrivals: &[Arrival], together: usize, now: Moment) -> BTreeSet<AppKey> {
        self.0
            .retain(|app, _| arrivals.iter().any(|arrival| arrival.app == *app));
        for begun in arrivals.iter().filter(|arrival| arrival.begun) {
            self.0.entry(begun.app.clone()).or_insert(now);
        }
        let in_time = |arrival: &&Arrival| {
            let since = self.0.get(&arrival.app);
            since.is_some_and(|since| now.since(*since) < arrival.rto)
        };
        let begun = arrivals.iter().filter(in_time).count();
        let mut waiting: Vec<_> = arrivals
            .iter()
            .filter(|arrival| !self.0.contains_key(&arrival.app))
            .collect();
        waiting.sort_by_key(|arrival| (arrival.rto, arrival.decided_ms, &arrival.app));
        for arrival in waiting.into_iter().take(together.saturating_sub(begun)) {
            self.0.insert(arrival.app.clone(), now);
        }
        self.0.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::at;

    fn arrival(name: &str, rto: u64, decided_ms: u64) -> Arrival {
        Arrival {
            app: AppKey::new("shop", name),
            rto: Duration::from_secs(rto),
            decided_ms,
            begun: false,
        }
    }

    fn names(admitted: &BTreeSet<AppKey>) -> Vec<&str> {
        admitted.iter().map(|app| app.name.as_str()).collect()
    }

    #[test]
    fn the_tightest_objective_comes_first_and_what_has_begun_goes_on() {
        let mut starting = Starting::default();
        let mut all = vec![arrival("a", 60, 1), arrival("b", 30, 2), arrival("c", 30, 1)];
        assert_eq!(names(&starting.admit(&all, 2, at(0))), ["b", "c"]);
        all.push(arrival("d", 5, 3));
        assert_eq!(names(&starting.admit(&all, 2, at(10))), ["b", "c"]);
        // One has arrived.
        all.retain(|arrival| arrival.app.name != "b");
        assert_eq!(names(&starting.admit(&all, 2, at(20))), ["c", "d"]);
    }

    #[test]
    fn what_does_not_start_makes_room_after_its_own_objective() {
        let mut starting = Starting::default();
        let all = [arrival("stuck", 5, 1), arrival("next", 60, 1)];
        assert_eq!(names(&starting.admit(&all, 1, at(0))), ["stuck"]);
        assert_eq!(names(&starting.admit(&all, 1, at(4_999))), ["stuck"]);
        assert_eq!(names(&starting.admit(&all, 1, at(5_000))), ["next", "stuck"]);
    }

    #[test]
    fn what_a_predecessor_began_goes_on_whoever_would_come_before_it() {
        let mut starting = Starting::default();
        let mut all = vec![arrival("a", 5, 1), arrival("b", 60, 1), arrival("c", 60, 1)];
        all[1].begun = true;
        assert_eq!(names(&starting.admit(&all, 1, at(0))), ["b"]);
        assert_eq!(names(&starting.admit(&all, 2, at(1))), ["a", "b"]);
    }

    proptest! {
        #[test]
        fn everything_is_started_in_the_end_and_never_more_than_the_bound_in_time(
            rtos in prop::collection::vec(1_u64..100, 1..30),
            together in 1_usize..5,
            arrive in prop::collection::vec(0_usize..30, 60),
        ) {
            let mut left: Vec<_> = rtos.iter().enumerate().map(|(n, rto)| arrival(&format!("a{n:02}"), *rto, 0)).collect();
            let mut starting = Starting::default();
            for (second, which) in arrive.iter().cycle().enumerate() {
                let admitted = starting.admit(&left, together, at(second as u64));
                prop_assert!(admitted.len() <= together);
                prop_assert!(!admitted.is_empty() || left.is_empty());
                let Some(one) = admitted.iter().nth(which % admitted.len().max(1)) else { break };
                left.retain(|arrival| arrival.app != *one);
            }
            prop_assert!(left.is_empty());
        }
    }
}
