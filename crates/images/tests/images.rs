//! The registry over real sockets: its protocol, copies between regions, repair, and packing.

#[path = "images/harness.rs"]
mod harness;
#[path = "images/packing.rs"]
mod packing;
#[path = "images/protocol.rs"]
mod protocol;
#[path = "images/regions.rs"]
mod regions;
