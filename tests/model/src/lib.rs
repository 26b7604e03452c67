//! The lease, the epoch and the takeover, in every order in which things can happen: two regions, a quorum, clocks that run within the bound,
//! agents that die, stand still and go on, requests that are late, lost, or applied without an answer. What decides is the real core.
//!
//! ```text
//! place.rs     the two regions, and the core's names and numbers for what is in a state
//! time.rs      ticks, and how much is looked at
//! state.rs     what there is at one instant
//! step.rs      what can happen next, and who may write after it
//! agent.rs     an agent and its lease: renewals, sights, deaths
//! decide.rs    what the core decides: takeovers, switchovers, the steps of an operation
//! quorum.rs    what arrives is compared and applied
//! forget.rs    what makes no difference any more
//! model.rs     where it begins, what must always hold, what has to happen at all
//! mutant.rs    what is taken away, to see that it is noticed
//! run.rs, show.rs  one check, and what happened in words
//! ```
//!
//! Nothing is ever forced to happen, so that an agent that stands still, a region that is cut off from the quorum and a quorum that is away
//! need nothing of their own: whatever does not happen for long enough is that. The witness and the other region never see a region that is
//! to be taken over from: a vote only ever holds up a takeover. What a dead agent granted stays in force, at a gate, until it ends or the
//! gate's writer does.
//!
//! Not in the model: data and its mirror; more than one role; a machine that stands still for longer than `stop` between looking at its
//! clock and writing; an agent that lives on beside its successor.

mod agent;
mod decide;
mod forget;
mod memo;
mod model;
mod mutant;
mod place;
mod quorum;
mod run;
mod show;
mod state;
mod step;
mod time;

pub use mutant::{Cheat, Cheats, Mutant};
pub use run::{Found, Violation, check};
pub use time::{Bounds, Ticks};
