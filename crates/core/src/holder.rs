//! The holder's side of a lease: what it sends next, and what an answer entitles it to.
//!
//! Flow: [`Holder::renewal`] says what to send; the answer to a question goes to [`Holder::begin`], that to a renewal to
//! [`Holder::renewed`]. An answer that does not come is not told: between sending a renewal and its answer the holder knows nothing
//! of its lease, so the next thing that it sends is a question again.
//!
//! Invariants: a renewal names the revision that it replaces; a lease that is not this holder's is taken only when it is over; what
//! a renewal grants is counted from before it was sent.

use crate::{
    lease::{Grants, Lease, Moment, Role, Sight, Timing},
    name::{ClusterName, RoleKey},
};

/// What to send to the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The lease is to be read.
    Read,
    /// The lease is to be written.
    Write(Offer),
}

/// A lease to be written in the place of the one at a revision, 0 for none. In the same transaction the roles are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The lease.
    pub lease: Lease,
    /// The revision that it replaces.
    pub replaces: u64,
}

/// One process that holds, or wants, a cluster's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    cluster: ClusterName,
    name: String,
    /// The lease as this holder wrote it last, with its revision.
    held: Option<(Lease, u64)>,
}

impl Holder {
    /// A process that holds nothing yet. `name` is its own: a restarted agent is another holder.
    pub fn new(cluster: ClusterName, name: impl Into<String>) -> Self {
        Self {
            cluster,
            name: name.into(),
            held: None,
        }
    }

    /// The revision of the lease that this holder has; none while it does not know of one.
    pub fn revision(&self) -> Option<u64> {
        self.held.as_ref().map(|(_, revision)| *revision)
    }

    /// What to send now.
    pub fn renewal(&mut self) -> Renewal {
        match self.held.take() {
            None => Renewal::Read,
            Some((lease, replaces)) => Renewal::Write(Offer {
                lease: Lease {
                    sequence: lease.sequence + 1,
                    ..lease
                },
                replaces,
            }),
        }
    }

    /// The lease to begin with, by what was read and what this observer saw of it; none while a predecessor's may be in force,
    /// which may still be answering.
    pub fn begin(
        &self,
        found: Option<(&Lease, u64)>,
        sight: Option<&Sight>,
        timing: &Timing,
        now: Moment,
    ) -> Option<Offer> {
        let offer = |sequence, replaces| Offer {
            lease: Lease {
                cluster: self.cluster.clone(),
                holder: self.name.clone(),
                sequence,
                sealed: false,
            },
            replaces,
        };
        let Some((lease, revision)) = found else {
            return Some(offer(1, 0));
        };
        let over = || {
            sight
                .filter(|sight| sight.revision == revision)
                .is_some_and(|sight| sight.over(timing, now))
        };
        (lease.sealed || lease.holder == self.name || over()).then(|| offer(lease.sequence + 1, revision))
    }

    /// The answer to a renewal that was sent at `sent`: what it grants, by the roles that it read. `revision` is none when it was not
    /// applied; then the lease was sealed or taken, and everything that it granted is void.
    pub fn renewed<'a>(
        &mut self,
        offer: Offer,
        sent: Moment,
        revision: Option<u64>,
        roles: impl IntoIterator<Item = (&'a RoleKey, &'a Role)>,
        timing: &Timing,
    ) -> Grants {
        let Some(revision) = revision else {
            return Grants::none();
        };
        self.held = Some((offer.lease, revision));
        Grants::from_renewal(timing, &self.cluster, sent, roles)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::samples::{at, timing};

    fn lease(holder: &str, sealed: bool) -> Lease {
        Lease {
            cluster: "west".into(),
            holder: holder.into(),
            sequence: 7,
            sealed,
        }
    }

    #[test]
    fn after_a_renewal_that_was_not_answered_the_lease_is_read_again() {
        let mut holder = Holder::new("west".into(), "a");
        assert_eq!(holder.renewal(), Renewal::Read);
        let offer = holder.begin(None, None, &timing(), at(0)).unwrap();
        assert_eq!((offer.lease.sequence, offer.replaces), (1, 0));
        holder.renewed(offer, at(0), Some(10), [], &timing());
        let Renewal::Write(second) = holder.renewal() else {
            panic!()
        };
        assert_eq!((second.lease.sequence, second.replaces), (2, 10));
        // No answer came.
        assert_eq!(holder.renewal(), Renewal::Read);
        let offer = holder
            .begin(Some((&second.lease, 11)), None, &timing(), at(900))
            .unwrap();
        assert_eq!((offer.lease.sequence, offer.replaces), (3, 11));
    }

    #[test]
    fn a_predecessors_lease_is_waited_out_from_the_first_sight_of_that_very_revision() {
        let holder = Holder::new("west".into(), "b");
        let old = lease("a", false);
        let sight = Sight::observe(None, old.clone(), 20, at(1000));
        let begin = |revision, now| holder.begin(Some((&old, revision)), Some(&sight), &timing(), at(now));
        assert_eq!(begin(20, 4029), None);
        assert!(begin(20, 4030).is_some());
        // It was renewed since.
        assert_eq!(begin(21, 9000), None);
        assert_eq!(holder.begin(Some((&old, 20)), None, &timing(), at(9000)), None);
        let sealed = lease("a", true);
        assert!(holder.begin(Some((&sealed, 22)), None, &timing(), at(0)).is_some());
    }

    #[test]
    fn a_lease_that_was_sealed_or_taken_grants_nothing() {
        let mut holder = Holder::new("west".into(), "a");
        let offer = holder.begin(None, None, &timing(), at(0)).unwrap();
        let grants = holder.renewed(offer, at(0), None, [], &timing());
        assert_eq!(grants, Grants::none());
        assert_eq!(holder.renewal(), Renewal::Read);
    }
}
