//! Which of a region's replicas acts: the one that the region's lease names. A replica that does not act writes nothing, neither to this cluster's
//! Kubernetes nor of an application to the quorum, reports nothing and leads nobody; it follows the quorum, serves the edge and is ready.
//!
//! Acting is for order, not for safety: what may be written is granted by the lease alone. So who has lost touch with the quorum goes on acting by
//! what it knows, as the only agent of a region must; and a replica steps in as soon as the other one is silent, before its lease is over, so that
//! the region is heard of all the time.

use std::time::Duration;

use leeward_core::lease::{Lease, Moment, Sight, Timing};

use super::{Agent, lock};
use crate::{
    clock,
    holder::{Holder, Reached},
};

/// The longest time for the first look at what is here.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What a replica saw of its region's lease.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// When it was renewed here last.
    renewed: Option<Moment>,
    /// Another one's lease as it was read last, and when that read was sent.
    read: Option<(Lease, u64, Moment)>,
    /// Another one has renewed it, as seen from here: there is one, and it lives or lived until now.
    witnessed: bool,
    shown: Shown,
    /// Since when it acts.
    since: Option<Moment>,
}

/// Whom this cluster's own resource names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Shown {
    /// This one was not named yet.
    #[default]
    NotYet,
    /// This one.
    Me,
    /// Another one, after this one.
    Successor,
}

impl Seen {
    /// Another one's lease was read, by a question that was sent at that moment.
    fn read(&mut self, lease: &Lease, revision: u64, sent: Moment) {
        let renewed = |(before, at, _): &(Lease, u64, Moment)| *at != revision && !lease.sealed && before != lease;
        if self.renewed.is_some() || self.read.as_ref().is_some_and(renewed) {
            self.witnessed = true;
        }
        self.read = Some((lease.clone(), revision, sent));
    }

    fn acts(&self, look: &Look<'_>) -> bool {
        let Some(sight) = look.sight else {
            return !look.replicated;
        };
        if sight.lease.holder == look.me {
            let over = self.renewed.is_none_or(|at| look.now >= look.timing.stopped_by(at));
            return !(over && self.shown == Shown::Successor);
        }
        let quiet = match (self.witnessed, look.replicated) {
            // Of the renewals every T/6 one may be lost, and is waited for T/3.
            (true, _) => look.timing.ttl * 2 / 3,
            (false, true) => look.timing.ttl / 3,
            (false, false) => Duration::ZERO,
        };
        // Only an answer of the quorum tells silence from not being told.
        let silent = self
            .read
            .as_ref()
            .is_some_and(|(_, revision, sent)| *revision == sight.revision && *sent >= sight.first_seen.after(quiet));
        silent || quiet.is_zero()
    }
}

/// What else it depends on.
struct Look<'a> {
    me: &'a str,
    sight: Option<&'a Sight>,
    /// Whether there may be other replicas.
    replicated: bool,
    timing: &'a Timing,
    now: Moment,
}

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
        let known = self.known();
        let look = Look {
            me: &self.holder,
            sight: known.sights.get(&self.me),
            replicated: self.reached.is_some(),
            timing: &self.timing,
            now: clock::now(),
        };
        let mut seen = lock(&self.replica);
        let acts = seen.acts(&look);
        seen.since = acts.then(|| seen.since.unwrap_or(look.now));
        acts
    }

    /// Whether this replica says what is here, to its cluster and to the others. One that steps in looks at every application first, or what each
    /// of them lacked until then would be news; it is not held up for longer than a moment by one that cannot be looked at.
    pub(crate) fn speaks(&self) -> bool {
        if !self.acts() {
            return false;
        }
        let since = lock(&self.replica).since;
        let known = self.known();
        let said = self.said();
        let mut apps = known.situations().map(|situation| &situation.app.value.key);
        self.reached.is_none()
            || since.is_some_and(|since| clock::now().since(since) > FIRST_LOOK)
            || apps.all(|app| said.contains_key(app))
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
        lock(&self.replica).renewed = Some(sent);
    }

    /// The region's lease was read, by a question that was sent at that moment.
    pub(super) fn has_read(&self, lease: &Lease, revision: u64, sent: Moment) {
        if lease.holder != self.holder {
            lock(&self.replica).read(lease, revision, sent);
        }
    }

    /// The resource of this cluster names that one as the agent that acts.
    pub(crate) fn is_shown(&self, holder: Option<&str>) {
        let shown = &mut lock(&self.replica).shown;
        *shown = match holder {
            Some(holder) if holder == self.holder => Shown::Me,
            Some(_) if *shown == Shown::Me => Shown::Successor,
            _ => *shown,
        };
    }
}

#[cfg(test)]
mod tests {
    use leeward_core::lease::Delays;

    use super::*;

    const T: u64 = 6000;

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(100_000 + ms))
    }

    fn lease(holder: &str, sequence: u64) -> Lease {
        Lease {
            cluster: "west".into(),
            holder: holder.into(),
            sequence,
            sealed: false,
        }
    }

    /// Whether "a" acts at `now`; "b" or itself has the lease at revision and first sight.
    fn acts(seen: &Seen, replicated: bool, sight: Option<(&str, u64, u64)>, now: u64) -> bool {
        let sight =
            sight.map(|(holder, revision, first)| Sight::observe(None, lease(holder, revision), revision, at(first)));
        let timing = Timing::new(Duration::from_millis(T), Delays::WITHOUT_ELECTIONS).unwrap();
        let look = Look {
            me: "a",
            sight: sight.as_ref(),
            replicated,
            timing: &timing,
            now: at(now),
        };
        seen.acts(&look)
    }

    fn reads(of: &[(u64, u64)]) -> Seen {
        let mut seen = Seen::default();
        for (revision, sent) in of {
            seen.read(&lease("b", *revision), *revision, at(*sent));
        }
        seen
    }

    #[test]
    fn an_only_agent_acts_from_its_start_and_a_replica_once_it_has_the_lease() {
        let new = Seen::default();
        assert!(acts(&new, false, None, 0) && !acts(&new, true, None, 0));
        assert!(acts(&new, false, Some(("b", 1, 0)), 0) && !acts(&new, true, Some(("b", 1, 0)), 0));
        let held = Seen {
            renewed: Some(at(0)),
            ..Seen::default()
        };
        assert!(acts(&held, true, Some(("a", 2, 0)), 100));
    }

    #[test]
    fn a_replica_steps_in_when_the_other_one_is_silent_and_the_quorum_says_so() {
        // The other one renews: this one keeps still for two thirds of the lease after the last time.
        let lives = reads(&[(1, 0), (2, 1000), (2, 4900)]);
        assert!(!acts(&lives, true, Some(("b", 2, 1000)), 4900));
        let silent = reads(&[(1, 0), (2, 1000), (2, 5000)]);
        assert!(acts(&silent, true, Some(("b", 2, 1000)), 5001));
        // The quorum does not answer: nobody knows, however long it takes.
        let unanswered = reads(&[(1, 0), (2, 1000)]);
        assert!(!acts(&unanswered, true, Some(("b", 2, 1000)), 60_000));
        // What is left by one that ended before this one began is waited for half as long.
        let predecessor = reads(&[(1, 0), (1, 2000)]);
        assert!(acts(&predecessor, true, Some(("b", 1, 0)), 2001));
        assert!(!acts(&reads(&[(1, 0), (1, 1900)]), true, Some(("b", 1, 0)), 1901));
    }

    #[test]
    fn a_seal_is_no_sign_of_life() {
        let mut seen = reads(&[(1, 0)]);
        let sealed = Lease {
            sealed: true,
            ..lease("b", 1)
        };
        seen.read(&sealed, 2, at(100));
        assert!(!seen.witnessed);
    }

    #[test]
    fn who_lost_the_quorum_goes_on_until_another_one_is_seen_to_act() {
        let mut seen = Seen {
            renewed: Some(at(0)),
            ..Seen::default()
        };
        let own = Some(("a", 2, 0));
        assert!(acts(&seen, true, own, 60_000));
        seen.shown = Shown::Successor;
        assert!(!acts(&seen, true, own, 60_000));
        // While its own lease holds, what another one wrote says nothing.
        assert!(acts(&seen, true, own, 5000));
        // Another one has the lease, and renews it.
        let mut lost = Seen {
            renewed: Some(at(0)),
            ..Seen::default()
        };
        lost.read(&lease("b", 3), 3, at(100));
        assert!(!acts(&lost, false, Some(("b", 3, 100)), 200));
    }
}
