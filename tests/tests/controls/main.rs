//! The list of negative controls is whole and true of today's source, and its runner can fail.
//!
//! Running the list takes twenty minutes, most of it building (`cargo run -p pgsaga-tests --bin
//! controls`). What runs with the ordinary tests is a sample: the end-to-end tests that say
//! "control" take a rule out of a statement and see it go wrong, and the planner's search finds
//! each of its 26 mutants.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod list;
mod runner;
