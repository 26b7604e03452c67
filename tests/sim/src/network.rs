//! The network: messages that take their time, come twice, come in another order, or not at all.

use std::time::Duration;

use leeward_core::{lease::Moment, name::ClusterName, report::ClusterReport};
use leeward_quorum::{Changes, Outcome as Answer, Txn};
use rand::Rng;

use crate::app::Point;
use crate::fault::{Fault, Place, Planned, REGIONS, Time};
use crate::mutant::Mutant;
use crate::world::{Event, MS, SECOND, World, name};

#[derive(Debug, Clone)]
pub(crate) enum Message {
    Txn(u64, Txn),
    Answer(u64, Answer),
    Ask(u64, u64),
    Changes(u64, Changes),
    Report(ClusterReport),
    Heartbeat(Moment),
    /// When it was asked, on the asker's clock, and how long ago each cluster was heard of.
    Sights(Moment, Vec<(ClusterName, Duration)>),
    Point(Point),
    /// Epoch and length of a log, and the point's number.
    Confirm(u64, usize, u64),
}

impl World {
    pub(crate) fn is_cut(&self, from: Place, to: Place) -> bool {
        self.is(Fault::Cut(from, to))
            || REGIONS
                .iter()
                .any(|place| (from == *place || to == *place) && self.is(Fault::Isolate(*place)))
            || [from, to].contains(&Place::Quorum) && self.is(Fault::QuorumAway)
            || [from, to].contains(&Place::Witness) && self.is(Fault::WitnessAway)
    }

    pub(crate) fn post(&mut self, from: Place, to: Place, start: u64, message: Message) {
        let copies = if self.random.random_bool(0.02) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = self.is(Fault::Slow) && self.random.random_bool(0.3);
            let takes = match self.random.random_range(0..10) {
                _ if slow => self.random.random_range(MS..2 * SECOND),
                0..5 => self.random.random_range(50..500),
                5..9 => self.random.random_range(500..20 * MS),
                _ => self.random.random_range(20 * MS..200 * MS),
            };
            let stalled = |planned: &&Planned| planned.fault == Fault::WatchStalls(to);
            let takes = match self.active.iter().find(stalled) {
                Some(stalled) if matches!(message, Message::Changes(..)) => {
                    takes + stalled.until.saturating_sub(self.now)
                }
                _ => takes,
            };
            if !self.is_cut(from, to) {
                let event = Event::Deliver(from, to, start, Box::new(message.clone()));
                self.at(self.now + takes, event);
            }
        }
    }

    pub(crate) fn deliver(&mut self, from: Place, to: Place, start: u64, message: Message) {
        if self.is_cut(from, to) {
            return;
        }
        match (to, message) {
            (Place::Quorum, Message::Txn(call, txn)) => {
                let txn = self.done_again(txn);
                let answer = self.commit(&txn);
                if answer.applied {
                    self.dies_unheard(from, start, &txn);
                    self.perhaps_cuts_off_the_holder(from, start, call, &txn);
                    self.perhaps_replaces_pod_and_agent(&txn);
                    self.perhaps_asks_after_another_took_the_lease(from, start, &txn);
                    self.perhaps_replaces_the_pod_of_another(&txn);
                    self.perhaps_calls_off_after_a_step(&txn);
                    self.after_a_step(from, start, &txn);
                    self.perhaps_loses_the_target(&txn);
                }
                self.post(to, from, start, Message::Answer(call, answer));
            }
            (Place::Quorum, Message::Ask(call, after)) => {
                if self.quorum.revision() > after {
                    let changes = self.quorum.changes(after);
                    self.post(to, from, start, Message::Changes(call, changes));
                } else {
                    // Who asked before and died, or asks anew, waits no more.
                    let lives = |start| {
                        self.regions
                            .iter()
                            .any(|r| r.place == from && r.slot_of(start).is_some())
                    };
                    let mut waiting = std::mem::take(&mut self.waiting);
                    waiting.retain(|(place, s, ..)| *place != from || *s != start && lives(*s));
                    self.waiting = waiting;
                    self.waiting.push((from, start, call, after));
                }
            }
            (Place::Witness, Message::Heartbeat(asked)) => {
                self.witness.insert(name(from), self.now);
                let now = self.now;
                let ago = |at: &Time| Duration::from_micros(now - at);
                let heard = self.witness.iter().map(|(cluster, at)| (cluster.clone(), ago(at)));
                let sights = Message::Sights(asked, heard.collect());
                self.post(to, from, start, sights);
            }
            (Place::West | Place::East, message) => self.heard_by(from, to, start, message),
            _ => {}
        }
    }

    pub(crate) fn heard_by(&mut self, from: Place, to: Place, start: u64, message: Message) {
        let now = self.now;
        let mutant = self.mutant;
        let confirms_nothing = mutant == Some(Mutant::ConfirmedThoughFull);
        let any_epoch = mutant == Some(Mutant::LowerEpochReceived);
        let is_full = self.is(Fault::DiskFull(to));
        let Some(region) = self.regions.iter_mut().find(|region| region.place == to) else {
            return;
        };
        let answers = match message {
            Message::Answer(..) | Message::Changes(..) | Message::Sights(..) => true,
            Message::Confirm(..) => region.slot_of(start).is_some(),
            _ => false,
        };
        let slot = match answers {
            true => region.slot_of(start),
            false => region.any_slot(&mut self.replica_random),
        };
        let replica_until = slot.map_or(0, |slot| region.replicas[slot].frozen_until);
        let until = region.frozen_until.max(replica_until);
        if now < until {
            // It lies in the socket until the region, or the process, goes on.
            return self.at(until, Event::Deliver(from, to, start, Box::new(message)));
        }
        let local = region.clock.at(now);
        let Some(replica) = slot.map(|slot| &mut region.replicas[slot]) else {
            return;
        };
        let starts = replica.start;
        let Some(agent) = &mut replica.agent else { return };
        let mut sends = Vec::new();
        match message {
            Message::Answer(call, answer) => sends = agent.answered(call, answer, local),
            Message::Changes(call, changes) => agent.followed(call, changes, local),
            Message::Report(report) => {
                agent.is_sent_configuration(from, &mut replica.disk, is_full);
                agent.heard.reports.insert(report.cluster.clone(), (report, local));
            }
            Message::Sights(asked, ago) => {
                agent.heard.witness = ago
                    .into_iter()
                    .map(|(cluster, ago)| (cluster, Moment(asked.since(Moment(ago)))))
                    .collect();
                agent.heard.witness_at = Some(local);
            }
            Message::Point(point) => {
                let (epoch, length, sequence) = (point.epoch, point.log.len(), point.sequence);
                let kept = match is_full {
                    true => confirms_nothing,
                    false => region.volume.receive(point, any_epoch),
                };
                match mutant {
                    Some(Mutant::PointGoesBeforeNext) if is_full => region.volume.point = None,
                    Some(Mutant::NothingPutAside) => region.volume.aside.clear(),
                    _ => {}
                }
                if kept {
                    self.post(to, from, start, Message::Confirm(epoch, length, sequence));
                }
                return;
            }
            Message::Confirm(epoch, length, sequence) => {
                agent.confirms(epoch, sequence, local);
                region.volume.confirmed = region.volume.confirmed.max((epoch, length));
            }
            _ => {}
        }
        if std::mem::take(&mut agent.has_news) {
            replica.edge.is_told(agent);
        }
        for send in sends {
            self.sent(to, starts, send);
        }
    }
}
