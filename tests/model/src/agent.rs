//! What an agent does with its lease, and what becomes of it when it dies.
//!
//! An agent that stands still is one that does nothing of this for as long as it takes; everything it began stays half done, while clocks
//! and grants run on. So nothing here is ever forced to happen.

use leeward_core::{
    holder::{Holder, Offer, Renewal},
    lease::{Grants, Role, Sight, Timing},
};

use crate::{
    decide::{AGENT, lease, sighted},
    mutant::{Cheat, Cheats},
    place::{Distance, FRESH, Place, epoch, revision, role_key},
    state::{Call, Firm, Grant, Lease, Region, Seen, State},
    step::Decisions,
    time::{Ticks, age, ago, ahead, left, now},
};

/// The lengths, and what is taken away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) ticks: Ticks,
    pub(crate) restarts: bool,
    pub(crate) cheats: Cheats,
}

impl Rules {
    pub(crate) fn holder(&self) -> Timing {
        let mut ticks = self.ticks;
        if self.cheats.has(Cheat::HolderWithoutDrift) {
            ticks.drift = 0;
        }
        if self.cheats.has(Cheat::HolderWithoutStop) {
            ticks.stop = 0;
        }
        ticks.timing()
    }

    pub(crate) fn taker(&self) -> Timing {
        let mut ticks = self.ticks;
        if self.cheats.has(Cheat::TakerWithoutDrift) {
            ticks.drift = 0;
        }
        ticks.timing()
    }

    /// Takes notice of a lease as it is in the quorum now.
    fn observe(&self, place: Place, before: Option<Seen>, found: Lease) -> Seen {
        let sight = before.map(|seen| sighted(place, seen));
        let seen = Sight::observe(sight, lease(place, found.mine, found.sealed), FRESH, now());
        let counted = match before {
            Some(before) if self.cheats.has(Cheat::TakerCountsFromStart) => before.age,
            _ => age(seen.first_seen),
        };
        Seen {
            fresh: true,
            sealed: seen.lease.sealed,
            age: counted,
        }
    }
}

impl Grant {
    fn of(grants: &Grants) -> Option<Self> {
        let epoch = crate::place::distance(*grants.roles.values().next()?);
        let (admit, answer) = (left(grants.admit_until), left(grants.answer_until));
        (answer > 0).then_some(Self { epoch, admit, answer })
    }

    fn full(&self) -> Grants {
        Grants {
            admit_until: ahead(self.admit),
            answer_until: ahead(self.answer),
            roles: [(role_key().clone(), epoch(self.epoch))].into(),
        }
    }

    /// Whether a request is let in now.
    pub(crate) fn admits(&self) -> bool {
        self.full().admit(role_key(), now()).is_some()
    }

    /// Whether an answer leaves now.
    pub(crate) fn answers(&self) -> bool {
        self.full().answer(role_key(), now()).is_some()
    }
}

/// The agent's side of its lease, as the state has it.
fn holder(place: Place, held: Option<bool>) -> Holder {
    let mut holder = Holder::new(place.name().clone(), AGENT);
    if let Some(fresh) = held {
        let timing = Ticks {
            ttl: 0,
            stop: 0,
            drift: 0,
        };
        holder.renewed(offer(place), now(), Some(revision(fresh)), [], &timing.timing());
    }
    holder
}

fn offer(place: Place) -> Offer {
    Offer {
        lease: lease(place, true, false),
        replaces: 0,
    }
}

impl State {
    /// Sends a renewal, or the first one after an answer that did not come. The lease is read at the instant at which the renewal is sent:
    /// had it been read earlier, the renewal would find it changed.
    pub(crate) fn renew(&mut self, place: Place, rules: &Rules) -> bool {
        let region = self.at(place);
        if region.call.is_some() {
            return false;
        }
        let found = region.lease;
        let mut holder = holder(place, region.held);
        let offer = match holder.renewal() {
            Renewal::Write(offer) => Some(offer),
            Renewal::Read => {
                let sight = found.map(|found| sighted(place, rules.observe(place, region.own_sight, found)));
                let told = found.map(|found| {
                    let mine = found.mine || rules.cheats.has(Cheat::PredecessorsLeaseIsMine);
                    lease(place, mine, found.sealed)
                });
                let told = told.as_ref().map(|lease| (lease, FRESH));
                holder.begin(told, sight.as_ref(), &rules.ticks.timing(), now())
            }
        };
        let Some(offer) = offer else { return false };
        let newest = found.map_or(0, |_| FRESH);
        let region = self.at_mut(place);
        region.held = None;
        region.call = Some(Call {
            age: 0,
            fresh: offer.replaces == newest,
            applied: None,
        });
        true
    }

    /// The renewal arrives at the quorum. That it was refused the agent hears at once; had it heard later, it would have arrived later.
    pub(crate) fn arrive(&mut self, place: Place, rules: &Rules, decisions: &Decisions) -> bool {
        let Some(call) = self.at(place).call.filter(|call| call.applied.is_none()) else {
            return false;
        };
        if !call.fresh {
            let grants = holder(place, None).renewed(offer(place), ago(call.age), None, [], &rules.holder());
            let region = self.at_mut(place);
            (region.call, region.grant) = (None, Grant::of(&grants));
            return true;
        }
        let read = self.granted(place, rules, decisions);
        let renewed = Lease {
            mine: true,
            sealed: false,
        };
        self.put_lease(place, renewed);
        self.at_mut(place).call = Some(Call {
            applied: Some(read),
            fresh: true,
            ..call
        });
        true
    }

    /// The epoch that a renewal that reads the role now grants.
    fn granted(&self, place: Place, rules: &Rules, decisions: &Decisions) -> Option<Distance> {
        let hold = match self.hold {
            Firm::Revoking if rules.cheats.has(Cheat::RevokingIsGranted) => Firm::Held,
            hold => hold,
        };
        decisions.granted.get((place, self.owner, hold), || {
            let role = Role {
                hold: hold.into(),
                ..Role::held(self.owner.name().clone(), epoch(0))
            };
            let grants = Grants::from_renewal(&rules.holder(), place.name(), now(), [(role_key(), &role)]);
            grants.roles.values().next().map(|epoch| crate::place::distance(*epoch))
        })
    }

    /// The answer of an applied renewal arrives.
    pub(crate) fn answer(&mut self, place: Place, rules: &Rules) -> bool {
        let region = self.at_mut(place);
        let Some(call) = region.call else { return false };
        let Some(read) = call.applied else { return false };
        let sent = match rules.cheats.has(Cheat::HolderCountsFromAnswer) {
            true => now(),
            false => ago(call.age),
        };
        region.count(place, call.fresh, sent, read, rules);
        region.call = None;
        true
    }

    /// The agent gives up waiting: the renewal or its answer is late or lost.
    pub(crate) fn give_up(&mut self, place: Place, rules: &Rules, decisions: &Decisions) -> bool {
        let Some(call) = self.at_mut(place).call.take() else {
            return false;
        };
        if rules.cheats.has(Cheat::UnknownIsRenewed) {
            let read = self.granted(place, rules, decisions);
            self.at_mut(place).count(place, false, ago(call.age), read, rules);
        }
        true
    }

    /// The renewal of a dead agent arrives.
    pub(crate) fn arrive_late(&mut self, place: Place) -> bool {
        let arrives = self.at(place).stray;
        if arrives {
            let lease = Lease {
                mine: false,
                sealed: false,
            };
            self.put_lease(place, lease);
        }
        arrives
    }

    /// The agent dies and another one starts, which knows nothing. What the dead one granted may be in force still, at gates that do not
    /// know that it died, while there are writers: a gate ends with its writer. Only one such predecessor at a time is followed.
    pub(crate) fn restart(&mut self, place: Place, rules: &Rules) -> bool {
        let before = self.at(place);
        if !rules.restarts || before.old_grant.is_some() {
            return false;
        }
        let waiting = before.call.is_some_and(|call| call.applied.is_none() && call.fresh);
        let region = Region {
            ahead: before.ahead,
            lease: before.lease.map(|lease| Lease { mine: false, ..lease }),
            stray: before.stray || waiting,
            old_grant: before.grant.filter(|_| !before.stopped),
            under_way: before.under_way,
            stopped: before.stopped,
            flight: before.flight,
            wrote: before.wrote,
            ..Region::default()
        };
        *self.at_mut(place) = region;
        true
    }

    /// The agent hears of both leases as they are now.
    pub(crate) fn observe(&mut self, place: Place, rules: &Rules) -> bool {
        let other = place.other();
        let theirs = self.at(other).lease;
        let region = self.at(place);
        let own = region.lease.filter(|lease| !lease.mine && !lease.sealed);
        let own_sight = own.map(|lease| rules.observe(place, region.own_sight, lease));
        let sight = theirs.map(|lease| rules.observe(other, region.sight, lease));
        let region = self.at_mut(place);
        (region.own_sight, region.sight) = (own_sight, sight);
        true
    }
}

impl Region {
    /// What a renewal entitles to, less what was given back meanwhile, as `Agent::grant` of the controller keeps it.
    fn count(
        &mut self,
        place: Place,
        fresh: bool,
        sent: leeward_core::lease::Moment,
        read: Option<Distance>,
        rules: &Rules,
    ) {
        let role = read.map(|distance| Role::held(place.name().clone(), epoch(distance)));
        let roles = role.iter().map(|role| (role_key(), role));
        let mut holder = holder(place, None);
        let grants = holder.renewed(offer(place), sent, Some(revision(fresh)), roles, &rules.holder());
        self.held = Some(fresh);
        let revoked = self.revoked;
        self.grant = Grant::of(&grants).filter(|grant| !revoked.has(grant.epoch));
    }
}
