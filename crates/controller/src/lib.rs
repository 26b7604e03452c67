//! The agent of a region, and the witness.
//!
//! Data flows one way: [`agent`] keeps a copy of the quorum ([`agent::follow`]), renews the region's lease
//! ([`agent::renew`]), exchanges reports with its peers ([`agent::exchange`]) and, in one region at a time, decides
//! ([`agent::lead`]). What is decided is executed for each application by [`protected_app`], which owns the workloads, the
//! mirror and the images of this cluster only; [`operation`] and [`cluster`] show it in the cluster's resources.
//! What decides is in `leeward-core`; nothing here makes a choice that a table could not test.

pub mod agent;
pub mod cache;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod edges;
pub mod events;
pub mod finalizer;
pub mod freezer;
pub mod gates;
pub mod holder;
pub mod inject;
pub mod metrics;
pub mod operation;
mod pace;
pub mod pass_on;
pub mod peer;
pub mod points;
pub mod protected_app;
pub mod quorum;
pub mod reach;
pub mod room;
mod route;
pub mod serve;
pub mod traces;
pub mod webhook;
pub mod witness;
