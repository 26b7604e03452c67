//! Answers users from one immutable routing table: the HTTP edge and the health probes.
