//! The store, whatever stands behind it: one suite for both drivers, then what only etcd can do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so by panicking, its helpers too"
)]

#[path = "quorum/conformance.rs"]
mod conformance;
#[path = "quorum/members.rs"]
mod members;
#[path = "quorum/recovered.rs"]
mod recovered;
#[path = "quorum/secured.rs"]
mod secured;
