//! Edges, probes and applications in one process, on addresses that the system chooses.

// The lint spares test functions but not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "traffic/answers.rs"]
mod answers;
#[path = "traffic/fences.rs"]
mod fences;
#[path = "traffic/malformed.rs"]
mod malformed;
#[path = "traffic/retries.rs"]
mod retries;
#[path = "traffic/rig.rs"]
mod rig;
#[path = "traffic/tables.rs"]
mod tables;
