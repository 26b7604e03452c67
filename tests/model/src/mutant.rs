//! What the core is cheated of. The real code is not changed; what it is told, or what becomes of its answer, is.

/// One margin, comparison or order that could be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cheat {
    /// The holder does not stop a drift early.
    HolderWithoutDrift,
    /// Requests are let in until answers end.
    HolderWithoutStop,
    /// The taker does not wait a drift longer.
    TakerWithoutDrift,
    /// The taker does not wait.
    TakerDoesNotWait,
    /// The taker counts from when it began to look, not from its first sight of the last renewal.
    TakerCountsFromStart,
    /// The holder counts from the answer to its renewal.
    HolderCountsFromAnswer,
    /// A renewal whose answer did not come counts.
    UnknownIsRenewed,
    /// A takeover does not compare the lease.
    LeaseNotCompared,
    /// A takeover does not compare the role, and so its epoch.
    RoleNotCompared,
    /// A takeover does not compare the plan.
    PlanNotCompared,
    /// A takeover does not seal the lease.
    NotSealed,
    /// The role is given back while the agent still grants it.
    GrantsNotClosed,
    /// The role is given back while its writers run.
    WritersNotEnded,
    /// A role that is being given back is granted.
    RevokingIsGranted,
    /// A role that is being given back is taken.
    RevokingIsTaken,
    /// An agent that was started anew takes its predecessor's lease for its own.
    PredecessorsLeaseIsMine,
}

/// Some cheats at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cheats(u32);

impl Cheats {
    /// These.
    pub const fn of(cheats: &[Cheat]) -> Self {
        let (mut bits, mut next) = (0, 0);
        while next < cheats.len() {
            bits |= 1 << cheats[next] as u32;
            next += 1;
        }
        Self(bits)
    }

    pub(crate) fn has(self, cheat: Cheat) -> bool {
        self.0 & (1 << cheat as u32) != 0
    }
}

/// The protocol with something taken away.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// What it is called.
    pub name: &'static str,
    /// What is taken away.
    pub cheats: Cheats,
    /// Whether something else is enough without it.
    pub spare: bool,
}

const fn needed(name: &'static str, cheats: &[Cheat]) -> Mutant {
    Mutant {
        name,
        cheats: Cheats::of(cheats),
        spare: false,
    }
}

const fn spare(name: &'static str, cheats: &[Cheat]) -> Mutant {
    Mutant {
        spare: true,
        ..needed(name, cheats)
    }
}

use Cheat::*;

impl Mutant {
    /// All of them; the ones that something else is enough without come last.
    pub const ALL: &[Self] = &[
        needed("holder-without-drift", &[HolderWithoutDrift]),
        needed("holder-without-stop", &[HolderWithoutStop]),
        needed("taker-without-drift", &[TakerWithoutDrift]),
        needed("taker-does-not-wait", &[TakerDoesNotWait]),
        needed("taker-counts-from-start", &[TakerCountsFromStart]),
        needed("holder-counts-from-answer", &[HolderCountsFromAnswer]),
        needed("unknown-is-renewed", &[UnknownIsRenewed]),
        needed("lease-not-compared", &[LeaseNotCompared]),
        needed(
            "not-sealed-role-and-plan-not-compared",
            &[NotSealed, RoleNotCompared, PlanNotCompared],
        ),
        needed("grants-not-closed", &[GrantsNotClosed]),
        needed("writers-not-ended", &[WritersNotEnded]),
        needed("revoking-is-taken", &[RevokingIsTaken]),
        needed("predecessors-lease-is-mine", &[PredecessorsLeaseIsMine]),
        needed("revoking-is-granted", &[RevokingIsGranted]),
        needed("role-and-plan-not-compared", &[RoleNotCompared, PlanNotCompared]),
        spare("role-not-compared", &[RoleNotCompared]),
        spare("plan-not-compared", &[PlanNotCompared]),
        spare("not-sealed", &[NotSealed]),
        spare("not-sealed-role-not-compared", &[NotSealed, RoleNotCompared]),
        spare("not-sealed-plan-not-compared", &[NotSealed, PlanNotCompared]),
    ];
}
