//! Tests of a local region's parts against each other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so by panicking, its helpers too"
)]

#[path = "local/api.rs"]
mod api;
#[path = "local/controllers.rs"]
mod controllers;
#[path = "local/crash.rs"]
mod crash;
#[path = "local/definitions.rs"]
mod definitions;
#[path = "local/deletes.rs"]
mod deletes;
#[path = "local/hostile.rs"]
mod hostile;
#[path = "local/kubectl.rs"]
mod kubectl;
#[path = "local/port_forward.rs"]
mod port_forward;
#[path = "local/region.rs"]
mod region;
#[path = "local/requests.rs"]
mod requests;
#[path = "local/watches.rs"]
mod watches;
