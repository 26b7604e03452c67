//! The replicas of a region's agent: one process, or two at the same time, each another holder. In half of the runs with two each of them does all
//! that an agent does at all times, so that safety rests on the lease alone; in the other half only the one does that acts, as the real core decides
//! it, so that nothing waits for one that does not. They share the region's clock, its volumes, its address and what happens to the region,
//! but each has files of its own, and dies, stands still and starts anew alone. Who says something to the region's address reaches one of
//! them, any one; an answer comes to the one that asked.

use leeward_core::{app::App, lease::Timing};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    agent::{Agent, Here, Send},
    app::process,
    disk::Disk,
    edge::Edge,
    fault::{Fault, Place, Planned, REGIONS, Time},
    mutant::Mutant,
    network::Message,
    protected::AUTHORITY,
    world::{Event, MS, Region, World, name},
};

/// One process of an agent, or the place for one.
pub(crate) struct Replica {
    pub(crate) agent: Option<Agent>,
    /// The number with which it was started: an answer to another one is not for it.
    pub(crate) start: u64,
    /// Until when it is not started, and until when it stands still.
    pub(crate) down_until: Time,
    pub(crate) frozen_until: Time,
    pub(crate) next_point: Time,
    /// What it keeps: it survives its death, and so does its edge's table.
    pub(crate) disk: Disk,
    pub(crate) edge: Edge,
}

impl Replica {
    fn new() -> Self {
        Self {
            agent: None,
            start: 0,
            down_until: 0,
            frozen_until: 0,
            next_point: 0,
            disk: Disk::default(),
            edge: Edge::default(),
        }
    }

    /// It dies, and is not started before that time.
    pub(crate) fn dies(&mut self, until: Time) {
        self.agent = None;
        self.frozen_until = 0;
        self.down_until = until;
    }
}

/// Draws of the replicas, so that the seeds with one agent in each region stay as they are.
pub(crate) fn random(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ 0x7265_706c)
}

/// The replicas of each region: in a fifth of the runs there are two.
pub(crate) fn replicas(random: &mut StdRng) -> [Vec<Replica>; 2] {
    let count = if random.random_bool(0.2) { 2 } else { 1 };
    let of_region = || (0..count).map(|_| Replica::new()).collect();
    [of_region(), of_region()]
}

/// Whether only one of a region's replicas acts, where there are two: in every other seed.
pub(crate) fn one_acts(seed: u64) -> bool {
    seed % 2 == 1
}

/// What happens to one of two replicas alone.
pub(crate) fn plan(random: &mut StdRng, begin: Time, end: Time, ttl: Time) -> Vec<Planned> {
    let mut faults = Vec::new();
    let mut at = begin;
    loop {
        at += random.random_range(ttl / 4..ttl * 3);
        if at >= end {
            return faults;
        }
        let (place, slot) = (REGIONS[random.random_range(0..2)], random.random_range(0..2));
        let fault = match random.random_bool(0.6) {
            true => Fault::FreezeReplica(place, slot),
            false => Fault::CrashReplica(place, slot),
        };
        let length = random.random_range(ttl / 8..ttl * 4);
        let until = (at + length).min(end);
        faults.push(Planned { at, until, fault });
    }
}

impl Region {
    /// Starts an agent; its name as a holder.
    fn start(&mut self, slot: usize, app: &App, timing: Timing, mutant: Option<Mutant>, now: Time) -> String {
        self.starts += 1;
        let holder = format!("{}-{}", self.place.name(), self.starts);
        let (me, peer) = (name(self.place), name(self.place.other()));
        let mut agent = Agent::new(app.clone(), me, peer, holder.clone(), timing, mutant);
        let replica = &mut self.replicas[slot];
        agent.reads_configuration(replica.disk);
        if self.one_acts {
            agent.asks_who_acts(self.clock.at(now));
        }
        (replica.agent, replica.start) = (Some(agent), self.starts);
        holder
    }

    /// The agents that live.
    pub(crate) fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.replicas.iter().filter_map(|replica| replica.agent.as_ref())
    }

    /// The replica that was started as this, if it lives.
    pub(crate) fn slot_of(&self, start: u64) -> Option<usize> {
        let is = |replica: &Replica| replica.agent.is_some() && replica.start == start;
        self.replicas.iter().position(is)
    }

    /// Whom something reaches that is said to the region's address.
    pub(crate) fn any_slot(&self, random: &mut StdRng) -> Option<usize> {
        let lives = |slot: &usize| self.replicas[*slot].agent.is_some();
        if self.replicas.len() == 1 {
            return Some(0).filter(lives);
        }
        let first = random.random_range(0..self.replicas.len());
        Some(first).filter(lives).or_else(|| Some(1 - first).filter(lives))
    }
}

impl World {
    /// One look of a replica.
    pub(crate) fn tick(&mut self, index: usize, slot: usize) {
        let now = self.now;
        let is_full = self.is(Fault::DiskFull(self.regions[index].place));
        let every = match slot {
            0 => self.random.random_range(2 * MS..60 * MS),
            _ => self.replica_random.random_range(2 * MS..60 * MS),
        };
        self.active.retain(|planned| planned.until > now);
        let region = &mut self.regions[index];
        let until = region.frozen_until.max(region.replicas[slot].frozen_until);
        if now < until {
            return self.at(until, Event::Tick(index, slot));
        }
        self.at(now + every, Event::Tick(index, slot));
        let region = &mut self.regions[index];
        if now < region.down_until.max(region.replicas[slot].down_until) {
            return;
        }
        if region.replicas[slot].agent.is_none() {
            let holder = region.start(slot, &self.app, self.timing, self.mutant, now);
            self.tell(format!("{holder} starts"));
        }
        if self.dies_before(index, slot) {
            return;
        }
        let region = &mut self.regions[index];
        let local = region.clock.at(now);
        let replica = &mut region.replicas[slot];
        let Some(agent) = &mut replica.agent else { return };
        if region.place == AUTHORITY {
            agent.reads(&self.app);
        }
        let length = region.volume.log.len();
        let all_confirmed = region.volume.confirmed == (region.volume.epoch, length);
        let mut here = Here {
            volume: &mut region.volume,
            process: region.process,
            all_confirmed,
            disk: &mut replica.disk,
            is_full,
            shown: &mut region.shown,
        };
        let sends = agent.tick(&mut here, local);
        let (mode, acts) = (agent.mode(), agent.acts(local));
        let (place, start) = (region.place, replica.start);
        let before = region.process;
        if acts {
            region.process = process(region.process, mode, now);
        }
        self.keep_pods(index, before);
        let after = self.regions[index].process;
        if after != before {
            self.tell(format!("the application in {} is {after:?}", place.name()));
        }
        for send in sends {
            self.sent(place, start, send);
        }
        if acts {
            self.mirror(index, slot, mode);
        }
    }

    pub(crate) fn sent(&mut self, from: Place, start: u64, send: Send) {
        match send {
            Send::Txn(call, txn)
                if self.is_aimed_at(from, start, call, &txn) || self.dies_at_sending(from, start, &txn) => {}
            Send::Txn(call, txn) => self.post(from, Place::Quorum, start, Message::Txn(call, txn)),
            Send::Follow(call, after) => self.post(from, Place::Quorum, start, Message::Ask(call, after)),
            Send::Report(report) => self.post(from, from.other(), start, Message::Report(report)),
            Send::Heartbeat(at) => self.post(from, Place::Witness, start, Message::Heartbeat(at)),
        }
    }
}
