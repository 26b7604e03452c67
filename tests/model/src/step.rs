//! What can happen next: to an agent, to what is on its way, to time.

use leeward_core::operation::StepName;

use crate::{
    agent::Rules,
    decide::{Asked, Known, Turn},
    memo::Memo,
    mutant::{Cheat, Cheats},
    place::{Distance, Place},
    state::{Call, Fault, Firm, Flight, Grant, Operation, Region, Seen, State},
};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A tick passes. On each clock, west's first, this many pass: one, or none or two where it stays behind or runs ahead.
    Tick(u8, u8),
    /// The agent sends a renewal.
    Renew(Place),
    /// A renewal arrives at the quorum.
    Arrive(Place),
    /// Its answer arrives at the agent.
    Answer(Place),
    /// The agent waits for it no more.
    GiveUp(Place),
    /// The renewal of a dead agent arrives at the quorum.
    ArriveLate(Place),
    /// The agent dies, and another one starts.
    Restart(Place),
    /// The agent hears of both leases.
    Observe(Place),
    /// The agent sends what the planner decides.
    Decide(Place),
    /// A person asked for a switchover: the agent sends what the planner decides.
    Ask(Place),
    /// A person calls a switchover off: the agent sends what the planner decides.
    Cancel(Place),
    /// The agent does its part of the operation.
    Step(Place),
    /// A decision arrives at the quorum.
    Commit(Place),
}

/// What the core decided before, by what it decided on.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    plans: Memo<(Known, Place, Option<Seen>, Asked), Option<Flight>>,
    turns: Memo<(Known, Place), Option<Turn>>,
    /// The epoch that a renewal grants.
    pub(crate) granted: Memo<(Place, Place, Firm), Option<Distance>>,
}

impl State {
    pub(crate) fn after(&self, action: Action, rules: &Rules, decisions: &Decisions) -> Option<Self> {
        let mut next = self.clone();
        let happened = match action {
            Action::Tick(west, east) => next.tick([west, east], rules, decisions),
            Action::Renew(place) => next.renew(place, rules),
            Action::Arrive(place) => next.arrive(place, rules, decisions),
            Action::Answer(place) => next.answer(place, rules),
            Action::GiveUp(place) => next.give_up(place, rules, decisions),
            Action::ArriveLate(place) => next.arrive_late(place),
            Action::Restart(place) => next.restart(place, rules),
            Action::Observe(place) => next.observe(place, rules),
            Action::Decide(place) => next.decide(place, Asked::Nothing, rules, decisions),
            Action::Ask(place) => next.decide(place, Asked::Switchover, rules, decisions),
            Action::Cancel(place) => next.decide(place, Asked::Cancel, rules, decisions),
            Action::Step(place) => next.step(place, rules, decisions),
            Action::Commit(place) => {
                let flight = next.at(place).flight.filter(|flight| flight.applies(rules.cheats));
                flight.is_some_and(|flight| {
                    next.commit(&flight, rules.cheats);
                    true
                })
            }
        };
        if !happened {
            return None;
        }
        next.judge();
        next.normalise(rules);
        (next != *self).then_some(next)
    }

    fn tick(&mut self, shown: [u8; 2], rules: &Rules, decisions: &Decisions) -> bool {
        for (place, shown) in Place::BOTH.into_iter().zip(shown) {
            let region = self.at_mut(place);
            region.ahead = match shown {
                0 => false,
                1 => region.ahead,
                _ => true,
            };
            let admitted = region.open().filter(Grant::admits).map(|grant| grant.epoch).max();
            region.under_way = match (admitted, region.under_way) {
                (Some(epoch), _) if rules.ticks.stop > 0 => Some((epoch, rules.ticks.stop)),
                (_, Some((epoch, left))) if left > 1 => Some((epoch, left - 1)),
                _ => None,
            };
            for grant in [&mut region.grant, &mut region.old_grant] {
                *grant = grant.and_then(|grant| grant.later(shown));
            }
            let older = |age: u8| (age + shown).min(rules.ticks.oldest());
            for seen in region.sight.iter_mut().chain(&mut region.own_sight) {
                seen.age = older(seen.age);
            }
            region.call = region.call.map(|call| Call {
                age: older(call.age),
                ..call
            });
            // An answer that comes after what it grants has ended is as good as none.
            if region
                .call
                .is_some_and(|call| call.age >= rules.ticks.ttl - rules.ticks.drift)
            {
                self.give_up(place, rules, decisions);
            }
        }
        true
    }

    fn decide(&mut self, place: Place, asked: Asked, rules: &Rules, decisions: &Decisions) -> bool {
        let possible = match asked {
            Asked::Nothing => true,
            Asked::Switchover => self.operation.is_none(),
            Asked::Cancel => self.operation.is_some_and(|operation| operation.planned),
        };
        if !possible {
            return false;
        }
        let known = Known::of(self);
        let sight = self
            .at(place)
            .sight
            .map(|seen| match rules.cheats.has(Cheat::TakerDoesNotWait) {
                true => Seen {
                    age: rules.ticks.oldest(),
                    ..seen
                },
                false => seen,
            });
        let flight = decisions.plans.get((known, place, sight, asked), || {
            let commit = known.plans(place, sight, asked, &rules.taker());
            commit.as_ref().map(crate::decide::flight)
        });
        // That it is refused changes nothing.
        let flight = flight.filter(|flight| asked != Asked::Cancel || flight.cancels());
        flight.is_some_and(|flight| self.send(place, flight))
    }

    /// Sends a decision. One that was sent before and did not arrive is lost. What only begins or ends an operation arrives at once: it takes
    /// nothing from anybody, and late it is as if it had been decided late. A cancel is on its way like what gives the role back.
    fn send(&mut self, place: Place, flight: Flight) -> bool {
        if flight.operation.is_some() && flight.seals.is_none() && !flight.cancels() {
            self.commit(&flight, Cheats::default());
            return true;
        }
        self.at_mut(place).flight = Some(flight);
        true
    }

    fn step(&mut self, place: Place, rules: &Rules, decisions: &Decisions) -> bool {
        let known = Known::of(self);
        let turn = decisions.turns.get((known, place), || known.turn(place, rules.cheats));
        let done = match turn {
            None | Some(Turn::Take(None)) => return false,
            Some(Turn::Take(Some(flight))) => return self.send(place, flight),
            Some(Turn::Release(flight)) => {
                // `Agent::revoke` of the controller. It closes what was granted at older epochs too, which is left open here.
                if !rules.cheats.has(Cheat::GrantsNotClosed) && known.closes() {
                    let region = self.at_mut(place);
                    region.grant = region.grant.filter(|grant| grant.epoch != 0);
                    region.revoked = region.revoked.with_newest();
                }
                return flight.is_some_and(|flight| self.send(place, flight));
            }
            Some(Turn::Quiesce) => {
                // The gates end with the processes that they are the parents of.
                if !rules.cheats.has(Cheat::WritersNotEnded) {
                    let region = self.at_mut(place);
                    (region.stopped, region.under_way, region.old_grant) = (true, None, None);
                }
                2
            }
            Some(Turn::Done(StepName::Release)) => 3,
            Some(Turn::Done(_)) => 6,
        };
        self.operation = self.operation.map(|operation| Operation { done, ..operation });
        self.start_writers();
        true
    }

    /// Looks at who may write now.
    fn judge(&mut self) {
        let writes: Vec<_> = self
            .regions
            .iter()
            .map(|region| region.writes().collect::<Vec<_>>())
            .collect();
        let fault = if writes.iter().all(|epochs| !epochs.is_empty()) {
            Some(Fault::TwoRegions)
        } else if self
            .regions
            .iter()
            .any(|region| region.open().filter(Grant::answers).count() > 1)
        {
            Some(Fault::TwoHolders)
        } else if (0..2).any(|i| {
            writes[i]
                .iter()
                .min()
                .is_some_and(|epoch| Some(*epoch) < self.regions[1 - i].wrote)
        }) {
            Some(Fault::Order)
        } else {
            None
        };
        self.fault = self.fault.or(fault);
        for (region, epochs) in self.regions.iter_mut().zip(writes) {
            region.wrote = region.wrote.max(epochs.into_iter().max());
        }
    }
}

impl Region {
    /// The grants behind which writers run.
    fn open(&self) -> impl Iterator<Item = Grant> {
        let grants = self.grant.into_iter().chain(self.old_grant);
        grants.filter(|_| !self.stopped)
    }

    /// The epochs at which it may write now.
    pub(crate) fn writes(&self) -> impl Iterator<Item = Distance> {
        let answers = self.open().filter(Grant::answers).map(|grant| grant.epoch);
        answers.chain(self.under_way.map(|(epoch, _)| epoch))
    }
}

impl Grant {
    fn later(self, ticks: u8) -> Option<Self> {
        let answer = self.answer.saturating_sub(ticks);
        let admit = self.admit.saturating_sub(ticks);
        (answer > 0).then_some(Self { answer, admit, ..self })
    }
}
