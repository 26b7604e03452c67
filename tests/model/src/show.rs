//! What happened, in the words of a person.

use crate::{
    place::Place,
    state::{Fault, Firm, Flight, State},
    step::Action,
};

/// One line for each thing that happened, with who may write after it.
pub(crate) fn history(path: &[(State, Option<Action>)]) -> Vec<String> {
    let mut epoch = 1;
    let steps = path.iter().zip(path.iter().skip(1));
    let lines = steps.enumerate().map(|(index, ((before, action), (after, _)))| {
        let Some(action) = action else { return String::new() };
        if let Action::Commit(place) = action {
            let moves = before.at(*place).flight.and_then(|flight| flight.moves);
            epoch += moves.map_or(0, |(.., by)| i64::from(by));
        }
        let said = said(before, after, action, epoch);
        let line = format!("{:>3}  {said:<72}{}", index + 1, writers(after, epoch));
        line.trim_end().to_owned()
    });
    let mut lines: Vec<_> = lines.collect();
    let fault = path.last().and_then(|(state, _)| state.fault);
    lines.extend(fault.map(|fault| format!("     {}", wrong(fault))));
    lines
}

fn said(before: &State, after: &State, action: &Action, epoch: i64) -> String {
    match action {
        Action::Tick(west, east) => {
            let clock = |place: Place, shown: &u8| match shown {
                0 => format!("; the clock of {place} stays behind"),
                1 => String::new(),
                _ => format!("; the clock of {place} runs ahead"),
            };
            format!("a tick{}{}", clock(Place::West, west), clock(Place::East, east))
        }
        Action::Renew(place) => format!("{place} sends a renewal"),
        Action::Arrive(place) if before.at(*place).call.is_some_and(|call| !call.fresh) => {
            format!("the renewal of {place} is refused")
        }
        Action::Arrive(place) => format!("the renewal of {place} is applied"),
        Action::Answer(place) => format!("{place} hears that its renewal was applied"),
        Action::GiveUp(place) => format!("{place} gives up waiting for the answer to its renewal"),
        Action::ArriveLate(place) => format!("the renewal of the dead agent of {place} is applied"),
        Action::Restart(place) => format!("the agent of {place} dies and another one starts"),
        Action::Observe(place) => format!("{place} looks at the leases"),
        Action::Ask(place) => format!("a person asks {place} for a switchover: it begins"),
        Action::Cancel(place) => format!("a person calls the switchover off: {place} sends the cancel"),
        Action::Decide(place) if before.operation.is_some_and(|operation| operation.done == 6) => {
            format!("{place} ends the operation")
        }
        Action::Decide(place) => format!("{place} decides to take over from {}", place.other()),
        Action::Step(place) => step(before, after, *place),
        Action::Commit(place) => match before.at(*place).flight {
            Some(flight) => committed(&flight, *place, epoch),
            None => format!("a decision of {place} is applied"),
        },
    }
}

fn step(before: &State, after: &State, place: Place) -> String {
    match before.operation.map(|operation| operation.done) {
        Some(0) if before.active() != place && !after.at(place).stopped => {
            format!("{place} notes that its writers have ended, which they have not")
        }
        Some(0) if before.active() != place => format!("{place} sees that its writers have ended"),
        Some(2) if before.hold == Firm::Revoking && before.active() != place => {
            let closes = match after.at(place).grant {
                Some(_) => "",
                None => "closes what it granted and ",
            };
            format!("{place} {closes}sends that it gives the role back")
        }
        Some(2) if before.active() != place => format!("{place} notes that it gave the role back"),
        _ if before.owner == place => format!("{place} notes that it has the role"),
        _ => format!("{place} sends that it takes the role"),
    }
}

fn committed(flight: &Flight, place: Place, epoch: i64) -> String {
    match (flight.seals, flight.moves) {
        (Some(from), Some(_)) => format!("{place} takes over from {from} at epoch {epoch}, in the quorum"),
        (None, Some((_, Firm::Released, _))) => format!("{place} has given the role back, in the quorum"),
        (None, Some((to, ..))) if flight.cancels() => {
            format!("the switchover is called off, in the quorum: {to} has the role")
        }
        (None, Some(_)) => format!("{place} has taken the role at epoch {epoch}, in the quorum"),
        _ => format!("a decision of {place} is applied"),
    }
}

fn writers(state: &State, epoch: i64) -> String {
    let writes = |place: Place| {
        let epochs = state
            .at(place)
            .writes()
            .map(move |distance| epoch + i64::from(distance));
        epochs.map(move |epoch| format!("{place} may write at {epoch}"))
    };
    let mut writers: Vec<_> = Place::BOTH.into_iter().flat_map(writes).collect();
    writers.dedup();
    writers.join(", ")
}

fn wrong(fault: Fault) -> &'static str {
    match fault {
        Fault::TwoRegions => "two regions may write",
        Fault::TwoHolders => "what a dead agent granted and what its successor grants are both in force",
        Fault::Order => "a region may write at a lower epoch than the other may have written before",
        Fault::Epoch => "the epoch went back, or stayed with another owner",
        Fault::Generation => "an earlier plan took the place of a later one",
    }
}
