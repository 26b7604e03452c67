//! Application state across clusters: configuration and volumes.
