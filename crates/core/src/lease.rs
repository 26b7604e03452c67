//! Leases and grants: for how long a cluster may write, counted once by each side.
//!
//! Invariants, with `T` the lease's time to live:
//! - the holder counts from **before** it sent a renewal, begins to stop at `T - stop - drift` and is stopped by
//!   `T - drift`;
//! - a taker counts from its **own first sight** of the last renewal and waits `T + drift`;
//! - a renewal whose outcome is unknown is no renewal;
//! - only roles that the renewal itself read as held by this cluster are granted.
//!
//! Both sides use their own monotonic clock and only ever compare it with itself, so wall clocks do not matter. `drift`
//! is how far each of them may run off true time within `T`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::name::{ClusterName, Epoch, RoleKey};

/// An instant on one process's monotonic clock, as the time since some start that is the same for the whole process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// This much later.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// This much earlier; the beginning of time when that is not there.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }

    /// The time from an earlier moment to this one; zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The lengths that every cluster of an installation agrees on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// A lease's time to live, `T`.
    pub ttl: Duration,
    /// How long a holder takes from the decision to stop until no answer leaves it.
    pub stop: Duration,
    /// How far a monotonic clock may run off true time within `ttl`. Two may be apart by twice as much, so both sides add it.
    pub drift: Duration,
}

/// What a renewal may have to wait for at worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delays {
    /// The quorum's election time-out; zero where there is no election.
    pub election: Duration,
    /// To the quorum and back.
    pub round_trip: Duration,
}

impl Delays {
    /// Of a quorum that holds no elections.
    pub const WITHOUT_ELECTIONS: Self = Self {
        election: Duration::ZERO,
        round_trip: Duration::from_millis(100),
    };

    /// Of a quorum with this election time-out.
    pub fn with_election(election: Duration) -> Self {
        Self {
            election,
            ..Self::WITHOUT_ELECTIONS
        }
    }
}

/// A time to live that is too short to be safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a lease of {ttl:?} is too short: a renewal, three elections of the quorum, a round trip, stopping and clock drift need at least \
     {least:?}; choose a longer one"
)]
pub struct TooShort {
    ttl: Duration,
    least: Duration,
}

impl Timing {
    /// No lease is shorter, however fast the quorum.
    pub const LEAST: Duration = Duration::from_secs(1);

    /// The shortest lease with which a writer goes on while the quorum elects a leader, even one that fails twice: what is left of it
    /// after the time between two renewals (`T / 6`), stopping (`T / 10`) and drift (`T / 100`) covers three elections and a round
    /// trip. Whole milliseconds, rounded up.
    pub fn least(delays: Delays) -> Duration {
        // 1 - 1/6 - 1/10 - 1/100 = 217/300
        let covered = delays.election.saturating_mul(3).saturating_add(delays.round_trip);
        let ms = covered.as_micros().saturating_mul(300).div_ceil(217 * 1000);
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)).max(Self::LEAST)
    }

    /// The timing for a time to live.
    ///
    /// # Errors
    /// When `ttl` is shorter than [`Timing::least`].
    pub fn new(ttl: Duration, delays: Delays) -> Result<Self, TooShort> {
        let least = Self::least(delays);
        if ttl < least {
            return Err(TooShort { ttl, least });
        }
        Ok(Self {
            ttl,
            stop: ttl / 10,
            drift: ttl / 100,
        })
    }

    /// How often a holder renews: `T / 6`.
    pub fn renew_every(&self) -> Duration {
        self.ttl / 6
    }

    /// When a holder that sent its last successful renewal at `sent` begins to stop.
    pub fn stop_begins(&self, sent: Moment) -> Moment {
        sent.after(self.ttl.saturating_sub(self.stop + self.drift))
    }

    /// When a holder that sent its last successful renewal at `sent` has stopped.
    pub fn stopped_by(&self, sent: Moment) -> Moment {
        sent.after(self.ttl.saturating_sub(self.drift))
    }

    /// When someone who first saw the last renewal at `seen` may take what the holder had.
    pub fn taken_from(&self, seen: Moment) -> Moment {
        seen.after(self.ttl + self.drift)
    }
}

/// A cluster's lease as it stands in the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The cluster that holds it.
    pub cluster: ClusterName,
    /// The process that holds it: a restarted agent is another holder.
    pub holder: String,
    /// Grows by one with each renewal.
    pub sequence: u64,
    /// Set by a takeover: what this lease granted is void, whatever its holder believes.
    pub sealed: bool,
}

/// A role as it stands in the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// The cluster that may write.
    pub owner: ClusterName,
    /// The number of this ownership.
    pub epoch: Epoch,
    /// How firm the ownership is.
    pub hold: Hold,
    /// The standbys that lack no more than the last `rpo`: one of them may be promoted without anybody being asked.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub in_sync: BTreeSet<ClusterName>,
}

impl Role {
    /// A role that its owner may write from now on; no standby has anything of this epoch yet.
    pub fn held(owner: ClusterName, epoch: Epoch) -> Self {
        Self {
            owner,
            epoch,
            hold: Hold::Held,
            in_sync: BTreeSet::new(),
        }
    }
}

/// How firm an ownership is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// The owner may write while it has its lease.
    Held,
    /// The owner is asked to stop; nothing is granted any more.
    Revoking,
    /// The owner has stopped, and confirmed it after every gate closed.
    Released,
}

/// What one successful renewal entitles its sender to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// New requests are refused from here on.
    pub admit_until: Moment,
    /// No answer leaves from here on.
    pub answer_until: Moment,
    /// The roles and their epochs.
    pub roles: BTreeMap<RoleKey, Epoch>,
}

impl Grants {
    /// What a renewal that was sent at `sent`, and that read `roles`, grants to `cluster`.
    pub fn from_renewal<'a>(
        timing: &Timing,
        cluster: &ClusterName,
        sent: Moment,
        roles: impl IntoIterator<Item = (&'a RoleKey, &'a Role)>,
    ) -> Self {
        let roles = roles
            .into_iter()
            .filter(|(_, role)| role.owner == *cluster && role.hold == Hold::Held)
            .map(|(key, role)| (key.clone(), role.epoch))
            .collect();
        Self {
            admit_until: timing.stop_begins(sent),
            answer_until: timing.stopped_by(sent),
            roles,
        }
    }

    /// No grant at all: what a process starts with.
    pub fn none() -> Self {
        Self {
            admit_until: Moment::default(),
            answer_until: Moment::default(),
            roles: BTreeMap::new(),
        }
    }

    /// The epoch at which an answer for `role` may leave at `now`, if it may.
    pub fn answer(&self, role: &RoleKey, now: Moment) -> Option<Epoch> {
        (now < self.answer_until)
            .then(|| self.roles.get(role).copied())
            .flatten()
    }

    /// The epoch at which a new request for `role` may be let in at `now`, if it may.
    pub fn admit(&self, role: &RoleKey, now: Moment) -> Option<Epoch> {
        (now < self.admit_until)
            .then(|| self.roles.get(role).copied())
            .flatten()
    }
}

/// What an observer remembers of somebody's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The lease as last seen.
    pub lease: Lease,
    /// The quorum's revision of it.
    pub revision: u64,
    /// When this observer first saw that revision.
    pub first_seen: Moment,
}

impl Sight {
    /// Takes notice of a lease as it stands now. A revision that was seen before keeps its first moment.
    pub fn observe(before: Option<Self>, lease: Lease, revision: u64, now: Moment) -> Self {
        match before {
            Some(sight) if sight.revision == revision => sight,
            _ => Self {
                lease,
                revision,
                first_seen: now,
            },
        }
    }

    /// Whether another process than `reporting`, the one that reports now, has this lease: who was started anew waits for the end of
    /// what its predecessor was granted.
    pub fn is_of_another(&self, reporting: Option<&String>) -> bool {
        reporting.is_some_and(|holder| *holder != self.lease.holder)
    }

    /// Whether what this lease granted has ended, whatever its holder does.
    pub fn over(&self, timing: &Timing, now: Moment) -> bool {
        self.lease.sealed || now >= timing.taken_from(self.first_seen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{at, timing};

    fn lease(sequence: u64) -> Lease {
        Lease {
            cluster: "west".into(),
            holder: "h".into(),
            sequence,
            sealed: false,
        }
    }

    fn key() -> RoleKey {
        "shop/web/data".parse().unwrap()
    }

    #[test]
    fn a_lease_too_short_to_be_safe_is_refused() {
        let refused = |ms, election| {
            let delays = Delays::with_election(Duration::from_millis(election));
            Timing::new(Duration::from_millis(ms), delays).is_err()
        };
        for (least, election) in [(1000, 0), (1383, 300), (4286, 1000)] {
            assert!(refused(least - 1, election), "{election}");
            assert!(!refused(least, election), "{election}");
        }
    }

    #[test]
    fn only_roles_held_by_the_renewing_cluster_are_granted() {
        for (owner, hold, granted) in [
            ("west", Hold::Held, true),
            ("east", Hold::Held, false),
            ("west", Hold::Revoking, false),
            ("west", Hold::Released, false),
        ] {
            let role = Role {
                hold,
                ..Role::held(owner.into(), Epoch(4))
            };
            let grants = Grants::from_renewal(&timing(), &"west".into(), at(0), [(&key(), &role)]);
            assert_eq!(grants.admit(&key(), at(1)).is_some(), granted, "{owner} {hold:?}");
        }
    }

    #[test]
    fn requests_are_refused_before_answers_are() {
        let role = Role::held("west".into(), Epoch(4));
        let grants = Grants::from_renewal(&timing(), &"west".into(), at(1000), [(&key(), &role)]);
        assert_eq!(grants.admit(&key(), at(3669)), Some(Epoch(4)));
        assert_eq!(grants.admit(&key(), at(3670)), None);
        assert_eq!(grants.answer(&key(), at(3969)), Some(Epoch(4)));
        assert_eq!(grants.answer(&key(), at(3970)), None);
    }

    #[test]
    fn a_renewal_seen_again_does_not_start_the_wait_anew() {
        let first = Sight::observe(None, lease(1), 10, at(100));
        let again = Sight::observe(Some(first.clone()), lease(1), 10, at(900));
        assert_eq!(again.first_seen, at(100));
        let renewed = Sight::observe(Some(again), lease(2), 11, at(1000));
        assert_eq!(renewed.first_seen, at(1000));
        assert!(!renewed.over(&timing(), at(4029)));
        assert!(renewed.over(&timing(), at(4030)));
    }

    #[test]
    fn a_sealed_lease_is_over_at_once() {
        let sealed = Lease {
            sealed: true,
            ..lease(1)
        };
        assert!(Sight::observe(None, sealed, 10, at(100)).over(&timing(), at(100)));
    }

    proptest! {
        /// With the shortest lease that is allowed, what remains after everything else covers three elections and a round trip.
        #[test]
        fn the_shortest_lease_covers_three_elections(election in 0u64..20_000, round_trip in 0u64..2_000) {
            let delays = Delays {
                election: Duration::from_millis(election),
                round_trip: Duration::from_millis(round_trip),
            };
            let timing = Timing::new(Timing::least(delays), delays).unwrap();
            let taken = timing.renew_every() + timing.stop + timing.drift + 3 * delays.election + delays.round_trip;
            prop_assert!(taken <= timing.ttl, "{taken:?} of {:?}", timing.ttl);
        }

        /// Whatever the delay between sending and seeing a renewal, and with clocks apart by as much as `drift`, nobody
        /// takes before the holder has stopped answering.
        #[test]
        fn the_taker_always_waits_until_the_holder_has_stopped(
            ttl_ms in 1_000u64..60_000,
            sent in 0u64..1_000_000,
            delay in 0u64..10_000,
            fast in 0.0f64..=1.0,
        ) {
            let timing = Timing::new(Duration::from_millis(ttl_ms), Delays::WITHOUT_ELECTIONS).unwrap();
            let stopped = timing.stopped_by(at(sent));
            let taken = timing.taken_from(at(sent + delay));
            // A taker's clock that runs fast reaches its moment early by up to the drift.
            let early = taken.0 - timing.drift.mul_f64(fast);
            prop_assert!(early >= stopped.0);
        }
    }
}
