//! The data: clients write it behind open gates, and the region that has the role mirrors it to the other one as points.

use leeward_core::execute::Mode;

use crate::{
    agent::Agent,
    fault::{Fault, Time},
    mutant::Mutant,
    network::Message,
    world::{Event, INTERVAL, MS, World},
};

/// How often each client writes.
const WRITES: Time = 100 * MS;

impl World {
    /// The active region sends points, also the last one of a switchover when the application has stopped.
    pub(crate) fn mirror(&mut self, index: usize, slot: usize, mode: Mode) {
        let now = self.now;
        let place = self.regions[index].place;
        // A point is put together on the writer's own disk.
        let stalled = self.is(Fault::MirrorStalls(place)) || self.is(Fault::DiskFull(place));
        let region = &mut self.regions[index];
        let replica = &mut region.replicas[slot];
        let role = replica.agent.as_ref().and_then(|agent| agent.known_role().cloned());
        let Some(role) = role.filter(|role| role.owner.as_str() == region.place.name()) else {
            return;
        };
        let epoch = role.epoch.0;
        // Not before the newest point became the volume. Who was given the role back has its volume, also where it never served at that epoch.
        let its_own = region.volume.point.is_none() && replica.agent.as_ref().is_some_and(Agent::is_promoted);
        let promoted = region.volume.epoch >= epoch || its_own || matches!(mode, Mode::Serve { .. });
        if !promoted || region.volume.epoch > epoch || now < replica.next_point || stalled {
            return;
        }
        replica.next_point = now + INTERVAL;
        region.volume.begin(epoch);
        let point = region.volume.take_point(epoch, now);
        let local = region.clock.at(now);
        if let Some(agent) = &mut replica.agent {
            agent.takes(epoch, point.sequence, local);
        }
        let start = replica.start;
        self.post(place, place.other(), start, Message::Point(point));
    }

    /// A client's write, to the region that it is pinned to.
    pub(crate) fn write(&mut self, index: usize) {
        self.at(self.now + WRITES, Event::Write(index));
        let now = self.now;
        let place = self.regions[index].place;
        let is_full = self.is(Fault::DiskFull(place));
        let region = &self.regions[index];
        if region.is_frozen(now) {
            return;
        }
        // It goes around the edge: only the gates stand in its way.
        let open: Vec<u64> = region.pods.iter().filter_map(|pod| pod.answers(now)).collect();
        for epoch in open {
            let n = self.clients.number();
            if is_full {
                if self.mutant == Some(Mutant::AcknowledgedThoughFull) {
                    self.clients.acknowledged(n, epoch, place, now);
                }
                continue;
            }
            self.regions[index].volume.log.push((n, epoch));
            self.clients.acknowledged(n, epoch, place, now);
        }
    }
}
