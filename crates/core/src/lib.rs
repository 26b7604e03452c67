//! Pure decisions: lease, failover, routing, replication, planning. No IO, no clock, no async.
