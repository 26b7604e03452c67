//! Two replicas beside one quorum, each with a clock, faults and answers of its own: what holds of both.

use proptest::prelude::*;

use super::*;
use crate::holder::{Holder, Offer, Renewal};

/// All that happens does at whole ones, ms.
const STEP: u64 = 100;
/// Steps between two renewals, and steps of a lease.
const RENEWAL: u64 = T / 6 / STEP;
const LEASE: u64 = T / STEP;
/// The longest way of an answer, steps.
const DELAY: u64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What is sent to the quorum does not arrive, and nothing is heard from there.
    Cut,
    /// What is sent arrives, and nothing is heard.
    Deaf,
    /// The process stands still.
    Still,
    /// The process is dead, and another one in its place afterwards.
    Dead,
    /// A takeover seals the lease as this begins.
    Sealed,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    begins: u64,
    ends: u64,
    whose: usize,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Answer {
    Read(Option<(Lease, u64)>),
    Wrote(Offer, Option<u64>),
}

struct Process {
    name: String,
    /// How much later it is on its clock.
    offset: u64,
    holder: Holder,
    replica: Replica,
    sight: Option<Sight>,
    next: u64,
    /// When the answer comes that it waits for, and when the question was sent.
    waits: Option<(u64, u64, Answer)>,
}

impl Process {
    fn new(name: String, offset: u64, step: u64) -> Self {
        let mut process = Self {
            offset,
            holder: Holder::new("west".into(), name.clone()),
            replica: Replica::new(name.clone(), true, timing(), at(0)),
            name,
            sight: None,
            next: step,
            waits: None,
        };
        process.replica = Replica::new(process.name.clone(), true, timing(), process.local(step));
        process
    }

    fn local(&self, step: u64) -> Moment {
        at(step * STEP + self.offset)
    }

    fn sees(&mut self, found: Option<(Lease, u64)>, step: u64) {
        let Some((lease, revision)) = found else { return };
        if self.sight.as_ref().is_none_or(|sight| revision >= sight.revision) {
            let now = self.local(step);
            self.sight = Some(Sight::observe(self.sight.take(), lease, revision, now));
            self.replica.hear(Event::Known(self.sight.as_ref()), now);
        }
    }

    fn acts(&self, step: u64) -> bool {
        self.replica.acts(self.local(step))
    }

    fn knows_it_holds(&self) -> bool {
        self.sight.as_ref().is_some_and(|sight| sight.lease.holder == self.name)
    }
}

struct World {
    lease: Option<(Lease, u64)>,
    /// When it was written last.
    written: u64,
    /// Whom the cluster's resource names.
    shown: Option<String>,
    processes: [Option<Process>; 2],
    begun: u64,
    faults: Vec<Fault>,
    delays: Vec<u64>,
}

impl World {
    fn new(faults: Vec<Fault>, delays: Vec<u64>) -> Self {
        Self {
            lease: None,
            written: 0,
            shown: None,
            processes: [None, None],
            begun: 0,
            faults,
            delays,
        }
    }

    fn is(&self, step: u64, whose: usize, kinds: &[Kind]) -> bool {
        let mut faults = self.faults.iter();
        faults.any(|fault| {
            fault.whose == whose && (fault.begins..fault.ends).contains(&step) && kinds.contains(&fault.kind)
        })
    }

    fn writes(&mut self, offer: &Offer, step: u64) -> Option<u64> {
        let revision = self.lease.as_ref().map_or(0, |(_, revision)| *revision);
        (revision == offer.replaces).then(|| {
            self.lease = Some((offer.lease.clone(), revision + 1));
            self.written = step;
            revision + 1
        })
    }

    fn step(&mut self, step: u64) {
        if self
            .faults
            .iter()
            .any(|fault| fault.kind == Kind::Sealed && fault.begins == step)
            && let Some((lease, revision)) = &mut self.lease
        {
            (lease.sealed, *revision, self.written) = (true, *revision + 1, step);
        }
        for whose in 0..2 {
            if self.is(step, whose, &[Kind::Dead]) {
                self.processes[whose] = None;
                continue;
            }
            let mut process = self.processes[whose].take().unwrap_or_else(|| {
                self.begun += 1;
                Process::new(format!("{}-{whose}", self.begun), 7000 * whose as u64, step)
            });
            if !self.is(step, whose, &[Kind::Still]) {
                self.plays(&mut process, whose, step);
            }
            self.processes[whose] = Some(process);
        }
    }

    fn plays(&mut self, process: &mut Process, whose: usize, step: u64) {
        let arrives = !self.is(step, whose, &[Kind::Cut]);
        let hears = !self.is(step, whose, &[Kind::Cut, Kind::Deaf]);
        let delay = self.delays[step as usize % self.delays.len()];
        if hears {
            process.sees(self.lease.clone(), step);
        }
        if let Some((_, sent, answer)) = process.waits.take_if(|(comes, ..)| *comes <= step)
            && hears
        {
            self.answered(process, sent, answer, arrives, step);
        }
        if process.next <= step {
            process.next = step + RENEWAL;
            let answer = match process.holder.renewal() {
                Renewal::Read => arrives.then(|| Answer::Read(self.lease.clone())),
                Renewal::Write(offer) => arrives.then(|| Answer::Wrote(offer.clone(), self.writes(&offer, step))),
            };
            process.waits = answer.map(|answer| (step + delay, step, answer));
        }
        let now = process.local(step);
        process.replica.hear(Event::Shown(self.shown.as_deref()), now);
        if process.acts(step) {
            self.shown = Some(process.name.clone());
            process.replica.hear(Event::Shown(Some(&process.name)), now);
        }
    }

    fn answered(&mut self, process: &mut Process, sent: u64, answer: Answer, arrives: bool, step: u64) {
        let (now, asked) = (process.local(step), process.local(sent));
        match answer {
            Answer::Read(found) => {
                if let Some((lease, revision)) = &found {
                    let (revision, sent) = (*revision, asked);
                    process.replica.hear(Event::Read { lease, revision, sent }, now);
                }
                process.sees(found.clone(), step);
                let found = found.as_ref().map(|(lease, revision)| (lease, *revision));
                let offer = process.holder.begin(found, process.sight.as_ref(), &timing(), asked);
                if let Some(offer) = offer.filter(|_| arrives) {
                    let revision = self.writes(&offer, step);
                    process.waits = Some((step, sent, Answer::Wrote(offer, revision)));
                }
            }
            Answer::Wrote(offer, revision) => {
                process.holder.renewed(offer.clone(), asked, revision, [], &timing());
                if let Some(revision) = revision {
                    process.replica.hear(Event::Renewed(asked), now);
                    process.sees(Some((offer.lease, revision)), step);
                }
            }
        }
    }

    /// The replicas that run now.
    fn running(&self, step: u64) -> impl Iterator<Item = &Process> {
        let runs = move |whose: &usize| !self.is(step, *whose, &[Kind::Still]);
        (0..2).filter(runs).filter_map(|whose| self.processes[whose].as_ref())
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    let kinds = [Kind::Cut, Kind::Deaf, Kind::Still, Kind::Dead, Kind::Sealed];
    (0..300u64, 1..150u64, 0..2usize, prop::sample::select(kinds.to_vec())).prop_map(|(begins, length, whose, kind)| {
        Fault {
            begins,
            ends: begins + length,
            whose,
            kind,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Of those who know the newest lease two act only while it was not renewed for a third of it; and nobody begins to act, who hears nothing.
    #[test]
    fn two_act_only_by_a_lease_that_is_not_renewed(
        faults in prop::collection::vec(fault(), 0..10),
        delays in prop::collection::vec(0..=DELAY, 1..9),
    ) {
        let mut world = World::new(faults, delays);
        for step in 0..400 {
            world.step(step);
            let revision = world.lease.as_ref().map(|(_, revision)| *revision);
            let acting = world.running(step).filter(|process| process.acts(step));
            let knowing = acting.filter(|process| process.sight.as_ref().map(|sight| sight.revision) == revision);
            let together = knowing.count() == 2;
            prop_assert!(!together || step - world.written >= LEASE / 3, "both act at {step}, {} after a renewal", step - world.written);
            for process in world.running(step).filter(|_| step % 8 == 0) {
                let acts = (0..90).map(|later| process.acts(step + later));
                prop_assert!(acts.is_sorted_by(|before, after| before >= after), "{} begins by itself after {step}", process.name);
            }
        }
    }

    /// Whatever was before: when one dies or is cut off, the other one acts and has the lease in time, and who is cut off stops.
    #[test]
    fn the_other_one_takes_over_in_time_and_who_is_cut_off_stops(
        mut faults in prop::collection::vec(fault(), 0..10),
        delays in prop::collection::vec(0..=DELAY, 1..9),
        lost in 0..2usize,
        kind in prop::sample::select(vec![Kind::Cut, Kind::Dead]),
        from in 100..300u64,
    ) {
        faults.retain(|fault| fault.begins < from);
        faults.iter_mut().for_each(|fault| fault.ends = fault.ends.min(from));
        faults.push(Fault { begins: from, ends: u64::MAX, whose: lost, kind });
        let mut world = World::new(faults, delays);
        let sees = from + 2;
        let steps_in = sees + LEASE * 2 / 3 + RENEWAL + DELAY + 1;
        let holds = sees + LEASE + 1 + RENEWAL + 2 * DELAY + 1;
        for step in 0..=holds + LEASE {
            world.step(step);
            let left = world.processes[1 - lost].as_ref();
            let who_lost = world.processes[lost].as_ref();
            if step >= steps_in {
                prop_assert!(left.is_some_and(|left| left.acts(step)), "it does not act at {step}, {} after", step - from);
            }
            if step >= holds {
                prop_assert!(left.is_some_and(Process::knows_it_holds), "it does not hold at {step}, {} after", step - from);
                prop_assert!(!who_lost.is_some_and(|lost| lost.acts(step)), "both act at {step}, {} after", step - from);
            }
        }
    }

    /// When all is well again one acts, and it is the one that has the lease.
    #[test]
    fn in_the_end_the_one_with_the_lease_acts_alone(
        faults in prop::collection::vec(fault(), 0..10),
        delays in prop::collection::vec(0..=DELAY, 1..9),
    ) {
        let mut world = World::new(faults, delays);
        let quiet = 450 + LEASE + 2 * RENEWAL + 2 * DELAY + 3;
        for step in 0..quiet + LEASE {
            world.step(step);
            if step >= quiet {
                let acting: Vec<_> = world.running(step).filter(|process| process.acts(step)).collect();
                prop_assert!(acting.len() == 1 && acting[0].knows_it_holds(), "{} act at {step}", acting.len());
            }
        }
    }
}
