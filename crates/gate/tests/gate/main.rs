//! The gate as a process, between users and a writer, with an agent that answers as each test says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod agent;
mod cases;
mod stage;
mod writer;
