//! A person takes a region out of service now and then, and back, at the latest when nothing goes wrong any more.

use leeward_core::maintenance::Maintenance;
use leeward_quorum::{Txn, key};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    fault::{Fault, Place, REGIONS, Time},
    world::{Event, SECOND, World, name},
};

/// Which region is out of service and how, from when until when: in a quarter of the runs, up to three times.
fn plan(seed: u64, begin: Time, end: Time) -> Vec<(Place, Maintenance, Time, Time)> {
    // A generator of its own, so that what else happens in a seed stays as it is.
    let mut random = StdRng::seed_from_u64(seed ^ 0x6d61_696e);
    if !random.random_bool(0.25) || begin >= end {
        return Vec::new();
    }
    let times = random.random_range(1..4);
    let one = |random: &mut StdRng| {
        let place = REGIONS[random.random_range(0..REGIONS.len())];
        let said = match random.random_bool(0.6) {
            true => Maintenance::Drain,
            false => Maintenance::Cordon,
        };
        let from = random.random_range(begin..end);
        let until = (from + random.random_range(SECOND / 2..8 * SECOND)).min(end);
        (place, said, from, until)
    };
    (0..times).map(|_| one(&mut random)).collect()
}

impl World {
    /// What persons do about regions in this run.
    pub(crate) fn plan_maintenance(&mut self, seed: u64, begin: Time, end: Time) {
        for (place, said, from, until) in plan(seed, begin, end) {
            self.at(from, Event::Maintain(place, said));
            self.at(until, Event::Maintain(place, Maintenance::None));
        }
        for place in REGIONS {
            self.at(end, Event::Maintain(place, Maintenance::None));
        }
    }

    /// Its agent has put into the quorum what a person said of a region.
    pub(crate) fn maintain(&mut self, place: Place, said: Maintenance) {
        if self.said_of(place.name()) == said || self.is(Fault::QuorumAway) && self.now < self.calm_from {
            return;
        }
        if let Ok(txn) = Txn::default().put(key::maintenance(&name(place)), &said) {
            self.commit(&txn);
        }
        self.tell(format!("maintenance of {}: {said:?}", place.name()));
    }

    /// What the quorum says of a region.
    pub(crate) fn said_of(&self, region: &str) -> Maintenance {
        let said = self.view.get(&key::maintenance(&region.into()));
        said.map_or(Maintenance::None, |said| said.value)
    }
}
