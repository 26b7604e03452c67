//! Two replicas of a region's agent of which one has taken the lease that the other one had, while that one lives on: a switchover begins then, and
//! whoever does its steps has to think of what the other one granted.

use std::collections::BTreeSet;

use leeward_core::lease::Hold;
use leeward_quorum::{Txn, key};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    fault::{Fault, Place, Planned, REGIONS},
    replica::Replica,
    world::{BEGIN, Event, Region, SECOND, World, name},
};

/// Who has held the lease of each region, by the number of the start, and who did last.
#[derive(Debug, Default)]
pub(crate) struct Holders([BTreeSet<u64>; 2], [u64; 2]);

/// Draws of its own, so that the seeds with one agent in each region stay as they are.
pub(crate) fn random(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ 0x6265_7369)
}

fn index_of(place: Place) -> usize {
    usize::from(place == Place::East)
}

impl Holders {
    /// Another agent that lives and had the lease before the one that has it.
    fn before<'a>(&self, region: &'a Region) -> Option<&'a Replica> {
        let index = index_of(region.place);
        let mut before = self.0[index].iter().filter(|start| **start != self.1[index]);
        before.find_map(|start| Some(&region.replicas[region.slot_of(*start)?]))
    }
}

impl World {
    fn beside(&mut self, probability: f64) -> bool {
        (BEGIN..self.calm_from).contains(&self.now) && self.beside_random.random_bool(probability)
    }

    /// A lease was written: where another replica had it until now and lives, a person now and then asks for a switchover soon.
    pub(crate) fn perhaps_asks_after_another_took_the_lease(&mut self, from: Place, start: u64, txn: &Txn) {
        let own = key::lease(&name(from));
        let index = REGIONS.iter().position(|place| *place == from);
        let Some(index) = index.filter(|_| txn.writes.iter().any(|write| write.key == own)) else {
            return;
        };
        self.holders.0[index].insert(start);
        if std::mem::replace(&mut self.holders.1[index], start) == start {
            return;
        }
        let before = self.holders.before(&self.regions[index]);
        let Some(goes_on) = before.map(|before| before.frozen_until.max(self.now)) else {
            return;
        };
        let serves = self.role().is_some_and(|role| role.owner.as_str() == from.name());
        if !serves || !self.beside(0.5) {
            return;
        }
        let at = goes_on + self.beside_random.random_range(0..SECOND);
        if at < self.calm_from {
            let request = self.switchover(from.other());
            self.at(at, Event::Ask(Box::new(request)));
        }
    }

    /// A switchover has begun: where another replica had the lease before and lives, now and then the node of the pod was cut off a moment ago.
    pub(crate) fn perhaps_replaces_the_pod_of_another(&mut self, txn: &Txn) {
        let begins = txn.writes.iter().any(|write| write.key.starts_with(key::PLANS));
        let revoking = self.role().filter(|role| begins && role.hold == Hold::Revoking);
        let Some(owner) = revoking.map(|role| role.owner.clone()) else {
            return;
        };
        let of_two = |region: &&Region| region.place.name() == owner.as_str() && self.holders.before(region).is_some();
        let Some(place) = self.regions.iter().find(of_two).map(|region| region.place) else {
            return;
        };
        if self.beside(0.8) {
            let index = self.faults.len();
            self.faults.push(Planned {
                at: self.now,
                until: self.now,
                fault: Fault::ReplacePod(place),
            });
            self.at(self.now, Event::Fault(index));
        }
    }
}
