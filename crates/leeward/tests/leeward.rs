//! Tests of the program as it is built: its processes, started for real.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot set its stage may panic"
)]

#[path = "leeward/auth.rs"]
mod auth;
#[path = "leeward/autoscaler.rs"]
mod autoscaler;
#[path = "leeward/commands.rs"]
mod commands;
#[path = "leeward/container.rs"]
mod container;
#[path = "leeward/demo.rs"]
mod demo;
#[path = "leeward/desk.rs"]
mod desk;
#[path = "leeward/gate.rs"]
mod gate;
#[path = "leeward/inject.rs"]
mod inject;
#[path = "leeward/install.rs"]
mod install;
#[path = "leeward/instance.rs"]
mod instance;
#[path = "leeward/join.rs"]
mod join;
#[path = "leeward/lacking.rs"]
mod lacking;
#[path = "leeward/maintain.rs"]
mod maintain;
#[path = "leeward/nodes.rs"]
mod nodes;
#[path = "leeward/recover.rs"]
mod recover;
#[path = "leeward/region.rs"]
mod region;
#[path = "leeward/rendered.rs"]
mod rendered;
#[path = "leeward/rotation.rs"]
mod rotation;
#[path = "leeward/script.rs"]
mod script;
#[path = "leeward/secrets.rs"]
mod secrets;
#[path = "leeward/standby.rs"]
mod standby;
#[path = "leeward/switchover.rs"]
mod switchover;
