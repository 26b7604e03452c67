//! The in-sync set of a role: the standbys of which the quorum says that they have everything but the last `rpo`, so that one of them
//! may be promoted without anybody being asked.
//!
//! While a standby is in the set, the writer answers only until the taking of the last point that this standby durably confirmed, plus
//! `rpo`. To go on without it, the writer first commits it out.
//!
//! Invariants:
//! - the set that the writer bounds itself by ([`Sets`]) holds at least what the quorum's holds, whatever becomes of a request: what is to
//!   be added counts from before it is sent, what is to be left out until it is known to be applied;
//! - a change of the set compares the role and the holder's own lease, so that one still under way when the lease is renewed, or
//!   taken over, is never applied;
//! - a point counts from the moment before it was taken, on the holder's clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    lease::{Moment, Role, Timing},
    name::{ClusterName, RoleKey},
};

/// What the writer does while a standby does not confirm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenStandbyAway {
    /// It commits the standby out and goes on; without a standby in the set nothing fails over by itself.
    #[default]
    Serve,
    /// It stops until the standby confirms again.
    Stop,
}

/// For each standby, when the taking of the last point that it confirmed began.
pub type Confirmed = BTreeMap<ClusterName, Moment>;

/// What is agreed for a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The most that may be lost.
    pub rpo: Duration,
    /// What is done while a standby does not confirm.
    pub away: WhenStandbyAway,
}

/// The time that a point may take from its instant until it is confirmed, at the least that is planned with.
pub const TRANSFER: Duration = Duration::from_millis(500);

/// The time that it may take to commit a standby out, at the least that is planned with.
pub const COMMIT: Duration = Duration::from_millis(500);

/// The smallest `rpo` with which a writer goes on, and its standby stays in sync, while everything is in order: a point is taken each
/// `interval`, the one before it may have been sent just now, it takes [`TRANSFER`] to be confirmed, a standby goes [`COMMIT`] before the
/// writer would begin to stop, and that is `stop` early. A hundredth more for the drift of the clock.
pub fn least_rpo(interval: Duration, timing: &Timing) -> Duration {
    let needed = interval * 2 + TRANSFER + COMMIT + timing.stop;
    needed + needed / 99
}

impl Bound {
    /// Less what the holder's clock may run slow.
    fn counted(&self) -> Duration {
        self.rpo - self.rpo / 100
    }

    /// Until when an answer may leave while these standbys are in the set; none for as long as the lease allows.
    /// It is asked for each answer, so nothing is copied for it: `begun` says when a standby's last confirmed point began.
    pub fn until(&self, set: &BTreeSet<ClusterName>, begun: impl Fn(&ClusterName) -> Option<Moment>) -> Option<Moment> {
        set.iter()
            .map(|standby| begun(standby).map_or(Moment::default(), |begun| begun.after(self.counted())))
            .min()
    }

    /// The set that is to be committed in the place of the role's, if another one. A standby comes in when its last point is younger than
    /// half of `rpo`; it goes [`COMMIT`] before the writer would begin to stop.
    pub fn change(
        &self,
        role: &Role,
        standbys: &BTreeSet<ClusterName>,
        confirmed: &Confirmed,
        timing: &Timing,
        now: Moment,
    ) -> Option<BTreeSet<ClusterName>> {
        let younger = |standby: &ClusterName, limit: Duration| {
            let begun = confirmed.get(standby);
            begun.is_some_and(|begun| now.since(*begun) < limit)
        };
        let leaves_after = self.counted().saturating_sub(timing.stop + COMMIT);
        let keeps = |standby: &&ClusterName| match self.away {
            WhenStandbyAway::Stop => true,
            WhenStandbyAway::Serve => younger(standby, leaves_after),
        };
        let stay = role
            .in_sync
            .iter()
            .filter(|standby| standbys.contains(*standby))
            .filter(keeps);
        let join = standbys
            .iter()
            .filter(|standby| !role.in_sync.contains(*standby) && younger(standby, leaves_after.min(self.rpo / 2)));
        let next: BTreeSet<_> = stay.chain(join).cloned().collect();
        (next != role.in_sync).then_some(next)
    }
}

/// The sets that a holder bounds itself by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sets(BTreeMap<RoleKey, BTreeSet<ClusterName>>);

impl Sets {
    /// A renewal that was applied read these roles: nothing that was sent before it can be applied any more.
    pub fn renewed<'a>(&mut self, roles: impl IntoIterator<Item = (&'a RoleKey, &'a Role)>) {
        let sets = roles.into_iter().map(|(key, role)| (key.clone(), role.in_sync.clone()));
        self.0 = sets.collect();
    }

    /// A change is sent now.
    pub fn asked(&mut self, role: &RoleKey, set: &BTreeSet<ClusterName>) {
        self.0.entry(role.clone()).or_default().extend(set.iter().cloned());
    }

    /// A change was applied.
    pub fn applied(&mut self, role: &RoleKey, set: BTreeSet<ClusterName>) {
        self.0.insert(role.clone(), set);
    }

    /// The standbys that may be in the role's set.
    pub fn of(&self, role: &RoleKey) -> Option<&BTreeSet<ClusterName>> {
        self.0.get(role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Epoch;
    use crate::samples::{at, timing};

    fn set(names: &[&str]) -> BTreeSet<ClusterName> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn confirmed(east: u64) -> Confirmed {
        [("east".into(), at(east))].into()
    }

    fn bound(away: WhenStandbyAway) -> Bound {
        Bound {
            rpo: Duration::from_secs(3),
            away,
        }
    }

    fn role(in_sync: &[&str]) -> Role {
        Role {
            in_sync: set(in_sync),
            ..Role::held("west".into(), Epoch(1))
        }
    }

    #[test]
    fn a_writer_answers_until_rpo_after_the_last_point_that_every_member_confirmed() {
        let bound = bound(WhenStandbyAway::Serve);
        assert_eq!(
            bound.until(&set(&[]), |standby| confirmed(0).get(standby).copied()),
            None
        );
        assert_eq!(
            bound.until(&set(&["east"]), |standby| confirmed(1000).get(standby).copied()),
            Some(at(3970))
        );
        // North confirmed nothing since this agent began.
        assert_eq!(
            bound.until(&set(&["east", "north"]), |standby| confirmed(1000)
                .get(standby)
                .copied()),
            Some(at(0))
        );
    }

    #[test]
    fn a_standby_comes_in_when_it_is_close_and_goes_before_the_writer_would_stop() {
        let standbys = set(&["east"]);
        let serve = bound(WhenStandbyAway::Serve);
        let change =
            |in_sync: &[&str], now: u64| serve.change(&role(in_sync), &standbys, &confirmed(1000), &timing(), at(now));
        assert_eq!(change(&[], 2499), Some(set(&["east"])));
        assert_eq!(change(&[], 2500), None);
        // 2970 - 300 - 500
        assert_eq!(change(&["east"], 3169), None);
        assert_eq!(change(&["east"], 3170), Some(set(&[])));
        let stop = bound(WhenStandbyAway::Stop);
        assert_eq!(
            stop.change(&role(&["east"]), &standbys, &confirmed(0), &timing(), at(9000)),
            None
        );
        // It is no placement any more.
        assert_eq!(
            stop.change(&role(&["east"]), &set(&[]), &confirmed(0), &timing(), at(1)),
            Some(set(&[]))
        );
    }

    #[test]
    fn what_may_be_applied_counts_until_a_renewal_says_what_was() {
        let key: RoleKey = "shop/web/data".parse().unwrap();
        let mut sets = Sets::default();
        assert_eq!(sets.of(&key), None);
        sets.renewed([(&key, &role(&["east"]))]);
        // Whether it goes is not known yet, nor whether north comes.
        sets.asked(&key, &set(&["north"]));
        assert_eq!(sets.of(&key), Some(&set(&["east", "north"])));
        sets.applied(&key, set(&["north"]));
        assert_eq!(sets.of(&key), Some(&set(&["north"])));
        sets.renewed([(&key, &role(&[]))]);
        assert_eq!(sets.of(&key), Some(&set(&[])));
    }

    #[test]
    fn the_smallest_rpo_leaves_a_writer_alone_while_points_come_in_time() {
        let interval = Duration::from_secs(1);
        let timing = timing();
        let bound = Bound {
            rpo: least_rpo(interval, &timing),
            away: WhenStandbyAway::Stop,
        };
        // Begun at 0 and confirmed; the next one begins an interval later, goes wrong once, and is confirmed in time.
        let until = bound
            .until(&set(&["east"]), |standby| confirmed(0).get(standby).copied())
            .unwrap();
        assert!(
            until >= at(0).after(interval * 2 + TRANSFER + COMMIT + timing.stop),
            "{until:?}"
        );
        let standbys = set(&["east"]);
        let serve = Bound {
            away: WhenStandbyAway::Serve,
            ..bound
        };
        let just = at(0).after(interval * 2 + TRANSFER - Duration::from_millis(1));
        assert_eq!(
            serve.change(&role(&["east"]), &standbys, &confirmed(0), &timing, just),
            None
        );
    }
}
