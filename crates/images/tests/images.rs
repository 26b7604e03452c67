//! The registry over real sockets: its protocol, copies between regions, repair, and packing.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage may panic")]

#[path = "images/harness.rs"]
mod harness;
#[path = "images/packing.rs"]
mod packing;
#[path = "images/protocol.rs"]
mod protocol;
#[path = "images/regions.rs"]
mod regions;
