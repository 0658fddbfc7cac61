#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop at the first surprise"))]

mod check;
pub mod contract;
mod describe;
pub mod fail;
pub mod query;
pub mod schema;

pub use check::Check;
pub use describe::{Described, describe, grant};
pub use schema::{RELEASE, ROLES, SCHEMA_VERSION};

/// The newest row format (`pgsaga.saga.format`) that this release's workers understand.
pub const FORMAT: i16 = 1;

/// All invariants; `pgsaga doctor` runs them in one REPEATABLE READ snapshot.
pub const CHECKS: &[Check] = &include!(concat!(env!("OUT_DIR"), "/checks"));
