//! Time, the network, the processes, and the order of events. One event happens at one instant; two at the same instant in the
//! order in which they were made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leeward_core::{
    app::App,
    in_sync::least_rpo,
    lease::{Delays, Role, Timing},
    maintenance::Maintenance,
    name::ClusterName,
    operation::{Journal, Request},
    plan::Plan,
};
use leeward_quorum::view::View;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::aimed;
use crate::app::{Process, Volume};
use crate::client::Clients;
use crate::clock::Clock;
use crate::disk;
use crate::fault::{self, Fault, Place, Planned, Time};
use crate::invariant::{self, Violation};
use crate::mutant::Mutant;
use crate::network::Message;
use crate::pause::Paused;
use crate::pod::{self, Pod, Word};
use crate::protected;
use crate::replica::{self, Replica};
use crate::script::{Ended, Playing, Script};

pub(crate) const MS: Time = 1_000;
pub(crate) const SECOND: Time = 1_000 * MS;
/// Nothing goes wrong before.
pub(crate) const BEGIN: Time = 5 * SECOND;
/// Nothing goes wrong for this long at the end.
pub(crate) const CALM: Time = 16 * SECOND;
/// Time between points.
pub(crate) const INTERVAL: Time = 500 * MS;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// What everything follows from.
    pub seed: u64,
    /// What the core is cheated of.
    pub mutant: Option<Mutant>,
    /// How long things go wrong, in seconds.
    pub seconds: u64,
    /// One operation that is done and cut short, in place of everything else that goes wrong.
    pub script: Option<Script>,
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
    /// Times that the application was paused.
    pub pauses: u64,
    /// Operations whose target was lost, or whose source was lost, before they ended.
    pub failed: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Times that the role changed its owner.
    pub moves: u64,
    /// What became of the script.
    pub ended: Option<Ended>,
}

pub(crate) struct Region {
    pub(crate) place: Place,
    pub(crate) clock: Clock,
    pub(crate) replicas: Vec<Replica>,
    /// Whether only one of them acts, and whom the region's resource names as that one.
    pub(crate) one_acts: bool,
    pub(crate) shown: Option<String>,
    pub(crate) process: Process,
    pub(crate) volume: Volume,
    /// Agents that were started here.
    pub(crate) starts: u64,
    /// Until when every process stands still.
    pub(crate) frozen_until: Time,
    /// Until when there is no process at all.
    pub(crate) down_until: Time,
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
    /// A replica of a region looks.
    Tick(usize, usize),
    Write(usize),
    Fault(usize),
    /// A person asks for something.
    Ask(Box<Request>),
    /// A person pauses the application, or resumes it.
    Pause(bool),
    /// A person says something of a region.
    Maintain(Place, Maintenance),
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
    pub(crate) replica_random: StdRng,
    pub(crate) aim_random: StdRng,
    pub(crate) alone_random: StdRng,
    pub(crate) beside_random: StdRng,
    pub(crate) holders: aimed::beside::Holders,
    /// Changes of the in-sync set that come late, by who sent them and which question it is.
    pub(crate) late: BTreeSet<(u64, u64)>,
    pub(crate) paused: Paused,
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
    pub(crate) playing: Option<Playing>,
    /// From when on nothing goes wrong any more.
    pub(crate) calm_from: Time,
    pub(crate) history: Vec<String>,
}

impl Outcome {
    /// Events, acknowledged writes, changes of the writer, switchovers that were called off, operations that failed, and pauses.
    pub fn counts(&self) -> [u64; 6] {
        [
            self.events,
            self.acknowledged,
            self.moves,
            self.cancels,
            self.failed,
            self.pauses,
        ]
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
        pauses: world.paused.times,
        failed: world.failed.len() as u64,
        ended: world.ended(),
        history: world.history,
    }
}

pub(crate) fn name(place: Place) -> ClusterName {
    place.name().into()
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
        let mut replica_random = replica::random(run.seed);
        let replicas = replica::replicas(&mut replica_random);
        let are_two = replicas[0].len() > 1;
        let one_acts = are_two && replica::one_acts(run.seed);
        let mut replicas = replicas.into_iter();
        let mut region = |place| Region {
            place,
            clock: Clock::random(&mut random),
            replicas: replicas.next().unwrap_or_default(),
            one_acts,
            shown: None,
            process: Process::Stopped,
            volume: Volume::default(),
            starts: 0,
            frozen_until: 0,
            down_until: 0,
            pods: Vec::new(),
            pods_made: 0,
        };
        let regions = [region(Place::West), region(Place::East)];
        let calm_from = match run.script {
            None => BEGIN + run.seconds * SECOND,
            Some(_) => BEGIN,
        };
        let mut faults = fault::plan(&mut random, BEGIN, calm_from, ttl * MS);
        faults.extend(disk::plan(run.seed, BEGIN, calm_from));
        if are_two {
            faults.extend(replica::plan(&mut replica_random, BEGIN, calm_from, ttl * MS));
        }
        let mut world = Self {
            now: 0,
            regions,
            quorum: crate::quorum::Quorum::default(),
            clients: Clients::default(),
            memory: invariant::Memory::default(),
            failed_over: BTreeSet::new(),
            app: protected::app(run.seed, rpo, run.script.is_none_or(|script| script.has_roles)),
            timing,
            mutant: run.mutant,
            random,
            gate_random: pod::random(run.seed),
            cancel_random: StdRng::seed_from_u64(run.seed ^ 0x6863_616d),
            loss_random: StdRng::seed_from_u64(run.seed ^ 0x6c6f_7373),
            replica_random,
            aim_random: aimed::random(run.seed),
            alone_random: aimed::alone_random(run.seed),
            beside_random: aimed::beside::random(run.seed),
            holders: aimed::beside::Holders::default(),
            late: BTreeSet::new(),
            paused: Paused::default(),
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
            playing: run.script.map(Playing::new),
            calm_from,
            history: Vec::new(),
        };
        world.tell(format!(
            "a lease lives for {ttl} ms; the rpo is {} ms; {:?} when the standby is away",
            rpo.as_millis(),
            world.app.when_standby_away
        ));
        for index in 0..2 {
            for slot in 0..world.regions[index].replicas.len() {
                world.at(0, Event::Tick(index, slot));
            }
            world.at(SECOND, Event::Write(index));
        }
        for index in 0..world.faults.len() {
            world.at(world.faults[index].at, Event::Fault(index));
        }
        world.plan_pauses(run.seed, BEGIN, world.calm_from);
        world.plan_maintenance(run.seed, BEGIN, world.calm_from);
        world.plan_script();
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
                let what = if request.cancel {
                    "is called off"
                } else {
                    "is asked for"
                };
                self.tell(format!("{} {what}", request.id));
                self.ask(&request);
                self.perhaps_slow();
            }
            Event::Pause(paused) => self.pause(paused),
            Event::Maintain(place, said) => self.maintain(place, said),
            Event::Tick(index, slot) => self.tick(index, slot),
            Event::Write(index) => self.write(index),
            Event::Pod(index, uid) => self.pod(index, uid),
            Event::Word(index, uid, word) => self.heard_word(index, uid, *word),
            Event::Deliver(from, to, start, message) => self.deliver(from, to, start, *message),
        }
    }
}
