//! The agent of a region: reports, leader, execution of plans, one folder a resource kind.
