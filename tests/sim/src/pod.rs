//! The pods of a region: each a writer behind its gate, on a node with a clock of its own. A pod may be replaced while its node is cut off:
//! then the old one lives on until its gate ends it.

use std::collections::BTreeSet;

use leeward_core::name::RoleKey;
use leeward_gate::{
    hold::{Heard, Hold},
    wire::{Answer, Ask, Closed},
};
use rand::{Rng, rngs::StdRng};

use crate::{
    app::Process,
    clock::Clock,
    fault::Time,
    world::{Event, MS, World},
};

/// What a gate and its agent say to each other.
#[derive(Debug, Clone)]
pub(crate) enum Word {
    Ask(Ask),
    Answer(Answer),
    Closed(Closed),
}

/// One pod.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) hold: Hold,
    pub(crate) clock: Clock,
    /// Until when it stands still.
    pub(crate) frozen_until: Time,
    /// Nobody in the region hears of it any more, nor it of them.
    pub(crate) cut_off: bool,
    next_ask: Time,
    asked: u64,
}

impl Pod {
    fn new(uid: String, role: RoleKey, clock: Clock, now: Time) -> Self {
        Self {
            hold: Hold::new(uid.clone(), uid.clone(), [role].into()),
            uid,
            clock,
            frozen_until: 0,
            cut_off: false,
            next_ask: now,
            asked: 0,
        }
    }

    /// The epoch at which an answer may leave at `now`.
    pub(crate) fn answers(&self, now: Time) -> Option<u64> {
        if now < self.frozen_until {
            return None;
        }
        let open = self.hold.open(self.clock.at(now))?;
        Some(open.epoch().0)
    }
}

impl World {
    /// The pods follow what the region wants to run. What a gate takes and when it speaks is drawn from a generator of its own.
    pub(crate) fn keep_pods(&mut self, index: usize, before: Process) {
        let (now, role) = (self.now, self.role_key());
        let clock = Clock::random(&mut self.gate_random);
        let region = &mut self.regions[index];
        let running = |process| process != Process::Stopped;
        match (running(before), running(region.process)) {
            (false, true) => {
                region.pods_made += 1;
                let uid = format!("{}-pod-{}", region.place.name(), region.pods_made);
                region.pods.push(Pod::new(uid.clone(), role, clock, now));
                self.at(now, Event::Pod(index, uid));
            }
            (true, false) => {
                // It is asked to end, ends its writer, and says so. One that stands still does not.
                let ended: Vec<Closed> = region
                    .pods
                    .iter_mut()
                    .filter(|pod| !pod.cut_off && now >= pod.frozen_until)
                    .map(|pod| pod.hold.close())
                    .collect();
                region.pods.retain(|pod| pod.cut_off || now < pod.frozen_until);
                for pod in &mut region.pods {
                    pod.cut_off = true;
                }
                for closed in ended {
                    self.whisper(index, String::new(), Word::Closed(closed));
                }
            }
            _ => {}
        }
    }

    /// One look of a pod's gate.
    pub(crate) fn pod(&mut self, index: usize, uid: String) {
        let now = self.now;
        let again = now + self.gate_random.random_range(50 * MS..150 * MS);
        let nonce = format!("{:x}", self.gate_random.random::<u64>());
        let region = &mut self.regions[index];
        let Some(pod) = region.pods.iter_mut().find(|pod| pod.uid == uid) else {
            return;
        };
        let until = pod.frozen_until.max(region.frozen_until);
        if now < until {
            return self.at(until, Event::Pod(index, uid));
        }
        let mut ask = None;
        if now >= pod.next_ask && !pod.cut_off {
            pod.asked += 1;
            pod.next_ask = now + 200 * MS;
            ask = Some(pod.hold.ask(nonce, pod.clock.at(now)));
        }
        self.at(again, Event::Pod(index, uid.clone()));
        if let Some(ask) = ask {
            self.whisper(index, uid, Word::Ask(ask));
        }
    }

    /// Says something within the region, which takes its time too, and may be lost or repeated.
    fn whisper(&mut self, index: usize, pod: String, word: Word) {
        let copies = match self.gate_random.random_range(0..50) {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let takes = match self.gate_random.random_range(0..20) {
                0 => self.gate_random.random_range(50 * MS..1_500 * MS),
                _ => self.gate_random.random_range(50..5 * MS),
            };
            self.at(
                self.now + takes,
                Event::Word(index, pod.clone(), Box::new(word.clone())),
            );
        }
    }

    /// Something said within a region arrives.
    pub(crate) fn heard_word(&mut self, index: usize, uid: String, word: Word) {
        let now = self.now;
        let region = &mut self.regions[index];
        if let Word::Answer(answer) = word {
            let Some(pod) = region.pods.iter_mut().find(|pod| pod.uid == uid && !pod.cut_off) else {
                return;
            };
            let until = pod.frozen_until.max(region.frozen_until);
            if now < until {
                return self.at(until, Event::Word(index, uid, Box::new(Word::Answer(answer))));
            }
            let again = match &answer {
                Answer::Granted(grant) => grant.again_ms,
                Answer::Refused(refusal) => refusal.again_ms,
            };
            // What does not count changes nothing.
            if let Ok(heard) = pod.hold.hear(answer) {
                pod.next_ask = now + again.max(20) * MS;
                if let Heard::Closed(_) = heard {
                    let closed = pod.hold.close();
                    self.whisper(index, uid, Word::Closed(closed));
                }
            }
            return;
        }
        let slot = region.any_slot(&mut self.replica_random);
        let replica_until = slot.map_or(0, |slot| region.replicas[slot].frozen_until);
        let until = region.frozen_until.max(replica_until);
        if now < until {
            return self.at(until, Event::Word(index, uid, Box::new(word)));
        }
        let local = region.clock.at(now);
        let known: BTreeSet<String> = region
            .pods
            .iter()
            .filter(|pod| !pod.cut_off)
            .map(|pod| pod.uid.clone())
            .collect();
        let Some(agent) = slot.and_then(|slot| region.replicas[slot].agent.as_mut()) else {
            return;
        };
        match word {
            Word::Ask(ask) if known.contains(&ask.pod) => {
                let answer = agent.ask_gate(ask, local);
                self.whisper(index, uid, Word::Answer(answer));
            }
            Word::Closed(closed) => agent.gate_closed(&closed),
            Word::Ask(_) | Word::Answer(_) => {}
        }
    }

    /// A gate is started anew in the pod that a region runs: it knows nothing.
    pub(crate) fn restart_gate(&mut self, index: usize) {
        let role = self.role_key();
        let name = format!("{:x}", self.gate_random.random::<u64>());
        if let Some(pod) = self.regions[index].pods.iter_mut().find(|pod| !pod.cut_off) {
            pod.hold = Hold::new(pod.uid.clone(), name, [role].into());
        }
    }

    /// The node of the pod is cut off, and another pod is started in its place.
    pub(crate) fn replace_pod(&mut self, index: usize) {
        let region = &mut self.regions[index];
        if region.process == Process::Stopped {
            return;
        }
        for pod in &mut region.pods {
            pod.cut_off = true;
        }
        self.keep_pods(index, Process::Stopped);
    }

    fn role_key(&self) -> RoleKey {
        RoleKey::new(self.app.key.clone(), "data")
    }
}

/// Draws of the gates, so that a seed's other events stay as they are.
pub(crate) fn random(seed: u64) -> StdRng {
    rand::SeedableRng::seed_from_u64(seed ^ 0x6761_7465)
}
