//! Disks that fill, for a while. A full one takes nothing: the writer's writes are not acknowledged, no point can be taken, kept or promoted, the
//! epoch beside the data is not raised, and the configuration that comes from the active region is not kept. What is there stays there.
//!
//! That an agent cannot note the newest revision of its quorum loses it nothing, as in the real one: the quorum of a run is never replaced
//! or restored, so nothing else about that file is played.

use leeward_core::{execute, plan::Plan};
use leeward_quorum::known::Situation;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    agent::Agent,
    fault::{Fault, Place, Planned, REGIONS, Time},
    world::SECOND,
};

/// What an agent keeps on the disk of its region, beside the data.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Disk {
    /// Whether the configuration that was carried here is there.
    pub(crate) has_configuration: bool,
}

/// What an agent has of the configuration that is carried to it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Carried {
    /// It is in memory.
    pub(crate) is_here: bool,
    /// It came and could not be kept.
    is_in_trouble: bool,
}

/// When the disks fill and until when: in a third of the runs, up to three times.
pub(crate) fn plan(seed: u64, begin: Time, end: Time) -> Vec<Planned> {
    // A generator of its own, so that what else happens in a seed stays as it is.
    let mut random = StdRng::seed_from_u64(seed ^ 0x6469_736b);
    if !random.random_bool(1.0 / 3.0) || begin >= end {
        return Vec::new();
    }
    let times = random.random_range(1..4);
    let full = |_| {
        let at = random.random_range(begin..end);
        Planned {
            at,
            until: (at + random.random_range(SECOND / 4..6 * SECOND)).min(end),
            fault: Fault::DiskFull(REGIONS[random.random_range(0..2)]),
        }
    };
    (0..times).map(full).collect()
}

impl Agent {
    /// Whoever is followed sends its configuration. It is on the disk before it counts.
    pub(crate) fn is_sent_configuration(&mut self, from: Place, disk: &mut Disk, is_full: bool) {
        let situation = self.situation();
        let followed =
            situation.and_then(|situation| execute::follows(&situation.app.value, situation.plan(), &self.me));
        if followed.is_none_or(|followed| followed.as_str() != from.name())
            || disk.has_configuration && self.carried.is_here
        {
            return;
        }
        if is_full {
            self.carried.is_in_trouble = true;
            return;
        }
        disk.has_configuration = true;
        self.carried = Carried {
            is_here: true,
            is_in_trouble: false,
        };
    }

    /// The agent starts with what is kept.
    pub(crate) fn reads_configuration(&mut self, disk: Disk) {
        self.carried.is_here = disk.has_configuration;
    }

    /// A region that is active has newer configuration of its own than what it once followed.
    pub(crate) fn forgets_configuration(&mut self, situation: &Situation, disk: &mut Disk) {
        let Some(plan) = situation.plan() else { return };
        if !execute::is_active(plan, &situation.roles, &situation.journal, &self.me) {
            return;
        }
        disk.has_configuration = false;
        if plan.operation.is_none() {
            self.carried = Carried::default();
        }
    }

    /// What a start here would lack.
    pub(crate) fn lacks(&self, plan: Option<&Plan>) -> Vec<String> {
        let stands_by = plan.is_some_and(|plan| plan.active != self.me && plan.operation.is_none());
        let absent = (stands_by && !self.carried.is_here).then(|| "its configuration has not come yet".to_owned());
        let trouble = self.carried.is_in_trouble;
        let trouble = trouble.then(|| "its configuration cannot be kept".to_owned());
        absent.into_iter().chain(trouble).collect()
    }
}
