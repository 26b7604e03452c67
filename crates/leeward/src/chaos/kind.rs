//! What goes wrong, and for how long: drawn from a seed. Pure.
//!
//! Kinds are dealt like cards: each one once, in an order that the seed gives, then all of them again.

use std::time::Duration;

use anyhow::bail;
use rand::{
    Rng,
    rngs::StdRng,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use serde::Serialize;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Every process of the active region is killed.
    KillActive,
    /// Every process of the standby is killed.
    KillStandby,
    /// Every process of the active region stands still past its lease.
    FreezeActive,
    /// Every process of the standby stands still.
    FreezeStandby,
    /// The node of the writer stands still, with all that runs on it.
    FreezeNode,
    /// The node of the writer is killed.
    KillNode,
    /// The active region is cut off from the standby and the witness.
    CutActive,
    /// The standby is cut off from the active region and the witness.
    CutStandby,
    /// The witness is cut off from both regions.
    CutWitness,
    /// The regions do not reach each other, the witness reaches both: nothing is mirrored.
    CutRegions,
    /// A member of the quorum stands still: it takes connections and answers nothing.
    FreezeMember,
    /// A member of the quorum is killed.
    KillMember,
    /// Two of the three members of the quorum are killed.
    KillMajority,
    /// The witness is killed with its member.
    KillWitness,
    /// The agent of the active region is killed alone, and its application runs on.
    KillAgent,
    /// The agent of the standby is killed alone.
    KillStandbyAgent,
    /// The Kubernetes API of the active region is killed alone.
    KillApi,
    /// The gate of the writer is killed alone.
    KillGate,
    /// The writer is killed alone.
    KillApp,
    /// The disk of the active region is full.
    FillActive,
    /// The disk of the standby is full.
    FillStandby,
    /// Nothing: a switchover.
    Switchover,
    /// A switchover that is called off while it runs, or too late.
    SwitchoverCancel,
    /// A switchover, and the source is killed while it runs.
    SwitchoverKillSource,
    /// A switchover, and the target is killed while it runs.
    SwitchoverKillTarget,
    /// A switchover, and the agent of the source is killed alone while it runs.
    SwitchoverKillAgent,
    /// A switchover, and the source is cut off while it runs.
    SwitchoverCutSource,
    /// The mirror stands still until the standby is not in sync any more, then the active region is lost: nobody may take over.
    StallThenKill,
}

impl Kind {
    /// Whether a switchover is asked for.
    pub(crate) fn is_switchover(self) -> bool {
        matches!(
            self,
            Self::Switchover
                | Self::SwitchoverCancel
                | Self::SwitchoverKillSource
                | Self::SwitchoverKillTarget
                | Self::SwitchoverKillAgent
                | Self::SwitchoverCutSource
        )
    }
}

/// All kinds.
pub(crate) const KINDS: [Kind; 28] = [
    Kind::KillActive,
    Kind::KillStandby,
    Kind::FreezeActive,
    Kind::FreezeStandby,
    Kind::FreezeNode,
    Kind::KillNode,
    Kind::CutActive,
    Kind::CutStandby,
    Kind::CutWitness,
    Kind::CutRegions,
    Kind::FreezeMember,
    Kind::KillMember,
    Kind::KillMajority,
    Kind::KillWitness,
    Kind::KillAgent,
    Kind::KillStandbyAgent,
    Kind::KillApi,
    Kind::KillGate,
    Kind::KillApp,
    Kind::FillActive,
    Kind::FillStandby,
    Kind::Switchover,
    Kind::SwitchoverCancel,
    Kind::SwitchoverKillSource,
    Kind::SwitchoverKillTarget,
    Kind::SwitchoverKillAgent,
    Kind::SwitchoverCutSource,
    Kind::StallThenKill,
];

/// Which ways of a link are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Both.
    Both,
    /// What the victim sends.
    Out,
    /// What the victim is sent.
    In,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// What.
    pub(crate) kind: Kind,
    /// Where links are cut: which ways.
    pub(crate) way: Way,
    /// Where links are cut: whether users are cut off from the victim too.
    pub(crate) users: bool,
    /// How long it lasts.
    #[serde(serialize_with = "milliseconds")]
    pub(crate) hold: Duration,
    /// For a switchover: how long after it was asked for.
    #[serde(serialize_with = "milliseconds")]
    pub(crate) delay: Duration,
    /// For whatever is chosen among several.
    pub(crate) pick: u8,
    /// What goes wrong at the same time, as far as it still can.
    pub(crate) also: Option<Kind>,
}

/// How often something else goes wrong at the same time.
const ALSO: f64 = 0.25;

impl Fault {
    /// What is more than one fault, or none, does not come on top of another one, and nothing comes on top of a loss that nobody may take
    /// over from.
    fn settled(mut self) -> Self {
        let alone = |kind: Kind| kind == Kind::StallThenKill || kind.is_switchover();
        if alone(self.kind) {
            self.also = None;
        }
        self.also = self.also.filter(|also| !alone(*also) && *also != self.kind);
        self
    }

    /// Whether it cuts links in the ways that were drawn.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(
            self.kind,
            Kind::CutActive | Kind::CutStandby | Kind::CutWitness | Kind::SwitchoverCutSource
        )
    }

    /// Which ways it cuts, for a person.
    pub(crate) fn ways(&self) -> String {
        let way = match self.way {
            Way::Both => "both ways",
            Way::Out => "what it sends",
            Way::In => "what it is sent",
        };
        format!(", {way}{}", if self.users { ", users too" } else { "" })
    }
}

fn milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Deals faults.
#[derive(Debug)]
pub(crate) struct Deck {
    random: StdRng,
    kinds: Vec<Kind>,
    rest: Vec<Kind>,
    ttl: Duration,
}

impl Deck {
    /// For leases of this length. With `only`: of the kinds alone that have this in their name.
    pub(crate) fn new(random: StdRng, ttl: Duration, only: Option<&str>) -> anyhow::Result<Self> {
        let name = |kind: &Kind| {
            serde_json::to_value(kind)
                .ok()
                .and_then(|name| name.as_str().map(str::to_owned))
        };
        let mut kinds = KINDS.to_vec();
        kinds.retain(|kind| only.is_none_or(|only| name(kind).is_some_and(|name| name.contains(only))));
        if kinds.is_empty() {
            let all: Vec<_> = KINDS.iter().filter_map(name).collect();
            bail!(
                "no fault has {:?} in its name; there are {}",
                only.unwrap_or_default(),
                all.join(", ")
            );
        }
        Ok(Self {
            random,
            kinds,
            rest: vec![],
            ttl,
        })
    }

    /// The next one.
    pub(crate) fn deal(&mut self) -> Fault {
        if self.rest.is_empty() {
            self.rest = self.kinds.clone();
            self.rest.shuffle(&mut self.random);
        }
        let kind = self.rest.pop().unwrap_or(Kind::Switchover);
        let random = &mut self.random;
        let up_to = |random: &mut StdRng, least: Duration, most: Duration| {
            Duration::from_millis(random.random_range(least.as_millis() as u64..=most.as_millis() as u64))
        };
        // Some end before anybody may take over, some only after.
        let hold = match kind {
            Kind::FreezeActive | Kind::StallThenKill => up_to(
                random,
                self.ttl + Duration::from_secs(2),
                self.ttl * 3 + Duration::from_secs(1),
            ),
            Kind::Switchover | Kind::SwitchoverCancel => Duration::ZERO,
            _ => up_to(random, Duration::from_millis(300), self.ttl * 3),
        };
        let way = match random.random_range(0..4) {
            0 => Way::Out,
            1 => Way::In,
            _ => Way::Both,
        };
        Fault {
            kind,
            way,
            users: random.random_bool(0.3),
            hold,
            delay: up_to(random, Duration::ZERO, Duration::from_millis(2_000)),
            pick: random.random(),
            also: random
                .random_bool(ALSO)
                .then(|| self.kinds.choose(random).copied())
                .flatten(),
        }
        .settled()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;

    use super::*;

    fn deck(seed: u64) -> Deck {
        Deck::new(StdRng::seed_from_u64(seed), Duration::from_secs(3), None).unwrap()
    }

    #[test]
    fn a_seed_deals_the_same_faults_again() {
        let (mut first, mut second, mut other) = (deck(7), deck(7), deck(8));
        let faults: Vec<_> = (0..60).map(|_| first.deal()).collect();
        assert_eq!(faults, (0..60).map(|_| second.deal()).collect::<Vec<_>>());
        assert_ne!(faults, (0..60).map(|_| other.deal()).collect::<Vec<_>>());
    }

    #[test]
    fn every_kind_comes_once_before_any_comes_again() {
        let mut deck = deck(1);
        for _ in 0..3 {
            let dealt: BTreeSet<Kind> = KINDS.iter().map(|_| deck.deal().kind).collect();
            assert_eq!(dealt.len(), KINDS.len());
        }
    }

    #[test]
    fn a_region_stands_still_past_its_lease() {
        let mut deck = deck(2);
        let frozen = std::iter::from_fn(|| Some(deck.deal())).filter(|fault| fault.kind == Kind::FreezeActive);
        for fault in frozen.take(20) {
            assert!(fault.hold > Duration::from_secs(4), "{fault:?}");
        }
    }
}
