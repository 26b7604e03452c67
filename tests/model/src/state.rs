//! What is in the quorum, in each region and on the way between them at one instant.
//!
//! Invariant: nothing in it only grows. A revision is kept as whether it is still the newest, an epoch as its distance from the role's, an
//! instant as a number of ticks, and a generation not at all: a plan that was read at the newest revision is followed by the next one.

use std::hash::{Hash, Hasher};

use leeward_core::{lease::Hold, operation::Kind};

use crate::place::{Distance, Place};

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// Who has the role.
    pub(crate) owner: Place,
    /// How firmly.
    pub(crate) hold: Firm,
    /// The plan's operation; the region that it is for is the active one, without one it is the owner.
    pub(crate) operation: Option<Operation>,
    /// The regions, west first.
    pub(crate) regions: [Region; 2],
    /// What must not happen and did.
    pub(crate) fault: Option<Fault>,
}

/// [`Hold`], which has no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Firm {
    /// See [`Hold::Held`].
    Held,
    /// See [`Hold::Revoking`].
    Revoking,
    /// See [`Hold::Released`].
    Released,
}

/// A failover or a switchover; where it comes from is the other region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Operation {
    /// Whether the old region takes part.
    pub(crate) planned: bool,
    /// The region that it moves to.
    pub(crate) to: Place,
    /// The epoch that the role gets.
    pub(crate) epoch: Distance,
    /// How many of its steps the journal says are done.
    pub(crate) done: u8,
    /// A failover whose source had been asked to give its role back.
    pub(crate) after_revoking: bool,
}

/// One region. All ages and rests are on its own clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Region {
    /// Whether its clock is one drift ahead of where it can be.
    pub(crate) ahead: bool,
    /// Its lease in the quorum.
    pub(crate) lease: Option<Lease>,
    /// The renewal that its agent waits for.
    pub(crate) call: Option<Call>,
    /// Whether a renewal that an agent sent before it died may still arrive.
    pub(crate) stray: bool,
    /// Whether the agent has a lease that it renewed, and whether that is still the newest.
    pub(crate) held: Option<bool>,
    /// What the agent was granted last.
    pub(crate) grant: Option<Grant>,
    /// What the agent before it was granted and may have passed on to gates.
    pub(crate) old_grant: Option<Grant>,
    /// A request that was let in and may still write: at which epoch, for how many ticks of true time.
    pub(crate) under_way: Option<(Distance, u8)>,
    /// Whether its writers were seen to have ended.
    pub(crate) stopped: bool,
    /// The epochs that the agent gave back.
    pub(crate) revoked: Revoked,
    /// What the agent saw of the other region's lease.
    pub(crate) sight: Option<Seen>,
    /// What the agent saw of its own region's lease, while another agent's.
    pub(crate) own_sight: Option<Seen>,
    /// The decision that it sent and that may still arrive.
    pub(crate) flight: Option<Flight>,
    /// The highest epoch at which it may have written.
    pub(crate) wrote: Option<Distance>,
}

/// Epochs that were given back: bit `n` for the one that is `n` below the role's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Revoked(u8);

impl Revoked {
    /// With the role's epoch of now.
    pub(crate) fn with_newest(self) -> Self {
        Self(self.0 | 1)
    }

    /// Whether an epoch is among them.
    pub(crate) fn has(self, epoch: Distance) -> bool {
        self.kept(|given_back| *given_back == epoch) != Self(0)
    }

    /// Those that are to be kept.
    pub(crate) fn kept(self, keep: impl Fn(&Distance) -> bool) -> Self {
        let bits = (0..8_i8).filter(|n| keep(&-n)).map(|n| self.0 & (1 << n));
        Self(bits.fold(0, |all, bit| all | bit))
    }

    /// The role's epoch grows. What is further back than that is not followed.
    pub(crate) fn further(self, by: Distance) -> Self {
        Self(self.0.checked_shl(by.max(0).unsigned_abs().into()).unwrap_or(0))
    }
}

/// A region's lease in the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    /// Whether the agent of now holds it, not one before it.
    pub(crate) mine: bool,
    /// Whether it was taken.
    pub(crate) sealed: bool,
}

/// A renewal on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    /// How long ago it was sent.
    pub(crate) age: u8,
    /// Before it was applied: whether the lease is still the one that it replaces. After: whether the lease is still this one.
    pub(crate) fresh: bool,
    /// Once applied, the epoch that it read as held by its region, if one.
    pub(crate) applied: Option<Option<Distance>>,
}

/// What a renewal granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    /// For which epoch.
    pub(crate) epoch: Distance,
    /// For how long requests are let in.
    pub(crate) admit: u8,
    /// For how long answers leave.
    pub(crate) answer: u8,
}

/// What was seen of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// Whether it is still the newest.
    pub(crate) fresh: bool,
    /// Whether it was sealed.
    pub(crate) sealed: bool,
    /// Since when it was seen.
    pub(crate) age: u8,
}

/// A decision on its way: what it compares, as whether that is still so, and what it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    /// The plan that it was made on.
    pub(crate) plan: Option<bool>,
    /// The role that it was made on.
    pub(crate) role: Option<bool>,
    /// The lease that was waited out.
    pub(crate) lease: Option<bool>,
    /// Whose lease it seals.
    pub(crate) seals: Option<Place>,
    /// The plan's next operation.
    pub(crate) operation: Option<Option<Operation>>,
    /// The role's next state.
    pub(crate) moves: Option<(Place, Firm, Distance)>,
}

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// Two regions may write at the same instant.
    TwoRegions,
    /// Two agents of a region, one of them dead, may let writers write at the same instant.
    TwoHolders,
    /// A region may write at a lower epoch than the other one may have written before.
    Order,
    /// An epoch went back, or stayed when the role went to another region.
    Epoch,
    /// A plan of an earlier generation took the place of a later one.
    Generation,
}

impl Operation {
    /// Where it moves the role from.
    pub(crate) fn from(&self) -> Place {
        self.to.other()
    }

    /// Everything but where it moves the role to.
    fn shape(&self) -> impl Hash + use<> {
        (self.planned, self.epoch, self.done, self.after_revoking)
    }

    /// As the core calls it.
    pub(crate) fn kind(&self) -> Kind {
        if self.planned { Kind::Switchover } else { Kind::Failover }
    }
}

impl From<Hold> for Firm {
    fn from(hold: Hold) -> Self {
        match hold {
            Hold::Held => Self::Held,
            Hold::Revoking => Self::Revoking,
            Hold::Released => Self::Released,
        }
    }
}

impl From<Firm> for Hold {
    fn from(firm: Firm) -> Self {
        match firm {
            Firm::Held => Self::Held,
            Firm::Revoking => Self::Revoking,
            Firm::Released => Self::Released,
        }
    }
}

impl State {
    /// West has the role, nobody has a lease yet.
    pub(crate) fn first() -> Self {
        Self {
            owner: Place::West,
            hold: Firm::Held,
            operation: None,
            regions: [Region::default(), Region::default()],
            fault: None,
        }
    }

    /// One region.
    pub(crate) fn at(&self, place: Place) -> &Region {
        &self.regions[place as usize]
    }

    pub(crate) fn at_mut(&mut self, place: Place) -> &mut Region {
        &mut self.regions[place as usize]
    }

    /// The region that the plan says is active.
    pub(crate) fn active(&self) -> Place {
        self.operation.map_or(self.owner, |operation| operation.to)
    }
}

/// The regions are alike, so that a state and the one with both in each other's place count as one.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let own = |operation: &Operation| (operation.to == self.owner, operation.shape());
        self.hold.hash(hasher);
        self.operation.as_ref().map(own).hash(hasher);
        self.fault.hash(hasher);
        for place in [self.owner, self.owner.other()] {
            let region = self.at(place);
            Region {
                flight: None,
                ..region.clone()
            }
            .hash(hasher);
            let Some(flight) = &region.flight else { continue };
            (flight.plan, flight.role, flight.lease).hash(hasher);
            flight.seals.map(|place| place == self.owner).hash(hasher);
            flight
                .operation
                .as_ref()
                .map(|operation| operation.as_ref().map(own))
                .hash(hasher);
            flight
                .moves
                .map(|(to, hold, epoch)| (to == self.owner, hold, epoch))
                .hash(hasher);
        }
    }
}
