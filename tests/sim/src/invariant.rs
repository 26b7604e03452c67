//! What must always hold, one a file. Each looks at the world after an event and says what is wrong, in the words of a person.

mod bound;
mod copies;
mod epochs;
mod in_sync;
mod one_pod;
mod one_writer;
mod order;
mod paused;
mod points;
mod ready;
mod refused;
mod rest;
mod routed;
mod service;
mod written;

use crate::world::World;

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// When, in microseconds of real time since the run began.
    pub at: u64,
    /// What was seen.
    pub what: String,
}

/// What invariants remember from event to event.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    bound: bound::Memory,
    copies: copies::Memory,
    epochs: epochs::Memory,
    in_sync: in_sync::Memory,
    order: order::Memory,
    paused: paused::Memory,
    ready: ready::Memory,
    routed: routed::Memory,
    service: service::Memory,
}

/// Looks at what must hold at every instant.
pub(crate) fn at_every_event(world: &mut World) -> Result<(), Violation> {
    let mut memory = std::mem::take(&mut world.memory);
    let checked = one_writer::check(world)
        .and_then(|()| one_pod::check(world))
        .and_then(|()| epochs::check(world, &mut memory.epochs))
        .and_then(|()| order::check(world, &mut memory.order))
        .and_then(|()| bound::check(world, &mut memory.bound))
        .and_then(|()| paused::check(world, &mut memory.paused))
        .and_then(|()| ready::check(world, &mut memory.ready))
        .and_then(|()| service::check(world, &mut memory.service))
        .and_then(|()| points::check(world))
        .and_then(|()| in_sync::check(world, &mut memory.in_sync))
        .and_then(|()| copies::check(world, &mut memory.copies))
        .and_then(|()| routed::check(world, &mut memory.routed))
        .and_then(|()| refused::check(world));
    world.memory = memory;
    let violation = |(invariant, what)| Violation {
        invariant,
        at: world.now,
        what,
    };
    checked.map_err(violation)
}

/// Looks at what must hold once nothing goes wrong any more.
pub(crate) fn at_the_end(world: &World) -> Result<(), Violation> {
    let checked = rest::check(world).and_then(|()| written::check(world));
    checked.map_err(|(invariant, what)| Violation {
        invariant,
        at: world.now,
        what,
    })
}

type Checked = Result<(), (&'static str, String)>;
