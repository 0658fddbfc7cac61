//! The documents that `text.rs` lists say what is true: their commands, SQL, programs and tables
//! are run or compared as they stand. Only addresses are replaced: the database's, and those that
//! two tests at once would fight over.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod conflicts;
mod cut_over;
mod examples;
mod guide;
mod handlers;
mod moves;
mod process;
mod runs;
mod tables;
mod text;

#[path = "../../../docs/examples/trip.rs"]
#[allow(unreachable_pub, reason = "as an application has it")]
mod trip;
