//! Application state across clusters: configuration and volumes.

pub mod config;
pub mod volumes;
