//! Faults at the moments at which they could do the most: what hits one of those by chance once in hundreds of thousands of runs
//! is looked for here on purpose.

pub(crate) mod beside;

use leeward_core::{
    lease::{Hold, Role},
    operation::Request,
};
use leeward_quorum::{Txn, key};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    fault::{Fault, Place, Planned, REGIONS, Time},
    network::Message,
    world::{Event, MS, SECOND, World},
};

/// Draws of its own.
pub(crate) fn random(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ 0x6169_6d65)
}

/// Draws of what is aimed at changes of an in-sync set that come late and alone.
pub(crate) fn alone_random(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ 0x616c_6f6e)
}

/// Whether a holder changes the in-sync set with it, and nothing else. Whatever else changes a role compares the plan, too, or writes it. Not told by
/// the lease that it compares: a change that compares none is the one to aim at.
fn changes_the_set(txn: &Txn) -> bool {
    let roles = |key: &str| key.starts_with(key::ROLES);
    let plans = txn.compares.iter().any(|compare| compare.key.starts_with(key::PLANS));
    !plans && !txn.writes.is_empty() && txn.writes.iter().all(|write| roles(&write.key))
}

impl World {
    fn ttl(&self) -> Time {
        u64::try_from(self.timing.ttl.as_micros()).unwrap_or(SECOND)
    }

    fn aims(&mut self, probability: f64) -> bool {
        self.now >= crate::world::BEGIN && self.now < self.calm_from && self.aim_random.random_bool(probability)
    }

    fn isolate(&mut self, place: Place) {
        let ttl = self.ttl();
        let until = (self.now + self.aim_random.random_range(ttl..4 * ttl)).min(self.calm_from);
        self.active.push(Planned {
            at: self.now,
            until,
            fault: Fault::Isolate(place),
        });
        self.tell(format!("{} is cut off just then", place.name()));
    }

    /// A holder sends a change of the in-sync set: now and then nobody hears of it, or it arrives after the next renewal.
    pub(crate) fn is_aimed_at(&mut self, from: Place, start: u64, call: u64, txn: &Txn) -> bool {
        if changes_the_set(txn) && self.is(Fault::ChangesLost(from)) {
            return true;
        }
        if !changes_the_set(txn) || !self.aims(0.05) {
            return false;
        }
        if self.aim_random.random_bool(0.5) {
            self.isolate(from);
        } else {
            let ttl = self.ttl();
            let takes = self.aim_random.random_range(ttl / 6..ttl);
            // No later point is confirmed meanwhile, or it would be sent again.
            self.active.push(Planned {
                at: self.now,
                until: (self.now + takes + 4 * ttl).min(self.calm_from),
                fault: Fault::MirrorStalls(from),
            });
            // The holder sends it again while its last point is young. When that arrives, the one that is late comes to a role that has changed.
            if self.alone_random.random_bool(0.5) {
                self.active.push(Planned {
                    at: self.now,
                    until: (self.now + takes).min(self.calm_from),
                    fault: Fault::ChangesLost(from),
                });
                let place = from.name();
                self.tell(format!(
                    "a change of the in-sync set from {place} is late, and none arrives before"
                ));
            }
            let message = Message::Txn(call, txn.clone());
            let event = Event::Deliver(from, Place::Quorum, start, Box::new(message));
            self.late.insert((start, call));
            self.at(self.now + takes, event);
        }
        true
    }

    /// A change of the in-sync set was applied: now and then whoever sent it never hears of it, of one that came late never.
    pub(crate) fn perhaps_cuts_off_the_holder(&mut self, from: Place, start: u64, call: u64, txn: &Txn) {
        let late = self.late.remove(&(start, call));
        if changes_the_set(txn) && self.aims(if late { 1.0 } else { 0.05 }) {
            self.isolate(from);
        }
    }

    /// A switchover has begun: now and then the node of the source's pod was cut off a moment ago, and its agent dies and is back at once.
    pub(crate) fn perhaps_replaces_pod_and_agent(&mut self, txn: &Txn) {
        let revoking = self.role().is_some_and(|role| role.hold == Hold::Revoking);
        let begins = txn.writes.iter().any(|write| write.key.starts_with(key::PLANS));
        if !begins || !revoking || !self.aims(0.03) {
            return;
        }
        let owner = self.role().map(|role| role.owner.clone());
        let Some(place) = REGIONS
            .into_iter()
            .find(|place| owner.as_ref().is_some_and(|owner| owner.as_str() == place.name()))
        else {
            return;
        };
        let dies = self.now + self.aim_random.random_range(0..300 * MS);
        let back = dies + self.aim_random.random_range(MS..100 * MS);
        let cut_off = self.aim_random.random_range(SECOND..4 * SECOND);
        for (fault, at, until) in [
            (Fault::ReplacePod(place), self.now, self.now + cut_off),
            (Fault::CrashAgent(place), dies, back),
        ] {
            let until = until.min(self.calm_from);
            let index = self.faults.len();
            self.faults.push(Planned { at, until, fault });
            self.at(at, Event::Fault(index));
        }
    }

    /// The source has given the roles back: now and then a person calls the switchover off while the target is about to take them.
    pub(crate) fn perhaps_calls_off_after_the_release(&mut self) {
        let released = self.role().is_some_and(|role| role.hold == Hold::Released);
        let running = self.plan().and_then(|plan| plan.operation.clone());
        let Some(running) = running.filter(|_| released && self.aims(0.2)) else {
            return;
        };
        let request = Request {
            id: running.id,
            kind: running.kind,
            to: running.to,
            asked_ms: self.now / MS,
            accept_loss_ms: None,
            cancel: true,
            refused: None,
        };
        let after = self.aim_random.random_range(MS..200 * MS);
        self.at(self.now + after, Event::Ask(Box::new(request)));
    }

    /// A switchover was called off after its source had given the roles back: now and then a person asks for the same again at once, while its
    /// target does not hear of that.
    pub(crate) fn perhaps_asks_again(&mut self, before: &Role) {
        let again = self
            .role()
            .is_some_and(|role| role.hold == Hold::Held && role.owner == before.owner);
        if before.hold != Hold::Released || !again || !self.aims(0.5) {
            return;
        }
        let Some(target) = REGIONS.into_iter().find(|place| place.name() != before.owner.as_str()) else {
            return;
        };
        let until = self.now + self.aim_random.random_range(SECOND / 2..3 * SECOND);
        self.active.push(Planned {
            at: self.now,
            until: until.min(self.calm_from),
            fault: Fault::WatchStalls(target),
        });
        let request = self.switchover(target);
        let after = self.aim_random.random_range(MS..300 * MS);
        self.at(self.now + after, Event::Ask(Box::new(request)));
    }
}
