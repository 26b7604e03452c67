//! The in-sync set of the role: what bounds the writer, and when it is changed.

use std::time::Duration;

use leeward_core::{
    in_sync::{Bound, Confirmed, WhenStandbyAway},
    lease::{Hold, Moment, Role},
    name::{ClusterName, Epoch},
};
use leeward_quorum::{Txn, key};

use super::{Agent, Purpose, Send};
use crate::mutant::Mutant;

impl Agent {
    /// Until when an answer may leave at this epoch by what the standby has confirmed.
    pub(super) fn confirmed_until(&self, epoch: Epoch) -> Moment {
        let for_ever = Moment(Duration::MAX);
        let Some(set) = self.sets.of(&self.role).filter(|set| !set.is_empty()) else {
            return for_ever;
        };
        if self.mutant == Some(Mutant::BoundIgnored) {
            return for_ever;
        }
        let (of, confirmed) = &self.confirmed;
        let begun = |standby: &ClusterName| confirmed.get(standby).copied().filter(|_| *of == epoch.0);
        self.bound().until(set, begun).unwrap_or(for_ever)
    }

    fn confirmed_of(&self, epoch: Epoch) -> Confirmed {
        let (of, confirmed) = &self.confirmed;
        if *of == epoch.0 {
            confirmed.clone()
        } else {
            Confirmed::new()
        }
    }

    fn bound(&self) -> Bound {
        Bound {
            rpo: self.app.rpo,
            away: match self.mutant {
                Some(Mutant::StopGoesOn) => WhenStandbyAway::Serve,
                _ => self.app.when_standby_away,
            },
        }
    }

    /// A point is taken now.
    pub(crate) fn takes(&mut self, epoch: u64, sequence: u64, now: Moment) {
        if self.confirmed.0 != epoch {
            self.confirmed = (epoch, Confirmed::new());
            self.taken.clear();
        }
        self.taken.insert(sequence, now);
    }

    /// The other region has a point, durably.
    pub(crate) fn confirms(&mut self, epoch: u64, sequence: u64, now: Moment) {
        let (of, confirmed) = &mut self.confirmed;
        let Some(begun) = self.taken.get(&sequence).filter(|_| *of == epoch) else {
            return;
        };
        let begun = match self.mutant {
            Some(Mutant::PointCountsFromConfirmation) => now,
            _ => *begun,
        };
        let newest = confirmed.entry(self.peer.clone()).or_default();
        *newest = begun.max(*newest);
    }

    /// Commits the in-sync set that is to be, while the role is granted.
    pub(super) fn sync(&mut self, now: Moment, sends: &mut Vec<Send>) {
        let Some(lease) = self.holder.revision().filter(|_| {
            !self.waits(|purpose| matches!(purpose, Purpose::Sync(_) | Purpose::Begin(_) | Purpose::Renew(..)))
        }) else {
            return;
        };
        let key = self.role.clone();
        let role = self
            .situation
            .as_ref()
            .and_then(|situation| situation.roles.get(&key))
            .cloned();
        let held = role.filter(|role| {
            let role = &role.value;
            role.owner == self.me && role.hold == Hold::Held && self.grants.answer(&key, now) == Some(role.epoch)
        });
        let Some(role) = held else { return };
        let standbys = [self.peer.clone()].into();
        let bound = self.bound();
        let confirmed = self.confirmed_of(role.value.epoch);
        let Some(next) = bound.change(&role.value, &standbys, &confirmed, &self.timing, now) else {
            return;
        };
        let after = Role {
            in_sync: next.clone(),
            ..role.value
        };
        let name = key::role(&key);
        let mut txn = Txn::default().expect(&name, role.revision);
        if self.mutant != Some(Mutant::SyncWithoutLease) {
            txn = txn.expect(key::lease(&self.me), lease);
        }
        let Ok(txn) = txn.put(&name, &after) else { return };
        if self.mutant == Some(Mutant::OutBeforeCommitted) {
            self.sets.applied(&key, next.clone());
        } else if self.mutant != Some(Mutant::InAfterCommitted) {
            self.sets.asked(&key, &next);
        }
        sends.push(self.send(Purpose::Sync(next), txn.read(&name), now));
    }
}
