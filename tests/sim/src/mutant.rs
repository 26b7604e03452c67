//! What the core is cheated of: each stands for a safety check that somebody could take away. The real code is not changed; what it is
//! told, or what becomes of its answer, is.

/// One cheat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The taker does not add `drift` to its wait.
    TakerWithoutDrift,
    /// The holder does not stop `drift` early.
    HolderWithoutDrift,
    /// The holder counts from the answer to its renewal, not from before it was sent.
    HolderCountsFromAnswer,
    /// A renewal whose answer did not come counts as one.
    UnknownIsRenewed,
    /// The taker does not wait at all, once there are votes.
    TakerDoesNotWait,
    /// A takeover does not compare the lease that was waited out.
    LeaseNotCompared,
    /// A takeover neither seals the lease nor compares plan and role. Comparing one of the two would be enough, sealing would not: a switchover
    /// begins without touching the lease.
    NeitherSealedNorCompared,
    /// A cancel compares neither the roles that it leaves where they are nor what was asked for. Here comparing what was asked for would be enough:
    /// an agent that knows that it is too late says so before it takes a role.
    CancelledUncompared,
    /// The planner does not know that the application is paused.
    PauseIgnored,
    /// A decision does not compare the specification that it was taken on.
    SpecificationUncompared,
    /// A role that is being given back is granted.
    RevokingIsGranted,
    /// A role is given back in the quorum before the gate is closed.
    ReleasedBeforeClosed,
    /// A mirror's target takes points of a lower epoch.
    LowerEpochReceived,
    /// The last point of a switchover is taken while something may still be granted.
    LastPointBeforeClosed,
    /// The last point of a switchover is not waited for.
    LastPointNotWaitedFor,
    /// The writer goes on however old the last confirmed point is.
    BoundIgnored,
    /// With `Stop` the writer goes on without a standby as with `Serve`.
    StopGoesOn,
    /// A point counts from its confirmation, not from before it was taken.
    PointCountsFromConfirmation,
    /// The writer goes on without a standby before it is known that it was committed out.
    OutBeforeCommitted,
    /// A standby counts as in sync from when it is known that it was committed in.
    InAfterCommitted,
    /// A change of the set does not compare the holder's lease.
    SyncWithoutLease,
    /// What moves somewhere does not compare whether that cluster was taken out of service.
    MaintenanceUncompared,
    /// The target of a switchover takes the roles without comparing the plan, and takes the roles that a renewal reads for what goes with the plan
    /// that it knows. One of the two would be enough.
    TakenForAnyPlan,
    /// A role is given back while a gate may be open.
    ReleasedBeforeGatesClosed,
    /// A restarted agent takes no gate that its predecessor granted for open.
    PredecessorsGatesForgotten,
    /// An agent that has held the lease takes no gate for open that another agent of its region granted since.
    OnceHolderAlwaysHolder,
    /// Another pod is granted while the first one's grant lasts.
    AnyPodIsGranted,
    /// A gate is granted as far ahead as the lease goes, whatever the rpo.
    GateGrantedWithoutEnd,
    /// The roles that a renewal reads are taken for what goes with the plan that is known.
    RolesWithoutTheirPlan,
    /// The planner takes no region to lack anything.
    AnyoneIsReady,
    /// A point that found no room is confirmed.
    ConfirmedThoughFull,
    /// A write that found no room is acknowledged.
    AcknowledgedThoughFull,
    /// The planner takes every standby for one that is in sync.
    AnyoneIsInSync,
    /// What only a returning region has is not put aside.
    NothingPutAside,
    /// The point before goes before it is known that there is room for the next one.
    PointGoesBeforeNext,
    /// An edge asks the region that the plan makes the active one, not the one that has the role.
    EdgeAsksThePlan,
    /// An edge takes a table only if it is of a newer plan.
    EdgeTakesNewerPlansOnly,
    /// A promotion that is run again puts its point in the volume's place again.
    PromotedAnew,
    /// A step is done only for the agent that sent its commit: one that finds it applied waits for ever.
    DoneByItsOwnCommitOnly,
    /// The planner does not compare the plan that it goes on from.
    PlannerForgetsThePlan,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 40] = [
        Self::TakerWithoutDrift,
        Self::HolderWithoutDrift,
        Self::HolderCountsFromAnswer,
        Self::UnknownIsRenewed,
        Self::TakerDoesNotWait,
        Self::LeaseNotCompared,
        Self::NeitherSealedNorCompared,
        Self::CancelledUncompared,
        Self::PauseIgnored,
        Self::SpecificationUncompared,
        Self::RevokingIsGranted,
        Self::ReleasedBeforeClosed,
        Self::LowerEpochReceived,
        Self::LastPointNotWaitedFor,
        Self::LastPointBeforeClosed,
        Self::BoundIgnored,
        Self::StopGoesOn,
        Self::PointCountsFromConfirmation,
        Self::OutBeforeCommitted,
        Self::InAfterCommitted,
        Self::SyncWithoutLease,
        Self::TakenForAnyPlan,
        Self::MaintenanceUncompared,
        Self::ReleasedBeforeGatesClosed,
        Self::PredecessorsGatesForgotten,
        Self::OnceHolderAlwaysHolder,
        Self::AnyPodIsGranted,
        Self::GateGrantedWithoutEnd,
        Self::RolesWithoutTheirPlan,
        Self::AnyoneIsReady,
        Self::ConfirmedThoughFull,
        Self::AcknowledgedThoughFull,
        Self::AnyoneIsInSync,
        Self::NothingPutAside,
        Self::PointGoesBeforeNext,
        Self::EdgeAsksThePlan,
        Self::EdgeTakesNewerPlansOnly,
        Self::PromotedAnew,
        Self::DoneByItsOwnCommitOnly,
        Self::PlannerForgetsThePlan,
    ];
    /// Whether it is looked for where steps are cut short and done twice, not where everything goes wrong.
    pub fn is_of_steps(self) -> bool {
        matches!(self, Self::PromotedAnew | Self::DoneByItsOwnCommitOnly)
    }
}
