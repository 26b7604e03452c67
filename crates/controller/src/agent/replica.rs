//! Which of a region's replicas acts, as `leeward_core::replica` decides it, and where what is said to one that does not act belongs.
//!
//! Flow: `renew` and [`Agent::learn`] tell what the quorum says of the region's lease, `cluster` whom the resource names; the others only ask.

use std::sync::atomic::Ordering;

use leeward_core::{lease::Lease, lease::Moment, replica::Event};

use super::{Agent, lock};
use crate::{
    clock,
    holder::{Holder, Reached},
};

/// Where something belongs that was said to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whither {
    /// This one acts, or there is no other.
    Here,
    /// That one acts.
    There(Reached),
    /// Which one acts is not known, or not where it is.
    Nowhere,
}

impl Agent {
    /// Whether this replica is the one that acts for its region.
    pub fn acts(&self) -> bool {
        lock(&self.replica).acts(clock::now())
    }

    /// Whether this replica says what is here, to its cluster and to the others.
    pub(crate) fn speaks(&self) -> bool {
        let known = self.known();
        let said = self.said();
        let mut apps = known.situations().map(|situation| &situation.app.value.key);
        lock(&self.replica).speaks(|| apps.all(|app| said.contains_key(app)), clock::now())
    }

    /// Where something belongs that a peer or a gate says to this replica.
    pub fn whither(&self) -> Whither {
        let Some(own) = self.reached.filter(|_| !self.acts()) else {
            return Whither::Here;
        };
        let known = self.known();
        let named = known.sights.get(&self.me).map(|sight| sight.lease.holder.as_str());
        let reached = named
            .filter(|holder| *holder != self.holder)
            .and_then(|holder| holder.parse::<Holder>().ok()?.reached);
        match reached {
            Some(reached) if reached != own => Whither::There(reached),
            _ => Whither::Nowhere,
        }
    }

    /// The region's lease was renewed here, by what was sent at that moment.
    pub(super) fn has_renewed(&self, sent: Moment) {
        self.hears(Event::Renewed(sent));
    }

    /// The region's lease was read, by a question that was sent at that moment.
    pub(super) fn has_read(&self, lease: &Lease, revision: u64, sent: Moment) {
        self.hears(Event::Read { lease, revision, sent });
    }

    /// The resource of this cluster names that one as the agent that acts.
    pub(crate) fn is_shown(&self, holder: Option<&str>) {
        self.hears(Event::Shown(holder));
    }

    pub(super) fn hears(&self, event: Event<'_>) {
        let (mut replica, now) = (lock(&self.replica), clock::now());
        replica.hear(event, now);
        let acts = replica.acts(now);
        // Compared with the last time: it may have ended since, by the clock.
        let news = self.acted.swap(acts, Ordering::AcqRel) != acts;
        drop(replica);
        if news {
            self.wake();
        }
    }
}
