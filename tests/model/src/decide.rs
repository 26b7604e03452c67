//! What the core decides in a region: the next plan, or the step of an operation that is this region's turn. A decision becomes a
//! [`Flight`].
//!
//! An agent reads plan, role and journal and decides in one move. Deciding on an older copy would differ only in what the decision
//! compares, and that is what the flight goes on to hold while it is under way.

use std::collections::{BTreeMap, BTreeSet};

use leeward_core::{
    app::App,
    check::check,
    execute::{self, Mode},
    handover,
    lease::{Hold, Lease, Role, Sight, Timing},
    name::Generation,
    operation::{self, Journal, Kind, Request, Step, StepName, StepRecord},
    plan::{Change, Commit, Expect, Plan, Snapshot, Versioned, next},
    report::{AppReport, PointReport, RoleReport, Seen as Heard},
    votes::WITNESS,
};

use crate::{
    mutant::{Cheat, Cheats},
    place::{FRESH, Place, app, distance, epoch, revision, role_key},
    state::{Flight, Operation, Seen, State},
    time::{ago, now},
};

/// The plan's generation, whatever it is.
const GENERATION: Generation = Generation(100);
/// Every operation is called so.
const OPERATION: &str = "o";

/// What is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Known {
    owner: Place,
    hold: crate::state::Firm,
    operation: Option<Operation>,
}

/// What a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    /// Nothing.
    Nothing,
    /// A switchover to the other region.
    Switchover,
    /// That the switchover that is under way is called off.
    Cancel,
}

/// What a region does of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits for its writers to end.
    Quiesce,
    /// It closes what it granted, and gives the role back.
    Release(Option<Flight>),
    /// It takes the role, unless there is something to wait for.
    Take(Option<Flight>),
    /// What it does was done.
    Done(StepName),
}

impl Known {
    pub(crate) fn of(state: &State) -> Self {
        Self {
            owner: state.owner,
            hold: state.hold,
            operation: state.operation,
        }
    }

    fn active(&self) -> Place {
        self.operation.map_or(self.owner, |operation| operation.to)
    }

    fn role(&self) -> Role {
        Role {
            hold: self.hold.into(),
            // Data is not looked at here: the other region always has it.
            in_sync: [self.owner.other().name().clone()].into(),
            ..Role::held(self.owner.name().clone(), epoch(0))
        }
    }

    fn roles(&self) -> BTreeMap<leeward_core::name::RoleKey, Versioned<Role>> {
        let role = Versioned {
            value: self.role(),
            revision: FRESH,
        };
        BTreeMap::from([(role_key().clone(), role)])
    }

    fn plan(&self) -> Plan {
        Plan {
            generation: GENERATION,
            app: app().key.clone(),
            active: self.active().name().clone(),
            operation: self.operation.map(|operation| full(&operation)),
            // What ended before decides nothing.
            finished: None,
        }
    }

    fn journal(&self) -> Journal {
        let done = self.operation.map_or(0, |operation| usize::from(operation.done));
        let steps = self.operation.map(|operation| steps(operation.kind()));
        let record = || StepRecord {
            started_ms: 0,
            ended_ms: Some(0),
            trouble: None,
            point_ms: None,
        };
        let names = steps.unwrap_or_default().iter().take(done);
        names.map(|name| (*name, record())).collect()
    }

    /// What the workloads of a region are to do.
    pub(crate) fn serves(&self, me: Place) -> bool {
        let mode = execute::mode(app(), Some(&self.plan()), &self.roles(), &self.journal(), me.name());
        matches!(mode, Mode::Serve { .. })
    }

    /// What the planner of `me` wants to commit, by what it saw of the leases. The other region counts as not seen by `me` and by the
    /// witness all the time, unless a person asks for a move there: votes come on top of the waits, and nothing may rest on them.
    pub(crate) fn plans(&self, me: Place, sight: Option<Seen>, asked: Asked, timing: &Timing) -> Option<Commit> {
        let other = me.other();
        // Its own lease it has, or it would be for the other one to decide.
        let mine = Seen {
            fresh: true,
            sealed: false,
            age: 0,
        };
        let seen = [(me, Some(mine)), (other, sight)];
        let leases = seen
            .into_iter()
            .filter_map(|(place, seen)| Some((place.name().clone(), sighted(place, seen?))))
            .collect();
        let mut voters = BTreeSet::from([me.name().to_string(), WITNESS.to_owned()]);
        // Nothing begins towards a region that is missed.
        if asked == Asked::Switchover {
            voters.clear();
        }
        let unseen_by = BTreeMap::from([(other.name().clone(), voters)]);
        let request = Request {
            id: OPERATION.into(),
            kind: Kind::Switchover,
            to: self.active().other().name().clone(),
            asked_ms: 0,
            accept_loss_ms: None,
            cancel: asked == Asked::Cancel,
            refused: None,
        };
        let request = Versioned {
            value: request,
            revision: FRESH,
        };
        // A person who calls off may have paused it before: then nothing ends by itself, and nothing but the call is decided on.
        let paused = (asked == Asked::Cancel).then(|| App {
            paused: true,
            ..app().clone()
        });
        let snapshot = Snapshot {
            app: paused.as_ref().unwrap_or(app()),
            plan: Some(Versioned {
                value: self.plan(),
                revision: FRESH,
            }),
            roles: self.roles(),
            leases: &leases,
            unseen_by: &unseen_by,
            holders: BTreeMap::new(),
            reports: Place::BOTH.map(|place| (place.name().clone(), ready())).into(),
            // A drain makes a switchover as a person asks for one.
            maintenance: &BTreeMap::new(),
            may_drain: false,
            requests: (asked != Asked::Nothing).then_some(request).into_iter().collect(),
            journal: self.journal(),
            unreadable: &[],
        };
        let commit = next(&snapshot, timing, now(), 0).0?;
        check(&commit, &snapshot, timing, now()).is_ok().then_some(commit)
    }

    /// What `me` does now of the operation.
    pub(crate) fn turn(&self, me: Place, cheats: Cheats) -> Option<Turn> {
        let plan = self.plan();
        let mut roles = self.roles();
        let mut journal = self.journal();
        let operation = self.operation?;
        if cheats.has(Cheat::RevokingIsTaken) && operation.planned && operation.to == me && operation.done < 3 {
            journal = Self {
                operation: Some(Operation { done: 3, ..operation }),
                ..*self
            }
            .journal();
            roles.values_mut().for_each(|role| role.value.hold = Hold::Released);
        }
        let (operation, step) = execute::step(Some(&plan), &journal, me.name())?;
        Some(match step.name {
            StepName::Quiesce => Turn::Quiesce,
            StepName::Release => match handover::release(&roles, FRESH, operation) {
                None => Turn::Done(StepName::Release),
                commit => Turn::Release(commit.as_ref().map(flight)),
            },
            StepName::Take => match handover::take(&roles, FRESH, operation) {
                Ok(None) => Turn::Done(StepName::Take),
                commit => Turn::Take(commit.ok().flatten().as_ref().map(flight)),
            },
            // What is done with data is not in the model, and counts as done with the step before.
            name => Turn::Done(name),
        })
    }

    /// Whether `operation` would have `me` close what it granted before it gives the role back.
    pub(crate) fn closes(&self) -> bool {
        let operation = self.operation.map(|operation| full(&operation));
        operation.is_some_and(|operation| handover::to_revoke(&self.roles(), &operation).next().is_some())
    }
}

/// A decision as the state holds it.
pub(crate) fn flight(commit: &Commit) -> Flight {
    let mut flight = Flight {
        plan: None,
        role: None,
        lease: None,
        seals: None,
        operation: None,
        moves: None,
    };
    for expect in &commit.expects {
        match expect {
            Expect::Plan(revision) => flight.plan = Some(*revision == FRESH),
            Expect::Role(_, revision) => flight.role = Some(*revision == FRESH),
            Expect::Lease(_, revision) => flight.lease = Some(*revision == FRESH),
            // There is always a person who asks again.
            Expect::Request(..) => {}
            // Nothing is drained here.
            Expect::Maintenance(..) => {}
        }
    }
    for change in &commit.changes {
        match change {
            Change::Plan(plan) => flight.operation = Some(plan.operation.as_ref().map(short)),
            Change::Role(_, role) => {
                flight.moves = Some((Place::of(&role.owner), role.hold.into(), distance(role.epoch)));
            }
            Change::Seal(cluster) => flight.seals = Some(Place::of(cluster)),
            Change::Answer(_) => {}
        }
    }
    flight
}

pub(crate) fn sighted(place: Place, seen: Seen) -> Sight {
    Sight {
        lease: lease(place, false, seen.sealed),
        revision: revision(seen.fresh),
        first_seen: ago(seen.age),
    }
}

/// A lease of the agent of now, or of one before it.
pub(crate) fn lease(place: Place, mine: bool, sealed: bool) -> Lease {
    Lease {
        cluster: place.name().clone(),
        holder: if mine { AGENT.to_owned() } else { "before".to_owned() },
        sequence: 1,
        sealed,
    }
}

/// The agent of now.
pub(crate) const AGENT: &str = "now";

/// A region with nothing missing for a start.
fn ready() -> Heard<AppReport> {
    let point = PointReport {
        epoch: epoch(0),
        sequence: 1,
        source_ms: 0,
    };
    let role = RoleReport {
        point: Some(point),
        ..RoleReport::default()
    };
    Heard {
        value: AppReport {
            roles: BTreeMap::from([(role_key().role.clone(), role)]),
            ..AppReport::default()
        },
        age: std::time::Duration::ZERO,
    }
}

/// The steps of an operation with roles, as `StepName::of` in the core has them.
fn steps(kind: Kind) -> &'static [StepName] {
    use StepName::*;
    match kind {
        Kind::Failover => &[Promote, Start],
        Kind::Switchover => &[Quiesce, LastPoint, Release, Take, Promote, Start],
    }
}

fn full(operation: &Operation) -> operation::Operation {
    let step = |name: &StepName| {
        let source = matches!(name, StepName::Quiesce | StepName::LastPoint | StepName::Release);
        let place = if source { operation.from() } else { operation.to };
        Step {
            name: *name,
            cluster: place.name().clone(),
        }
    };
    operation::Operation {
        id: OPERATION.into(),
        kind: operation.kind(),
        from: operation.from().name().clone(),
        to: operation.to.name().clone(),
        epoch: epoch(operation.epoch),
        began_ms: 0,
        decided_ms: 0,
        steps: steps(operation.kind()).iter().map(step).collect(),
        accepted_loss_ms: None,
    }
}

/// What the state keeps. The steps of a failover are about data only, so all of them are done.
fn short(operation: &operation::Operation) -> Operation {
    let planned = operation.kind == Kind::Switchover;
    Operation {
        planned,
        to: Place::of(&operation.to),
        epoch: distance(operation.epoch),
        done: if planned { 0 } else { steps(Kind::Failover).len() as u8 },
        after_revoking: false,
    }
}
