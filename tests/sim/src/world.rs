//! Time, the network, the processes, and the order of events. One event happens at one instant; two at the same instant in the
//! order in which they were made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leeward_core::{
    app::{App, Model, Placement, WriterRole},
    execute::Mode,
    in_sync::{WhenStandbyAway, least_rpo},
    lease::{Delays, Moment, Role, Timing},
    name::{AppKey, ClusterName},
    operation::{self, Journal, Request},
    plan::Plan,
};
use leeward_quorum::{Outcome as Answer, Txn, key, view::View};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::agent::{Agent, Here, Send};
use crate::app::{Process, Volume};
use crate::client::Clients;
use crate::fault::{self, Fault, Place, Planned, Time};
use crate::invariant::{self, Violation};
use crate::mutant::Mutant;
use crate::network::Message;
use crate::pod::{self, Pod, Word};

pub(crate) const MS: Time = 1_000;
pub(crate) const SECOND: Time = 1_000 * MS;
/// Nothing goes wrong before.
pub(crate) const BEGIN: Time = 5 * SECOND;
/// Nothing goes wrong for this long at the end.
pub(crate) const CALM: Time = 16 * SECOND;
/// Time between points.
const INTERVAL: Time = 500 * MS;
/// How often each client writes.
const WRITES: Time = 100 * MS;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// What everything follows from.
    pub seed: u64,
    /// What the core is cheated of.
    pub mutant: Option<Mutant>,
    /// How long things go wrong, in seconds.
    pub seconds: u64,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// What happened: faults, decisions, processes that started and ended.
    pub history: Vec<String>,
    /// Events that happened.
    pub events: u64,
    /// Switchovers that were called off.
    pub cancels: u64,
    /// Operations whose target was lost, or whose source was lost, before they ended.
    pub failed: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Times that the role changed its owner.
    pub moves: u64,
}

/// A monotonic clock that runs within the bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    offset: Time,
    /// Millionths by which it runs fast (or slow).
    rate: i64,
}

impl Clock {
    pub(crate) fn random(random: &mut StdRng) -> Self {
        // Often at the ends of what is allowed: one hundredth, as `drift` is of `ttl`.
        let rate = match random.random_range(0..4) {
            0 => 9_900,
            1 => -9_900,
            _ => random.random_range(-9_900..=9_900),
        };
        Self {
            offset: random.random_range(0..1_000) * SECOND,
            rate,
        }
    }

    pub(crate) fn at(self, now: Time) -> Moment {
        let off = i64::try_from(now).unwrap_or(i64::MAX) / 1_000 * self.rate / 1_000;
        Moment(Duration::from_micros((self.offset + now).saturating_add_signed(off)))
    }
}

pub(crate) struct Region {
    pub(crate) place: Place,
    pub(crate) clock: Clock,
    pub(crate) agent: Option<Agent>,
    pub(crate) process: Process,
    pub(crate) volume: Volume,
    /// Agents that were started here.
    pub(crate) starts: u64,
    /// Until when every process stands still.
    pub(crate) frozen_until: Time,
    /// Until when there is no process at all, and until when no agent.
    pub(crate) down_until: Time,
    pub(crate) agent_down_until: Time,
    pub(crate) next_point: Time,
    pub(crate) pods: Vec<Pod>,
    pub(crate) pods_made: u64,
}

impl Region {
    pub(crate) fn is_frozen(&self, now: Time) -> bool {
        now < self.frozen_until
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Tick(usize),
    Write(usize),
    Fault(usize),
    /// A person asks for something.
    Ask(Box<Request>),
    /// A pod's gate looks.
    Pod(usize, String),
    /// Something between a pod's gate and its agent.
    Word(usize, String, Box<Word>),
    /// To an agent only if it is still the one that was started as this.
    Deliver(Place, Place, u64, Box<Message>),
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) regions: [Region; 2],
    pub(crate) quorum: crate::quorum::Quorum,
    pub(crate) clients: Clients,
    pub(crate) memory: invariant::Memory,
    /// Epochs that ended without their writer.
    pub(crate) failed_over: BTreeSet<u64>,
    pub(crate) app: App,
    pub(crate) timing: Timing,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) random: StdRng,
    pub(crate) gate_random: StdRng,
    pub(crate) cancel_random: StdRng,
    pub(crate) loss_random: StdRng,
    /// The region that never comes back.
    pub(crate) lost_for_good: Option<Place>,
    /// What is to come, by its time and by when it was made.
    pub(crate) events: BTreeMap<(Time, u64), Event>,
    pub(crate) made: u64,
    pub(crate) faults: Vec<Planned>,
    pub(crate) active: Vec<Planned>,
    /// Who waits at the quorum for a change: who, its start, the question, the revision it has.
    pub(crate) waiting: Vec<(Place, u64, u64, u64)>,
    pub(crate) witness: BTreeMap<ClusterName, Time>,
    pub(crate) view: View,
    pub(crate) role: Option<Role>,
    pub(crate) plan: Option<Plan>,
    pub(crate) moves: u64,
    pub(crate) requests: u64,
    /// Operations that were cancelled, and that failed because their target was lost.
    pub(crate) cancelled: BTreeSet<String>,
    pub(crate) failed: BTreeSet<String>,
    /// From when on nothing goes wrong any more.
    pub(crate) calm_from: Time,
    pub(crate) history: Vec<String>,
}

impl Outcome {
    /// Events, acknowledged writes, changes of the writer, switchovers that were called off and operations that failed.
    pub fn counts(&self) -> [u64; 5] {
        [self.events, self.acknowledged, self.moves, self.cancels, self.failed]
    }
}

/// Plays a run to its end, or to the first violation.
pub fn run(run: &Run) -> Outcome {
    let mut world = World::new(run);
    let end = BEGIN + run.seconds * SECOND + CALM;
    let mut count = 0;
    let violation = loop {
        let Some(((at, _), event)) = world.events.pop_first() else {
            break None;
        };
        if at > end {
            world.now = end;
            break invariant::at_the_end(&world).err();
        }
        world.now = at;
        count += 1;
        world.happens(event);
        if let Err(violation) = invariant::at_every_event(&mut world) {
            break Some(violation);
        }
    };
    Outcome {
        violation,
        events: count,
        acknowledged: world.clients.acks.len() as u64,
        moves: world.moves,
        cancels: world.cancelled.len() as u64,
        failed: world.failed.len() as u64,
        history: world.history,
    }
}

pub(crate) fn name(place: Place) -> ClusterName {
    place.name().into()
}

fn the_app(rpo: Duration) -> App {
    let placement = |cluster: Place, priority| Placement {
        cluster: name(cluster),
        priority,
        weight: 100,
        standby_replicas: 0,
        overrides: vec![],
    };
    App {
        key: AppKey::new("shop", "web"),
        authority: name(Place::West),
        observed: 1,
        model: Model::ActivePassive,
        placements: vec![placement(Place::West, 1), placement(Place::East, 2)],
        rpo,
        when_standby_away: WhenStandbyAway::Serve,
        rto: Duration::from_secs(60),
        automatic: true,
        paused: false,
        roles: vec![WriterRole {
            name: "data".into(),
            claims: vec!["data".into()],
            interval: Duration::from_micros(INTERVAL),
        }],
        traffic: None,
        selector: serde_json::Value::Null,
        resource: serde_json::Value::Null,
    }
}

impl World {
    fn new(run: &Run) -> Self {
        let mut random = StdRng::seed_from_u64(run.seed);
        let ttl = random.random_range(1_000..4_000);
        // The shortest is above the least that is allowed.
        let timing = Timing::new(Duration::from_millis(ttl), Delays::WITHOUT_ELECTIONS).unwrap_or(Timing {
            ttl: Duration::from_millis(ttl),
            stop: Duration::from_millis(ttl / 10),
            drift: Duration::from_millis(ttl / 100),
        });
        // From the smallest that is allowed, when nothing may go wrong, to one with room.
        let rpo =
            least_rpo(Duration::from_micros(INTERVAL), &timing) + Duration::from_millis(random.random_range(0..2_000));
        let mut region = |place| Region {
            place,
            clock: Clock::random(&mut random),
            agent: None,
            process: Process::Stopped,
            volume: Volume::default(),
            starts: 0,
            frozen_until: 0,
            down_until: 0,
            agent_down_until: 0,
            next_point: 0,
            pods: Vec::new(),
            pods_made: 0,
        };
        let regions = [region(Place::West), region(Place::East)];
        let faults = fault::plan(&mut random, BEGIN, BEGIN + run.seconds * SECOND, ttl * MS);
        let mut world = Self {
            now: 0,
            regions,
            quorum: crate::quorum::Quorum::default(),
            clients: Clients::default(),
            memory: invariant::Memory::default(),
            failed_over: BTreeSet::new(),
            app: the_app(rpo),
            timing,
            mutant: run.mutant,
            random,
            gate_random: pod::random(run.seed),
            cancel_random: StdRng::seed_from_u64(run.seed ^ 0x6863_616d),
            loss_random: StdRng::seed_from_u64(run.seed ^ 0x6c6f_7373),
            lost_for_good: None,
            events: BTreeMap::new(),
            made: 0,
            faults,
            active: Vec::new(),
            waiting: Vec::new(),
            witness: BTreeMap::new(),
            view: View::default(),
            role: None,
            plan: None,
            moves: 0,
            requests: 0,
            cancelled: BTreeSet::new(),
            failed: BTreeSet::new(),
            calm_from: BEGIN + run.seconds * SECOND,
            history: Vec::new(),
        };
        world.tell(format!("a lease lives for {ttl} ms; the rpo is {} ms", rpo.as_millis()));
        for index in 0..2 {
            world.at(0, Event::Tick(index));
            world.at(SECOND, Event::Write(index));
        }
        for index in 0..world.faults.len() {
            world.at(world.faults[index].at, Event::Fault(index));
        }
        world
    }

    /// The role as it stands in the quorum.
    pub(crate) fn role(&self) -> Option<&Role> {
        self.role.as_ref()
    }

    /// The plan as it stands in the quorum.
    pub(crate) fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    pub(crate) fn journal(&self, operation: &str) -> Journal {
        self.view.journal(&self.app.key, operation)
    }

    pub(crate) fn tell(&mut self, what: String) {
        self.history.push(format!("{:>11.6} s  {what}", self.now as f64 / 1e6));
    }

    pub(crate) fn at(&mut self, time: Time, event: Event) {
        self.made += 1;
        self.events.insert((time, self.made), event);
    }

    pub(crate) fn region(&mut self, place: Place) -> Option<&mut Region> {
        self.regions.iter_mut().find(|region| region.place == place)
    }

    pub(crate) fn is(&self, fault: Fault) -> bool {
        self.active.iter().any(|planned| planned.fault == fault)
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Fault(index) => self.goes_wrong(index),
            Event::Ask(request) => {
                self.tell(format!("{} is called off", request.id));
                self.ask(&request);
                self.perhaps_slow();
            }
            Event::Tick(index) => self.tick(index),
            Event::Write(index) => self.write(index),
            Event::Pod(index, uid) => self.pod(index, uid),
            Event::Word(index, uid, word) => self.heard_word(index, uid, *word),
            Event::Deliver(from, to, start, message) => self.deliver(from, to, start, *message),
        }
    }

    fn tick(&mut self, index: usize) {
        let now = self.now;
        let every = self.random.random_range(2 * MS..60 * MS);
        self.active.retain(|planned| planned.until > now);
        let region = &mut self.regions[index];
        if region.is_frozen(now) {
            let until = region.frozen_until;
            return self.at(until, Event::Tick(index));
        }
        self.at(now + every, Event::Tick(index));
        let region = &mut self.regions[index];
        if now < region.down_until.max(region.agent_down_until) {
            return;
        }
        if region.agent.is_none() {
            region.starts += 1;
            let holder = format!("{}-{}", region.place.name(), region.starts);
            region.agent = Some(Agent::new(
                self.app.clone(),
                name(region.place),
                name(region.place.other()),
                holder.clone(),
                self.timing,
                self.mutant,
            ));
            self.tell(format!("{holder} starts"));
        }
        let region = &mut self.regions[index];
        let local = region.clock.at(now);
        let Some(agent) = &mut region.agent else { return };
        let length = region.volume.log.len();
        let all_confirmed = region.volume.confirmed == (region.volume.epoch, length);
        let mut here = Here {
            volume: &mut region.volume,
            process: region.process,
            all_confirmed,
        };
        let sends = agent.tick(&mut here, local);
        let mode = agent.mode();
        let (place, start) = (region.place, region.starts);
        let before = region.process;
        region.process = process(region.process, mode, now);
        self.keep_pods(index, before);
        let after = self.regions[index].process;
        if after != before {
            self.tell(format!("the application in {} is {after:?}", place.name()));
        }
        for send in sends {
            self.sent(place, start, send);
        }
        self.mirror(index, mode);
    }

    pub(crate) fn sent(&mut self, from: Place, start: u64, send: Send) {
        match send {
            Send::Txn(call, txn) => self.post(from, Place::Quorum, start, Message::Txn(call, txn)),
            Send::Follow(call, after) => self.post(from, Place::Quorum, start, Message::Ask(call, after)),
            Send::Report(report) => self.post(from, from.other(), start, Message::Report(report)),
            Send::Heartbeat(at) => self.post(from, Place::Witness, start, Message::Heartbeat(at)),
        }
    }

    /// The active region sends points, also the last one of a switchover when the application has stopped.
    fn mirror(&mut self, index: usize, mode: Mode) {
        let now = self.now;
        let stalled = self.is(Fault::MirrorStalls(self.regions[index].place));
        let role = self.regions[index]
            .agent
            .as_ref()
            .and_then(|agent| agent.known_role().cloned());
        let region = &mut self.regions[index];
        let Some(role) = role.filter(|role| role.owner.as_str() == region.place.name()) else {
            return;
        };
        let epoch = role.epoch.0;
        // Not before the newest point became the volume. Who was given the role back has its volume, also where it never served at that epoch.
        let its_own = region.volume.point.is_none() && region.agent.as_ref().is_some_and(Agent::is_promoted);
        let promoted = region.volume.epoch >= epoch || its_own || matches!(mode, Mode::Serve { .. });
        if !promoted || region.volume.epoch > epoch || now < region.next_point || stalled {
            return;
        }
        region.next_point = now + INTERVAL;
        region.volume.begin(epoch);
        let point = region.volume.take_point(epoch);
        let local = region.clock.at(now);
        if let Some(agent) = &mut region.agent {
            agent.takes(epoch, point.sequence, local);
        }
        let (place, start) = (region.place, region.starts);
        self.post(place, place.other(), start, Message::Point(point));
    }

    /// A client's write, to the region that it is pinned to.
    fn write(&mut self, index: usize) {
        self.at(self.now + WRITES, Event::Write(index));
        let now = self.now;
        let region = &mut self.regions[index];
        if region.is_frozen(now) {
            return;
        }
        let place = region.place;
        // It goes around the edge: only the gates stand in its way.
        let open: Vec<u64> = region.pods.iter().filter_map(|pod| pod.answers(now)).collect();
        for epoch in open {
            let n = self.clients.number();
            self.regions[index].volume.log.push((n, epoch));
            self.clients.acknowledged(n, epoch, place, now);
        }
    }

    pub(crate) fn commit(&mut self, txn: &Txn) -> Answer {
        let before = self.role.clone();
        let answer = self.quorum.txn(txn);
        if answer.applied && !txn.writes.is_empty() {
            let changes = self.quorum.changes(self.view.revision());
            self.view.merge(changes.entries);
            self.view.advance(changes.revision);
            if txn.writes.iter().any(|write| write.key.starts_with(key::ROLES)) {
                let mut roles = self.view.roles(&self.app.key).into_values();
                self.role = roles.next().map(|role| role.value);
            }
            if txn.writes.iter().any(|write| write.key.starts_with(key::PLANS)) {
                self.plan = self.view.get(&key::plan(&self.app.key)).map(|plan| plan.value);
                self.note_end();
            }
            if let (Some(before), Some(after)) = (before, self.role.clone())
                && before != after
            {
                let in_sync: Vec<&str> = after.in_sync.iter().map(ClusterName::as_str).collect();
                self.tell(format!(
                    "{} {:?} at epoch {}, in sync: {}",
                    after.owner,
                    after.hold,
                    after.epoch,
                    in_sync.join(" ")
                ));
                if before.owner != after.owner {
                    self.moves += 1;
                    if before.hold != leeward_core::lease::Hold::Released {
                        self.failed_over.insert(before.epoch.0);
                    }
                }
            }
            for (place, start, call, after) in std::mem::take(&mut self.waiting) {
                let changes = self.quorum.changes(after);
                self.post(Place::Quorum, place, start, Message::Changes(call, changes));
            }
        }
        answer
    }
}

impl World {
    fn note_end(&mut self) {
        let Some(finished) = self.plan.as_ref().and_then(|plan| plan.finished.as_ref()) else {
            return;
        };
        let id = finished.operation.id.clone();
        match finished.outcome.clone() {
            operation::Outcome::Failed(why) => {
                if self.failed.insert(id.clone()) {
                    self.tell(format!("{id} has failed: {why}"));
                }
            }
            operation::Outcome::Cancelled => {
                if self.cancelled.insert(id.clone()) {
                    self.tell(format!("{id} is cancelled"));
                }
            }
            operation::Outcome::Succeeded => {}
        }
    }
}

/// The process as its mode wants it: started in a moment, stopped at once.
fn process(process: Process, mode: Mode, now: Time) -> Process {
    match (process, mode) {
        (Process::Stopped, Mode::Serve { epoch: Some(epoch) }) => Process::Starting {
            epoch: epoch.0,
            until: now + 200 * MS,
        },
        (Process::Starting { epoch, .. } | Process::Running { epoch }, Mode::Serve { epoch: Some(wanted) })
            if epoch != wanted.0 =>
        {
            Process::Stopped
        }
        (Process::Starting { epoch, until }, Mode::Serve { .. }) if now >= until => Process::Running { epoch },
        (process, Mode::Serve { .. } | Mode::Unmanaged) => process,
        (_, Mode::Standby) => Process::Stopped,
    }
}
