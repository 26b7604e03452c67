//! Tests of a local region's parts against each other.

#[path = "local/api.rs"]
mod api;
#[path = "local/controllers.rs"]
mod controllers;
#[path = "local/kubectl.rs"]
mod kubectl;
#[path = "local/region.rs"]
mod region;
