//! One operation in regions in which nothing else goes wrong, whose agent, or whose whole region, dies at a chosen moment of a chosen step, or which
//! does the step once more. What is asked for, where and when follows from the script, the rest from the seed.

use std::collections::BTreeSet;

use leeward_core::{
    execute,
    maintenance::Maintenance,
    operation::{Kind, Request, Step, StepName},
};
use leeward_quorum::{Txn, key};
use rand::Rng;

use crate::{
    app::report,
    fault::{Fault, Place, Planned, Time},
    world::{BEGIN, Event, MS, SECOND, World, name},
};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// West is lost.
    Failover,
    /// A person asks for a switchover from west to east.
    Switchover,
    /// The same, and calls it off when the moment of the script has come.
    Cancel,
    /// A person drains west.
    Drain,
}

/// When, of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It is the agent's turn, and nothing is done yet.
    Before,
    /// The step's own commit is applied, and its agent has not heard of it.
    CommitUnheard,
    /// The step is done, and its record is not sent yet.
    BeforeJournal,
    /// The record is in the journal, and its agent has not heard of it.
    JournalUnheard,
    /// Nobody dies: the record is taken away at once, so that the step is done again.
    Again,
    /// Nobody dies: the record is taken away when the next step is done, so that both were done when it is done again.
    AgainAfterNext,
}

/// Who dies, and is started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dies {
    /// The agent alone.
    Agent,
    /// Every process of its region.
    Region,
}

/// The moment of a step at which something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The step.
    pub step: StepName,
    /// When.
    pub moment: Moment,
    /// Who dies, where somebody does.
    pub dies: Dies,
    /// Whether for longer than the lease lives.
    pub for_long: bool,
}

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    /// What is done.
    pub asked: Asked,
    /// Whether the application has a writer role.
    pub has_roles: bool,
    /// What happens to it, if anything.
    pub cut: Option<Cut>,
}

impl Moment {
    /// The moments of a step. A step that the core gets is not known here until somebody has said what it commits.
    pub fn of(step: StepName) -> &'static [Self] {
        match step {
            StepName::Quiesce | StepName::LastPoint | StepName::Promote | StepName::Start => &[
                Self::Before,
                Self::BeforeJournal,
                Self::JournalUnheard,
                Self::Again,
                Self::AgainAfterNext,
            ],
            StepName::Release | StepName::Take => &[
                Self::Before,
                Self::CommitUnheard,
                Self::BeforeJournal,
                Self::JournalUnheard,
                Self::Again,
                Self::AgainAfterNext,
            ],
        }
    }

    /// Whether somebody dies.
    pub fn kills(self) -> bool {
        !matches!(self, Self::Again | Self::AgainAfterNext)
    }
}

impl Script {
    /// Every moment of every step of what is done here, given the steps in the order in which the core does them.
    pub fn cuts(self, steps: &[StepName]) -> Vec<Self> {
        let mut cuts = Vec::new();
        for step in steps {
            for moment in Moment::of(*step) {
                if *moment == Moment::AgainAfterNext && steps.last() == Some(step) {
                    continue;
                }
                for (dies, for_long) in [
                    (Dies::Agent, false),
                    (Dies::Agent, true),
                    (Dies::Region, false),
                    (Dies::Region, true),
                ] {
                    let cut = Some(Cut {
                        step: *step,
                        moment: *moment,
                        dies,
                        for_long,
                    });
                    // Where nobody dies there is one of it.
                    if moment.kills() || (dies, for_long) == (Dies::Agent, false) {
                        cuts.push(Self { cut, ..self });
                    }
                }
            }
        }
        cuts
    }
}

/// A script that is being played.
#[derive(Debug)]
pub(crate) struct Playing {
    pub(crate) script: Script,
    /// Whether its moment has come.
    pub(crate) has_come: bool,
    /// The steps of the operation, as the core has planned them.
    pub(crate) steps: Vec<Step>,
}

impl Playing {
    pub(crate) fn new(script: Script) -> Self {
        Self {
            script,
            has_come: false,
            steps: Vec::new(),
        }
    }
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The steps of its operation, in order, as the core has planned them.
    pub steps: Vec<StepName>,
    /// Whether its moment has come.
    pub has_come: bool,
    /// The region that is active.
    pub active: String,
    /// Acknowledged writes that the active region does not have.
    pub lost: usize,
    /// What is waited for in the status before the application is protected, as any agent would say. Nothing is asked of two replicas in a
    /// region, as only one of them has the lease.
    pub waiting_for: Vec<String>,
}

impl World {
    /// How the script ended.
    pub(crate) fn ended(&self) -> Option<Ended> {
        let playing = self.playing.as_ref()?;
        let active = self.plan()?.active.clone();
        let region = self.regions.iter().find(|region| name(region.place) == active)?;
        let kept: BTreeSet<_> = region.volume.log.iter().copied().collect();
        let acks = self.clients.acks.iter();
        let lost = acks.filter(|ack| !kept.contains(&(ack.n, ack.epoch))).count();
        let waiting_for = self.regions.iter().flat_map(|region| {
            let agents = region.agents().filter(|_| region.replicas.len() == 1);
            let now = region.clock.at(self.now);
            agents.flat_map(move |agent| {
                let said = report(&region.volume, region.process, agent.lacks(self.plan()), "data");
                agent.waiting_for(said, now)
            })
        });
        Some(Ended {
            steps: playing.steps.iter().map(|step| step.name).collect(),
            has_come: playing.has_come,
            active: active.to_string(),
            lost,
            waiting_for: waiting_for.collect(),
        })
    }

    fn ttl_of(&self) -> Time {
        u64::try_from(self.timing.ttl.as_micros()).unwrap_or_default()
    }

    /// What is asked for, a while after everything has come to rest.
    pub(crate) fn plan_script(&mut self) {
        let Some(asked) = self.playing.as_ref().map(|playing| playing.script.asked) else {
            return;
        };
        let at = BEGIN + self.random.random_range(0..1_000) * MS;
        match asked {
            Asked::Failover => {
                let index = self.faults.len();
                let until = at + 3 * self.ttl_of();
                let fault = Fault::Crash(Place::West);
                self.faults.push(Planned { at, until, fault });
                self.at(at, Event::Fault(index));
            }
            Asked::Switchover | Asked::Cancel => self.at(at, Event::Ask(Box::new(switchover(false)))),
            Asked::Drain => {
                self.at(at, Event::Maintain(Place::West, Maintenance::Drain));
                // A region that is drained is no standby: nothing is protected before a person takes it back.
                let back = at + 12 * SECOND;
                self.at(back, Event::Maintain(Place::West, Maintenance::None));
            }
        }
    }

    /// The steps of the operation are those that it began with.
    pub(crate) fn note_steps(&mut self) {
        let running = self.plan.as_ref().and_then(|plan| plan.operation.as_ref());
        if let (Some(playing), Some(running)) = (&mut self.playing, running)
            && playing.steps.is_empty()
        {
            playing.steps = running.steps.clone();
        }
    }

    /// What is to happen at a moment of a step, if it has not happened yet.
    fn comes(&mut self, moment: Moment, is_it: impl FnOnce(StepName) -> bool) -> Option<Cut> {
        let playing = self.playing.as_mut().filter(|playing| !playing.has_come)?;
        let cut = playing
            .script
            .cut
            .filter(|cut| cut.moment == moment && is_it(cut.step))?;
        playing.has_come = true;
        self.tell(format!("{:?} of {:?} has come", cut.moment, cut.step));
        if self
            .playing
            .as_ref()
            .is_some_and(|playing| playing.script.asked == Asked::Cancel)
        {
            let after = self.random.random_range(0..100) * MS;
            self.at(self.now + after, Event::Ask(Box::new(switchover(true))));
        }
        Some(cut)
    }

    fn cut(&mut self, place: Place, start: u64, cut: Cut) {
        let lasts = match cut.for_long {
            true => 5 * self.ttl_of() / 2,
            false => self.ttl_of() / 10,
        };
        let until = self.now + lasts;
        let Some(region) = self.region(place) else { return };
        match cut.dies {
            Dies::Region => region.lose(until),
            Dies::Agent => {
                let slot = region.slot_of(start);
                if let Some(replica) = slot.and_then(|slot| region.replicas.get_mut(slot)) {
                    replica.dies(until);
                }
            }
        }
        self.tell(format!("{:?} of {} dies for {} ms", cut.dies, place.name(), lasts / MS));
    }

    /// A replica is about to look: whether it dies before that.
    pub(crate) fn dies_before(&mut self, index: usize, slot: usize) -> bool {
        if self.playing.is_none() {
            return false;
        }
        let replica = &self.regions[index].replicas[slot];
        let situation = replica.agent.as_ref().and_then(|agent| agent.situation());
        let me = name(self.regions[index].place);
        let turn = situation.and_then(|situation| {
            let (_, step) = execute::step(situation.plan(), &situation.journal, &me)?;
            Some(step.name)
        });
        let (place, start) = (self.regions[index].place, replica.start);
        let Some(cut) = turn.and_then(|turn| self.comes(Moment::Before, |step| step == turn)) else {
            return false;
        };
        self.cut(place, start, cut);
        true
    }

    /// An agent is about to send something: whether it dies before that.
    pub(crate) fn dies_at_sending(&mut self, place: Place, start: u64, txn: &Txn) -> bool {
        let cut = self.comes(Moment::BeforeJournal, |step| records(txn, step));
        cut.map(|cut| self.cut(place, start, cut)).is_some()
    }

    /// Something is about to be applied: with it goes the record of a step that is to be done again.
    pub(crate) fn done_again(&mut self, txn: Txn) -> Txn {
        let Some(playing) = &self.playing else { return txn };
        let steps: Vec<_> = playing.steps.iter().map(|step| step.name).collect();
        let next_of = |step: StepName| steps.iter().skip_while(|of| **of != step).nth(1).copied();
        let after = |step: StepName| next_of(step).is_some_and(|next| records(&txn, next));
        let Some(cut) = self.comes(Moment::AgainAfterNext, after) else {
            return txn;
        };
        self.without_record(cut.step, txn)
    }

    /// Something was applied: whoever sent it may die before it hears of that.
    pub(crate) fn dies_unheard(&mut self, place: Place, start: u64, txn: &Txn) {
        let commits = |step| match step {
            StepName::Release | StepName::Take => txn.writes.iter().all(|write| write.key.starts_with(key::ROLES)),
            StepName::Quiesce | StepName::LastPoint | StepName::Promote | StepName::Start => false,
        };
        let comes = self
            .comes(Moment::JournalUnheard, |step| records(txn, step))
            .or_else(|| {
                let running = self.plan.as_ref().and_then(|plan| plan.operation.as_ref());
                let running =
                    running.filter(|_| txn.compares.iter().any(|compare| compare.key.starts_with(key::PLANS)))?;
                let next = running.next_step(&self.journal(&running.id))?.name;
                self.comes(Moment::CommitUnheard, |step| step == next && commits(step))
            });
        if let Some(cut) = comes {
            self.cut(place, start, cut);
        } else if let Some(cut) = self.comes(Moment::Again, |step| records(txn, step)) {
            let without = self.without_record(cut.step, Txn::default());
            self.commit(&without);
        }
    }

    fn without_record(&self, step: StepName, txn: Txn) -> Txn {
        let operation = self.plan.as_ref().and_then(|plan| plan.operation.as_ref());
        match operation {
            Some(operation) => txn.delete(key::journal(&self.app.key, &operation.id, step)),
            None => txn,
        }
    }
}

/// Whether a transaction says in the journal that a step is done.
fn records(txn: &Txn, step: StepName) -> bool {
    let end = format!("/{step:?}");
    let mut writes = txn.writes.iter();
    writes.any(|write| write.key.starts_with(key::JOURNALS) && write.key.ends_with(&end))
}

fn switchover(cancel: bool) -> Request {
    Request {
        id: "asked-1".into(),
        kind: Kind::Switchover,
        to: name(Place::East),
        asked_ms: 0,
        accept_loss_ms: None,
        cancel,
        refused: None,
    }
}
