//! The compare-and-set store that leases, accepted specifications and decisions live in.
