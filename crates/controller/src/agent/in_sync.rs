//! The in-sync sets of the roles that this cluster writes: what is granted is bounded by what the standbys in them confirmed, and who
//! falls behind is committed out before that ends.
//!
//! Flow: the mirrors tell [`Agent::set_synced`] where they stand; the renewing task asks [`Agent::sync`] between renewals, so that the two
//! never overtake one another.

use std::{collections::BTreeSet, time::Duration};

use leeward_core::{
    in_sync::Sets,
    lease::{Hold, Moment, Role},
    name::{ClusterName, Epoch, RoleKey},
    plan::Versioned,
};
use leeward_quorum::{Error, Txn, key, known::Known};

use super::{Agent, Synced, follow, lock};
use crate::clock;

impl Agent {
    /// Where the mirrors of a role stand; none once this cluster does not mirror it any more.
    pub(crate) fn set_synced(&self, role: &RoleKey, synced: Option<Synced>) {
        let mut all = lock(&self.synced);
        match synced {
            Some(synced) => all.insert(role.clone(), synced),
            None => all.remove(role),
        };
    }

    pub(crate) fn bound_by(&self, change: impl FnOnce(&mut Sets)) {
        change(&mut lock(&self.sets));
    }

    /// Whether the standbys that may be in the role's set have everything but the last rpo.
    pub(super) fn is_within_rpo(&self, role: &RoleKey, epoch: Epoch, admit: bool, now: Moment) -> bool {
        // An answer may still leave while a new request is refused already.
        let ahead = if admit { self.timing.stop } else { Duration::ZERO };
        now.after(ahead) < self.confirmed_until(role, epoch)
    }

    /// Until when an answer may leave by what the standbys that may be in the role's set have confirmed: for ever where there is none.
    pub(super) fn confirmed_until(&self, role: &RoleKey, epoch: Epoch) -> Moment {
        let sets = lock(&self.sets);
        let Some(set) = sets.of(role).filter(|set| !set.is_empty()) else {
            return Moment(Duration::MAX);
        };
        let synced = lock(&self.synced);
        let until = synced
            .get(role)
            .filter(|synced| synced.epoch == epoch)
            .and_then(|synced| {
                let begun = |standby: &ClusterName| synced.mirrors.get(standby)?.borrow().begun;
                synced.bound.until(set, begun)
            });
        until.unwrap_or_default()
    }

    /// Whether any role here has a set to look after.
    pub(super) fn has_synced(&self) -> bool {
        !lock(&self.synced).is_empty()
    }

    /// Commits the sets that are to be changed, of roles that are granted. `lease` is the revision of this holder's lease: a change that
    /// arrives after the next renewal is not applied.
    pub(super) async fn sync(&self, lease: u64) -> Result<(), Error> {
        let now = clock::now();
        let known = self.known();
        let (_, begun) = known.incarnation();
        for (role, state, wanted) in self.wanted(&known, now) {
            let after = Role {
                in_sync: wanted.clone(),
                ..state.value
            };
            let key = key::role(&role);
            let txn = Txn::default()
                .expect(key::lease(&self.me), lease)
                .expect(&key, state.revision)
                .expect(key::INCARNATION, begun)
                .put(&key, &after)?
                .read(&key);
            self.bound_by(|sets| sets.asked(&role, &wanted));
            let outcome = self.quorum.txn(txn).await?;
            if outcome.applied {
                let names: Vec<&str> = wanted.iter().map(ClusterName::as_str).collect();
                tracing::info!(%role, in_sync = names.join(","), "the standbys in sync");
                self.bound_by(|sets| sets.applied(&role, wanted));
                // Otherwise the role is newer than the plan that is known: both come together.
                self.learn(|known| follow::take(known, outcome.entries));
            }
        }
        Ok(())
    }

    fn wanted(&self, known: &Known, now: Moment) -> Vec<(RoleKey, Versioned<Role>, BTreeSet<ClusterName>)> {
        let grants = self.grants();
        let synced = lock(&self.synced);
        let held = synced.iter().filter_map(|(key, synced)| {
            let role: Versioned<Role> = known.view.get(&key::role(key))?;
            let granted = grants.answer(key, now) == Some(role.value.epoch) && synced.epoch == role.value.epoch;
            (granted && role.value.owner == self.me && role.value.hold == Hold::Held).then_some((key, synced, role))
        });
        held.filter_map(|(key, synced, role)| {
            let standbys = synced.mirrors.keys().cloned().collect();
            let next = synced
                .bound
                .change(&role.value, &standbys, &synced.confirmed(), &self.timing, now)?;
            Some((key.clone(), role, next))
        })
        .collect()
    }
}
