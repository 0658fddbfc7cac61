//! End-to-end tests: real worker processes, a real Postgres, scripted participants.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod atomic;
mod barrier;
mod bench;
mod claims;
mod cli;
mod commands;
mod compensation;
mod crash;
mod decisions;
mod dtm;
mod extremes;
mod fairness;
mod fences;
mod joins;
mod lease;
mod list;
mod locks;
mod metrics;
mod order;
mod pivot;
mod pooler;
mod producer;
mod queue;
mod races;
mod results;
mod retention;
mod roles;
mod schema;
mod session;
mod several;
mod show;
mod shutdown;
mod time;
mod wakeup;
