//! A bound that is small enough for every test run: clocks that run alike or agents that do not die. `cargo xtask model` looks at all of it.

use leeward_model::{Bounds, Cheat, Cheats, Found, Ticks, check};

fn checked(drift: u8, cheats: &[Cheat]) -> Found {
    let ticks = Ticks { ttl: 2, stop: 0, drift };
    let bounds = Bounds { ticks, restarts: false };
    check(bounds, Cheats::of(cheats), 1)
}

fn violated(drift: u8, cheat: Cheat) -> Option<&'static str> {
    checked(drift, &[cheat]).violation.map(|violation| violation.invariant)
}

#[test]
fn never_two_writers_in_any_order_of_events() {
    let found = checked(0, &[]);
    assert!(found.violation.is_none(), "{:#?}", found.violation);
    assert_eq!(found.never, [""; 0]);
}

#[test]
fn a_takeover_that_does_not_compare_the_lease_is_noticed() {
    assert_eq!(violated(0, Cheat::LeaseNotCompared), Some("one region writes"));
}

#[test]
fn a_taker_that_does_not_wait_for_the_drift_is_noticed() {
    assert_eq!(violated(1, Cheat::TakerWithoutDrift), Some("one region writes"));
}
