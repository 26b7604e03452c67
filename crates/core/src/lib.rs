//! Pure decisions: lease, failover, routing, replication, planning.
//!
//! Nothing here performs IO, reads a clock, draws randomness, logs or is async: time and randomness are arguments, so
//! that every rule can be tested by a table and replayed by a simulator.

pub mod app;
pub mod capacity;
pub mod check;
pub mod execute;
pub mod gates;
pub mod handover;
pub mod holder;
pub mod in_sync;
pub mod incarnation;
pub mod lease;
pub mod maintenance;
pub mod moves;
pub mod name;
pub mod operation;
pub mod plan;
pub mod quantity;
pub mod replica;
pub mod report;
pub mod routing;
#[cfg(test)]
mod samples;
pub mod votes;
