//! Upgrades: what older releases left in a database is finished by today's worker; workers next to
//! a schema or a row format that they do not know leave it alone, and say why. There is one
//! released schema so far, the baseline; the machinery is tested with a next version that is made
//! up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod beside;
mod cast;
mod dump;
mod each_version;
mod migrating;
mod next;
mod old;
mod refused;
