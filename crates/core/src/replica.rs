//! Which of a cluster's replicas acts: the one that the cluster's lease names. A replica that does not act writes nothing, neither to its cluster's
//! Kubernetes nor of an application to the quorum, reports nothing and leads nobody; it follows the quorum, serves the edge and is ready.
//!
//! Acting is for order, not for safety: what may be written is granted by the lease alone. So who has lost touch with the quorum goes on acting by
//! what it knows, as the only agent of a cluster must; and a replica steps in as soon as the other one is silent, before its lease is over, so that
//! the cluster is heard of all the time.
//!
//! Flow: what a replica hears goes to [`Replica::hear`], with the moment; [`Replica::acts`] and [`Replica::since`] only answer.
//!
//! Invariants:
//! - of those who know the newest lease two act only while it was not renewed for `T / 3`;
//! - nobody acts by another one's silence unless the quorum told of it: a question that was sent after the silence had lasted is answered;
//! - who has lost the quorum and sees that another one acts does not act: once its own lease is over, or `T / 3` after it was told of the other
//!   one's silence last;
//! - nobody begins to act by the passing of time alone: something is heard.

use std::time::Duration;

use crate::lease::{Lease, Moment, Sight, Timing};

/// The longest time for the first look at what is here.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What a replica hears of who acts.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The cluster's lease was renewed here, by what was sent at that moment.
    Renewed(Moment),
    /// The quorum told what the lease is, asked by a question that was sent at that moment.
    Read {
        /// The lease.
        lease: &'a Lease,
        /// Its revision.
        revision: u64,
        /// When the question was sent.
        sent: Moment,
    },
    /// The lease as this process's copy of the quorum has it now.
    Known(Option<&'a Sight>),
    /// Whom the cluster's own resource names as the one that acts.
    Shown(Option<&'a str>),
}

/// One of a cluster's replicas, or the only agent of its cluster.
#[derive(Debug, Clone)]
pub struct Replica {
    me: String,
    /// Whether there may be others.
    has_others: bool,
    timing: Timing,
    /// When the lease was renewed here last.
    renewed: Option<Moment>,
    /// Another one's lease as it was read last, and when that read was sent.
    read: Option<(Lease, u64, Moment)>,
    /// Another one has renewed it, as seen from here: there is one, and it lives or lived until now.
    witnessed: bool,
    known: Option<Sight>,
    shown: Shown,
    /// Since when it acts.
    since: Option<Moment>,
}

/// Whom the cluster's own resource names.
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

impl Replica {
    /// One that has heard nothing yet. `me` is the name that it signs leases with.
    pub fn new(me: impl Into<String>, has_others: bool, timing: Timing, now: Moment) -> Self {
        Self {
            me: me.into(),
            has_others,
            timing,
            renewed: None,
            read: None,
            witnessed: false,
            known: None,
            shown: Shown::NotYet,
            since: (!has_others).then_some(now),
        }
    }

    /// Takes in what is heard at this moment.
    pub fn hear(&mut self, event: Event<'_>, now: Moment) {
        // It may have ended before this is heard.
        let before = self.since(now);
        match event {
            Event::Renewed(sent) => self.renewed = Some(sent),
            Event::Read { lease, .. } if lease.holder == self.me => {}
            Event::Read { lease, revision, sent } => self.read(lease, revision, sent),
            Event::Known(sight) => {
                if self.known.as_ref() != sight {
                    self.known = sight.cloned();
                }
            }
            Event::Shown(None) => {}
            Event::Shown(Some(holder)) if holder == self.me => self.shown = Shown::Me,
            Event::Shown(Some(_)) if self.shown == Shown::Me => self.shown = Shown::Successor,
            Event::Shown(Some(_)) => {}
        }
        self.since = self.acts(now).then(|| before.unwrap_or(now));
    }

    fn read(&mut self, lease: &Lease, revision: u64, sent: Moment) {
        let renewed = |(before, at, _): &(Lease, u64, Moment)| *at != revision && !lease.sealed && before != lease;
        if self.renewed.is_some() || self.read.as_ref().is_some_and(renewed) {
            self.witnessed = true;
        }
        self.read = Some((lease.clone(), revision, sent));
    }

    /// Whether it acts at this moment.
    pub fn acts(&self, now: Moment) -> bool {
        let Some(sight) = &self.known else {
            return !self.has_others;
        };
        if sight.lease.holder == self.me {
            let over = self.renewed.is_none_or(|at| now >= self.timing.stopped_by(at));
            return !(over && self.shown == Shown::Successor);
        }
        let quiet = match (self.witnessed, self.has_others) {
            // Of the renewals every T/6 one may be lost, and is waited for T/3.
            (true, _) => self.timing.ttl * 2 / 3,
            (false, true) => self.timing.ttl / 3,
            (false, false) => Duration::ZERO,
        };
        // Only an answer of the quorum tells silence from not being told.
        let silent = self
            .read
            .as_ref()
            .filter(|(_, revision, sent)| *revision == sight.revision && *sent >= sight.first_seen.after(quiet));
        // What it told longer ago than two renewals take counts until another one is seen to act.
        let is_told = |sent: Moment| self.shown != Shown::Successor || now < sent.after(self.timing.ttl / 3);
        quiet.is_zero() || silent.is_some_and(|(_, _, sent)| is_told(*sent))
    }

    /// Since when it acts; none while it does not.
    pub fn since(&self, now: Moment) -> Option<Moment> {
        self.since.filter(|_| self.acts(now))
    }

    /// Whether it says what is here, to its cluster and to the others. One that steps in looks at every application first, or what each of them
    /// lacked until then would be news; it is not held up for longer than a moment by one that cannot be looked at.
    pub fn speaks(&self, has_looked_at_all: impl FnOnce() -> bool, now: Moment) -> bool {
        let Some(since) = self.since(now) else { return false };
        !self.has_others || now.since(since) > FIRST_LOOK || has_looked_at_all()
    }
}

#[cfg(test)]
mod tests;
