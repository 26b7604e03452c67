//! The protocol as a model: where it begins, what can happen, what must always hold and what has to happen at all.

use stateright::{Model, Property};

use crate::{
    agent::Rules,
    mutant::Cheats,
    place::Place,
    state::{Fault, Firm, State},
    step::{Action, Decisions},
    time::Bounds,
};

/// The protocol with these lengths, without what is taken away.
#[derive(Debug)]
pub(crate) struct Protocol {
    rules: Rules,
    decisions: Decisions,
}

/// What must always hold, with the fault that says that it does not.
pub(crate) const ALWAYS: [(&str, Fault); 5] = [
    ("one region writes", Fault::TwoRegions),
    ("one agent of a region grants", Fault::TwoHolders),
    ("writes are in the order of the epochs", Fault::Order),
    ("epochs only grow", Fault::Epoch),
    ("generations only grow", Fault::Generation),
];

impl Protocol {
    /// The protocol.
    pub(crate) fn new(bounds: Bounds, cheats: Cheats) -> Self {
        let rules = Rules {
            ticks: bounds.ticks,
            restarts: bounds.restarts,
            cheats,
        };
        Self {
            rules,
            decisions: Decisions::default(),
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fault.is_some() {
            return;
        }
        let shown = |place| {
            let off = if state.at(place).ahead { 0 } else { 2 };
            [1].into_iter().chain((self.rules.ticks.drift > 0).then_some(off))
        };
        for west in shown(Place::West) {
            actions.extend(shown(Place::East).map(|east| Action::Tick(west, east)));
        }
        for place in Place::BOTH {
            let of = [
                Action::Renew,
                Action::Arrive,
                Action::Answer,
                Action::GiveUp,
                Action::ArriveLate,
                Action::Restart,
                Action::Observe,
                Action::Decide,
                Action::Ask,
                Action::Cancel,
                Action::Step,
                Action::Commit,
            ];
            actions.extend(of.map(|action| action(place)));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        state.after(action, &self.rules, &self.decisions)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ALWAYS[0].0, |_, state: &State| state.fault != Some(ALWAYS[0].1)),
            Property::always(ALWAYS[1].0, |_, state: &State| state.fault != Some(ALWAYS[1].1)),
            Property::always(ALWAYS[2].0, |_, state: &State| state.fault != Some(ALWAYS[2].1)),
            Property::always(ALWAYS[3].0, |_, state: &State| state.fault != Some(ALWAYS[3].1)),
            Property::always(ALWAYS[4].0, |_, state: &State| state.fault != Some(ALWAYS[4].1)),
            Property::sometimes("a lost region is taken over from", |_, state: &State| {
                state.operation.is_some_and(|o| !o.planned && !o.after_revoking) && writes(state)
            }),
            Property::sometimes("a switchover is completed by release", |_, state: &State| {
                state.operation.is_some_and(|o| o.planned) && writes(state)
            }),
            Property::sometimes("a switchover is completed by waiting", |_, state: &State| {
                state.operation.is_some_and(|o| o.after_revoking) && writes(state)
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.is_followed()
    }
}

/// Whether the region that the operation is for writes.
fn writes(state: &State) -> bool {
    let to = state.active();
    state.owner == to && state.hold == Firm::Held && state.at(to).writes().any(|epoch| epoch == 0)
}
