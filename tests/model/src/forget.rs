//! What a state forgets because it cannot make a difference any more, so that there are few enough of them to look at all.

use crate::{
    agent::Rules,
    mutant::Cheat,
    place::{Distance, Place},
    state::{Call, Firm, Lease, Region, Seen, State},
};

/// Epochs further back than this are not followed.
const BACK: Distance = 3;

impl State {
    /// Forgets what cannot make a difference any more.
    pub(crate) fn normalise(&mut self, rules: &Rules) {
        let cheats = rules.cheats;
        // A takeover that rests on an older lease than the newest is refused, whenever it is decided.
        let old_counts = cheats.has(Cheat::LeaseNotCompared) || cheats.has(Cheat::TakerCountsFromStart);
        let (owner, hold) = (self.owner, self.hold);
        for place in Place::BOTH {
            let region = self.at_mut(place);
            let kept = |seen: &Seen| seen.fresh || old_counts;
            region.sight = region.sight.filter(kept).map(Seen::settled);
            // Sealed, it is nobody's.
            region.lease = region.lease.map(|lease| Lease {
                mine: lease.mine && !lease.sealed,
                ..lease
            });
            let another = region.lease.is_some_and(|lease| !lease.mine && !lease.sealed);
            region.own_sight = region.own_sight.filter(kept).filter(|_| another);
            region.flight = region.flight.filter(|flight| flight.applies(cheats));
            // The renewal of a dead agent is followed while its region has something to lose.
            region.stray &= owner == place;
            let may_be_granted = owner == place && hold != Firm::Released;
            let read = region.call.and_then(|call| call.applied.flatten());
            region.revoked = region
                .revoked
                .kept(|epoch| read == Some(*epoch) || (may_be_granted && *epoch == 0));
            region.held = match (region.held, region.call, region.lease) {
                // What it would read first is its own lease.
                (None, None, Some(lease)) if lease.mine && !lease.sealed => Some(true),
                (held, ..) => held,
            };
            region.call = region.call.map(|call| match call {
                // It grants nothing, however old it is.
                Call {
                    fresh: false,
                    applied: None,
                    ..
                }
                | Call {
                    applied: Some(None), ..
                } => Call { age: 0, ..call },
                _ => call,
            });
        }
        // What was written is kept while the other region might still write at a lower epoch.
        for place in Place::BOTH {
            let lowest = self.at(place.other()).epochs().min();
            let region = self.at_mut(place);
            region.wrote = region.wrote.filter(|wrote| lowest.is_some_and(|epoch| epoch < *wrote));
        }
    }

    /// Whether all epochs at which somebody may write are near enough to be followed.
    pub(crate) fn is_followed(&self) -> bool {
        self.regions
            .iter()
            .all(|region| region.epochs().all(|epoch| epoch >= -BACK))
    }
}

impl Region {
    /// The epochs at which it may write now or when the answer that is on its way comes.
    fn epochs(&self) -> impl Iterator<Item = Distance> {
        let grants = self.grant.into_iter().chain(self.old_grant).map(|grant| grant.epoch);
        let read = self.call.and_then(|call| call.applied.flatten());
        grants.chain(read).chain(self.under_way.map(|(epoch, _)| epoch))
    }
}

impl Seen {
    /// A sealed lease is over, however long ago it was seen.
    fn settled(self) -> Self {
        match self.sealed {
            true => Self { age: 0, ..self },
            false => self,
        }
    }
}
