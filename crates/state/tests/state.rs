//! Application state between the Kubernetes APIs of two local regions.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage may panic")]

#[path = "state/config.rs"]
mod config;
