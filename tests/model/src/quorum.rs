//! The quorum: applies what arrives, and what becomes of everything that was read before.
//!
//! A transaction is applied in one move, whatever members and leaders do meanwhile. A quorum that elects, is away or cannot be reached is one
//! to which nothing arrives for as long as it takes, or from which no answer comes back.

use crate::{
    decide::Known,
    mutant::{Cheat, Cheats},
    place::Place,
    state::{Call, Fault, Firm, Flight, Lease, State},
};

impl Flight {
    /// Whether the quorum would apply it, as `leeward_quorum::commit::txn` compares.
    pub(crate) fn applies(&self, cheats: Cheats) -> bool {
        let compared = |fresh: Option<bool>, cheat| {
            let left_out = self.seals_or_takes() && cheats.has(cheat);
            left_out || fresh.unwrap_or(true)
        };
        compared(self.plan, Cheat::PlanNotCompared)
            && compared(self.role, Cheat::RoleNotCompared)
            && compared(self.lease, Cheat::LeaseNotCompared)
    }

    /// Whether it ends an operation and leaves the role where it was, at its epoch or, where it had been given back, at the next one.
    pub(crate) fn cancels(&self) -> bool {
        self.operation == Some(None) && self.moves.is_some()
    }

    fn seals_or_takes(&self) -> bool {
        self.seals.is_some()
    }
}

impl State {
    /// A decision arrives. It stays on its way where it would be applied again: its sender may have sent it twice.
    pub(crate) fn commit(&mut self, flight: &Flight, cheats: Cheats) {
        if let Some(place) = flight.seals
            && !cheats.has(Cheat::NotSealed)
        {
            let lease = Lease {
                sealed: true,
                ..self.at(place).lease.unwrap_or(Lease {
                    mine: false,
                    sealed: true,
                })
            };
            self.put_lease(place, lease);
        }
        let revoking = self.hold == Firm::Revoking;
        if let Some(mut operation) = flight.operation {
            if flight.plan == Some(false) {
                self.fault = Some(Fault::Generation);
            }
            if let Some(operation) = &mut operation {
                operation.after_revoking = revoking && !operation.planned;
            }
            self.operation = operation;
            self.each_flight(|flight| flight.plan = flight.plan.map(|_| false));
        }
        if let Some((owner, hold, epoch)) = flight.moves {
            if epoch < 0 || (epoch == 0 && owner != self.owner) {
                self.fault = Some(Fault::Epoch);
            }
            (self.owner, self.hold) = (owner, hold);
            // `Revoked::limit` of the core, at the first instant at which the agent may know of it.
            if flight.cancels() && epoch == 0 {
                let region = self.at_mut(owner);
                region.revoked = region.revoked.kept(|given_back| *given_back != 0);
            }
            self.each_flight(|flight| flight.role = flight.role.map(|_| false));
            self.grow(epoch);
        }
        self.start_writers();
    }

    /// A lease is written: what was read of it before is old.
    pub(crate) fn put_lease(&mut self, place: Place, lease: Lease) {
        let region = self.at_mut(place);
        region.lease = Some(lease);
        region.stray = false;
        region.held = region.held.map(|_| false);
        region.call = region.call.map(|call| Call { fresh: false, ..call });
        if let Some(seen) = &mut region.own_sight {
            seen.fresh = false;
        }
        if let Some(seen) = &mut self.at_mut(place.other()).sight {
            seen.fresh = false;
        }
        self.each_flight(|flight| {
            if flight.seals == Some(place) {
                flight.lease = flight.lease.map(|_| false);
            }
        });
    }

    /// Writers run again, at the first instant at which they might, where the mode has them run.
    pub(crate) fn start_writers(&mut self) {
        for place in Place::BOTH {
            if self.at(place).stopped && Known::of(self).serves(place) {
                self.at_mut(place).stopped = false;
            }
        }
    }

    fn each_flight(&mut self, change: impl Fn(&mut Flight)) {
        for region in &mut self.regions {
            if let Some(flight) = &mut region.flight {
                change(flight);
            }
        }
    }

    /// The role's epoch grows: all others are further away from it.
    fn grow(&mut self, by: i8) {
        let back = |distance: &mut i8| *distance = distance.saturating_sub(by);
        if let Some(operation) = &mut self.operation {
            back(&mut operation.epoch);
        }
        for region in &mut self.regions {
            let grants = region.grant.iter_mut().chain(&mut region.old_grant);
            grants.for_each(|grant| back(&mut grant.epoch));
            let read = region
                .call
                .iter_mut()
                .filter_map(|call| call.applied.as_mut()?.as_mut());
            read.chain(&mut region.wrote).for_each(back);
            region.revoked = region.revoked.further(by);
            region.under_way.iter_mut().for_each(|(epoch, _)| back(epoch));
            if let Some(flight) = &mut region.flight {
                flight.moves.iter_mut().for_each(|(_, _, epoch)| back(epoch));
                flight.operation.iter_mut().flatten().for_each(|o| back(&mut o.epoch));
            }
        }
    }
}
