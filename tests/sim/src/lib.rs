//! A seeded simulator: two regions and a witness, with the real core in them, on clocks, links, processes and disks that are made
//! up. What happens in a run follows from its seed alone, so a seed replays exactly.
//!
//! ```text
//! fault.rs     what goes wrong when: processes that die or stand still, links that are cut one way, a quorum that is away
//! script.rs    one operation, whose agents die at a chosen moment of a chosen step
//! table.rs     every moment of every step of every operation
//! protected.rs the application as a person asks for it
//! aimed.rs     faults at the moments at which they could do the most
//! maintain.rs  a person who takes a region out of service, and back
//! pause.rs     a person who pauses and resumes it
//! clock.rs     clocks that run off true time
//! world.rs     time, the processes and the order of events
//! committed.rs what the quorum has taken
//! data.rs      writes, and points on their way
//! disk.rs      disks that fill, and what an agent keeps on them
//! network.rs   messages: late, twice, in another order, or lost
//! quorum.rs    the store: linearizable, sometimes away
//! edge.rs      the edges, by the routing table that their agents build
//! replica.rs   the agents of a region, one or two at the same time
//! agent.rs     one region's agent: asks the core, sends what it says
//! pod.rs       a region's pods, each a writer behind a real gate's decisions
//! app.rs       the application and its volume, mirrored as points
//! client.rs    clients pinned to each region; their acknowledgements are the oracle
//! invariant/   what must always hold, one a file; looked at after each event
//! mutant.rs    what the core is cheated of, to see that the invariants notice
//! ```
//!
//! The assumptions are those of `docs/explanation/never-two-writers.md`: clocks run within the bound, and an answer leaves at the
//! instant at which the gate looked at its clock.

mod agent;
mod aimed;
mod app;
mod client;
mod clock;
mod committed;
mod data;
mod disk;
mod edge;
mod fault;
pub mod invariant;
mod maintain;
pub mod mutant;
mod network;
mod pause;
mod pod;
mod protected;
mod quorum;
mod replica;
pub mod script;
pub mod table;
mod world;

pub use invariant::Violation;
pub use mutant::Mutant;
pub use world::{Outcome, Run, run};
