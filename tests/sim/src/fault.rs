//! What goes wrong in a run: drawn from its seed before it begins, but for agents that die after a step.

use leeward_core::operation::{Kind, Request};
use leeward_quorum::{Txn, key};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::app::Process;
use crate::protected::AUTHORITY;
use crate::world::{BEGIN, Event, MS, Region, SECOND, World, name};

/// Microseconds of real time since the run began.
pub(crate) type Time = u64;

/// Who sends or hears messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    West,
    East,
    Witness,
    Quorum,
}

pub(crate) const REGIONS: [Place; 2] = [Place::West, Place::East];

impl Place {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::West => "west",
            Self::East => "east",
            Self::Witness => "witness",
            Self::Quorum => "quorum",
        }
    }

    pub(crate) fn other(self) -> Self {
        if self == Self::West { Self::East } else { Self::West }
    }
}

/// One thing that goes wrong, until a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Every process of a region dies; it is started again.
    Crash(Place),
    /// The agent alone dies, and its gate with it; the application runs on.
    CrashAgent(Place),
    /// One of two replicas of an agent dies.
    CrashReplica(Place, usize),
    /// One of two replicas of an agent stands still.
    FreezeReplica(Place, usize),
    /// Every process of a region stands still.
    Freeze(Place),
    /// Messages from one place to another are lost.
    Cut(Place, Place),
    /// A region is cut off from everybody but its users.
    Isolate(Place),
    /// A majority of the quorum's members is away.
    QuorumAway,
    /// The witness is away.
    WitnessAway,
    /// What a region is told of changes comes late; what it asks is answered in time.
    WatchStalls(Place),
    /// Points are not sent from a region.
    MirrorStalls(Place),
    /// Changes of the in-sync set that a region sends are lost.
    ChangesLost(Place),
    /// The disk of a region takes nothing more.
    DiskFull(Place),
    /// Messages take up to two seconds.
    Slow,
    /// The gate of a region's pod is started anew.
    RestartGate(Place),
    /// The pod of a region stands still.
    FreezePod(Place),
    /// The node of a region's pod is cut off, and another pod is started.
    ReplacePod(Place),
    /// A person asks for a switchover to a region.
    Ask(Place),
}

/// A fault with its time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) at: Time,
    pub(crate) until: Time,
    pub(crate) fault: Fault,
}

/// The faults of a run, in order. After `end` there are none.
pub(crate) fn plan(random: &mut StdRng, begin: Time, end: Time, ttl: Time) -> Vec<Planned> {
    let mut faults = Vec::new();
    let mut at = begin;
    loop {
        at += random.random_range(ttl / 8..ttl * 3 / 2);
        if at >= end {
            return faults;
        }
        let region = *REGIONS.choose(random).unwrap_or(&Place::West);
        let fault = match random.random_range(0..28) {
            0..4 => Fault::Crash(region),
            4..6 => Fault::CrashAgent(region),
            6..9 => Fault::Freeze(region),
            9..12 => {
                let all = [Place::West, Place::East, Place::Witness, Place::Quorum];
                let other = *all.choose(random).unwrap_or(&Place::Quorum);
                match random.random_range(0..2) {
                    0 => Fault::Cut(region, other),
                    _ => Fault::Cut(other, region),
                }
            }
            12..14 => Fault::Isolate(region),
            14 => Fault::QuorumAway,
            15 => Fault::WitnessAway,
            16 => Fault::MirrorStalls(region),
            17 => Fault::Slow,
            24 => Fault::RestartGate(region),
            25 => Fault::FreezePod(region),
            26..28 => Fault::ReplacePod(region),
            _ => Fault::Ask(region),
        };
        // Shorter and longer than a lease, both.
        let length = random.random_range(ttl / 8..ttl * 4);
        faults.push(Planned {
            at,
            until: (at + length).min(end),
            fault,
        });
    }
}

fn index_of(place: Place) -> usize {
    usize::from(place == Place::East)
}

impl Region {
    /// Every process dies; none is started before that time.
    pub(crate) fn lose(&mut self, until: Time) {
        self.replicas
            .iter_mut()
            .for_each(|replica| replica.dies(replica.down_until));
        self.process = Process::Stopped;
        self.pods.clear();
        self.frozen_until = 0;
        self.down_until = self.down_until.max(until);
    }
}

impl World {
    pub(crate) fn goes_wrong(&mut self, index: usize) {
        let planned = self.faults[index];
        let now = self.now;
        self.active.retain(|planned| planned.until > now);
        self.tell(format!(
            "{:?} for {} ms",
            planned.fault,
            (planned.until - planned.at) / MS
        ));
        match planned.fault {
            Fault::Crash(place) => {
                if let Some(region) = self.region(place) {
                    region.lose(planned.until);
                }
            }
            Fault::CrashAgent(place) => {
                self.agent_dies(place, 0, planned.until);
            }
            Fault::CrashReplica(place, slot) => self.agent_dies(place, slot, planned.until),
            Fault::FreezeReplica(place, slot) => {
                let region = self.region(place).filter(|region| now >= region.down_until);
                let replica = region.and_then(|region| region.replicas.get_mut(slot));
                if let Some(replica) = replica.filter(|replica| now >= replica.down_until) {
                    replica.frozen_until = planned.until;
                }
            }
            Fault::Freeze(place) => {
                if let Some(region) = self.region(place).filter(|region| now >= region.down_until) {
                    region.frozen_until = planned.until;
                }
            }
            Fault::RestartGate(place) => self.restart_gate(index_of(place)),
            Fault::ReplacePod(place) => self.replace_pod(index_of(place)),
            Fault::FreezePod(place) => {
                for pod in self.region(place).into_iter().flat_map(|region| &mut region.pods) {
                    pod.frozen_until = planned.until;
                }
            }
            Fault::Ask(to) => {
                let request = self.switchover(to);
                self.ask(&request);
                self.perhaps_calls_off(request, 0.25, 2 * SECOND);
            }
            _ => self.active.push(planned),
        }
    }

    /// One agent dies alone.
    fn agent_dies(&mut self, place: Place, slot: usize, until: Time) {
        let region = self.region(place);
        if let Some(replica) = region.and_then(|region| region.replicas.get_mut(slot)) {
            replica.dies(until);
        }
    }

    /// What a person asks for to have the writer in a region.
    pub(crate) fn switchover(&mut self, to: Place) -> Request {
        self.requests += 1;
        Request {
            id: format!("asked-{}", self.requests),
            kind: Kind::Switchover,
            to: name(to),
            asked_ms: self.now / MS,
            accept_loss_ms: None,
            cancel: false,
            refused: None,
        }
    }

    /// A person asks for something.
    pub(crate) fn ask(&mut self, request: &Request) {
        let key = key::request(&self.app.key, &request.id);
        if let Ok(txn) = Txn::default().put(&key, request)
            && !self.is(Fault::QuorumAway)
        {
            self.commit(&txn);
        }
    }

    /// Now and then a person thinks better of it, at any moment within a time.
    fn perhaps_calls_off(&mut self, request: Request, probability: f64, within: Time) {
        if self.cancel_random.random_bool(probability) {
            let after = self.cancel_random.random_range(0..within);
            let cancel = Request {
                cancel: true,
                ..request
            };
            self.at(self.now + after, Event::Ask(Box::new(cancel)));
        }
    }

    /// Of what was asked, and of what it crosses, either may be the slower one.
    pub(crate) fn perhaps_slow(&mut self) {
        if self.now < self.calm_from && self.cancel_random.random_bool(0.4) {
            self.active.push(Planned {
                at: self.now,
                until: (self.now + SECOND).min(self.calm_from),
                fault: Fault::Slow,
            });
        }
    }

    /// A step was done: now and then the switchover is called off while the next one begins.
    pub(crate) fn perhaps_calls_off_after_a_step(&mut self, txn: &Txn) {
        let step = txn.writes.iter().any(|write| write.key.starts_with(key::JOURNALS));
        let running = self.plan().and_then(|plan| plan.operation.as_ref());
        let Some(running) = running.filter(|running| step && running.kind == Kind::Switchover) else {
            return;
        };
        if self.playing.is_some() {
            return;
        }
        let request = Request {
            id: running.id.clone(),
            kind: running.kind,
            to: running.to.clone(),
            asked_ms: self.now / MS,
            accept_loss_ms: None,
            cancel: false,
            refused: None,
        };
        self.perhaps_calls_off(request, 0.1, 150 * MS);
    }

    /// A switchover went on: now and then its target is lost, for long or for good.
    pub(crate) fn perhaps_loses_the_target(&mut self, txn: &Txn) {
        let goes_on = |key: &str| {
            [key::PLANS, key::ROLES, key::JOURNALS]
                .iter()
                .any(|of| key.starts_with(of))
        };
        let running = self.plan().and_then(|plan| plan.operation.as_ref());
        let Some(running) = running.filter(|running| running.kind == Kind::Switchover) else {
            return;
        };
        let target = running.to.clone();
        let (now, calm) = (self.now, self.calm_from);
        if self.lost_for_good.is_some()
            || now >= calm
            || !txn.writes.iter().any(|write| goes_on(&write.key))
            || !self.loss_random.random_bool(0.03)
        {
            return;
        }
        // Nobody could resume an application whose authority is gone for good.
        let nobody_resumes = self.is_paused_anywhere() && target == name(AUTHORITY);
        let for_good = self.loss_random.random_bool(0.5) && !nobody_resumes;
        // What is on its way may still arrive.
        let until = match for_good {
            true => Time::MAX,
            false => (now + self.loss_random.random_range(SECOND..12 * SECOND)).min(calm),
        };
        let Some(region) = self
            .regions
            .iter_mut()
            .find(|region| region.place.name() == target.as_str())
        else {
            return;
        };
        region.lose(until);
        let place = region.place;
        self.lost_for_good = for_good.then_some(place);
        self.tell(format!(
            "{target}, the target, is lost {}",
            if for_good { "for good" } else { "for long" }
        ));
    }

    /// Something was decided or done: now and then its agent dies before it hears of that, and the other region stands still.
    pub(crate) fn after_a_step(&mut self, place: Place, start: u64, txn: &Txn) {
        let renewal = txn.writes.iter().all(|write| write.key.starts_with(key::LEASES));
        if renewal || self.now < BEGIN || self.now >= self.calm_from || !self.random.random_bool(0.04) {
            return;
        }
        let ttl = u64::try_from(self.timing.ttl.as_micros()).unwrap_or(SECOND);
        let (now, calm) = (self.now, self.calm_from);
        let until = |random: &mut StdRng| (now + random.random_range(0..ttl * 3)).min(calm);
        let (agent, other) = (until(&mut self.random), until(&mut self.random));
        let both = self.random.random_bool(0.3);
        let slot = self.region(place).and_then(|region| region.slot_of(start));
        self.agent_dies(place, slot.unwrap_or(0), agent);
        if both && let Some(region) = self.region(place.other()).filter(|region| now >= region.down_until) {
            region.frozen_until = other;
        }
        self.tell(format!("the agent of {} dies after a step", place.name()));
    }
}
