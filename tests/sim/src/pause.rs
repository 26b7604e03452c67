//! A person pauses the application now and then and resumes it, at the latest when nothing goes wrong any more. That is a change of the
//! resource: it counts once the authority's agent has put it into the quorum, and cannot be made while the authority is lost for good.

use leeward_core::app::App;
use leeward_quorum::key;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    fault::Time,
    protected::AUTHORITY,
    world::{Event, SECOND, World},
};

/// Whether the application is paused as the quorum has it, and how often it was.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Paused {
    pub(crate) now: bool,
    pub(crate) times: u64,
}

/// When it is paused, and until when: in a third of the runs, once or twice.
fn plan(seed: u64, begin: Time, end: Time) -> Vec<(Time, Time)> {
    // A generator of its own, so that what else happens in a seed stays as it is.
    let mut random = StdRng::seed_from_u64(seed ^ 0x7061_7573);
    if !random.random_bool(1.0 / 3.0) || begin >= end {
        return Vec::new();
    }
    let times = random.random_range(1..3);
    let mut at = begin;
    let mut pauses = Vec::new();
    for _ in 0..times {
        if at >= end {
            break;
        }
        let from = random.random_range(at..end);
        let until = (from + random.random_range(SECOND / 2..8 * SECOND)).min(end);
        pauses.push((from, until));
        at = until + 1;
    }
    pauses
}

impl World {
    /// What persons do about pauses in this run.
    pub(crate) fn plan_pauses(&mut self, seed: u64, begin: Time, end: Time) {
        for (from, until) in plan(seed, begin, end) {
            self.at(from, Event::Pause(true));
            self.at(until, Event::Pause(false));
        }
    }

    /// A person pauses the application or resumes it.
    pub(crate) fn pause(&mut self, paused: bool) {
        if self.lost_for_good == Some(AUTHORITY) || self.app.paused == paused {
            return;
        }
        self.app.paused = paused;
        self.app.observed += 1;
        self.tell(format!("a person {} it", if paused { "pauses" } else { "resumes" }));
    }

    /// The quorum has another specification.
    pub(crate) fn note_specification(&mut self) {
        let accepted = self.view.get::<App>(&key::spec(&self.app.key));
        let paused = accepted.is_some_and(|accepted| accepted.value.paused);
        if paused == self.paused.now {
            return;
        }
        self.paused.now = paused;
        self.paused.times += u64::from(paused);
        let means = if paused { "paused" } else { "not paused any more" };
        self.tell(format!("it is {means}"));
    }

    /// Whether a person has paused it and nobody could resume it if its authority were lost now.
    pub(crate) fn is_paused_anywhere(&self) -> bool {
        self.app.paused || self.paused.now
    }
}
