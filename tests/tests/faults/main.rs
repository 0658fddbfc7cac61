//! Proof under faults: real processes that die at every boundary, a Postgres that crashes, a
//! network that lies. fsync is on for everything here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod chaos;
mod failover;
mod long;
mod points;
mod proxy;
mod traces;
