//! Application state across clusters: configuration and volumes.

pub mod volumes;
