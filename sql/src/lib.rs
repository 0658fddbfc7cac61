#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop at the first surprise"))]

pub mod contract;
pub mod fail;
pub mod query;
pub mod schema;

pub use schema::{RELEASE, ROLES, SCHEMA_VERSION};

/// The newest row format (`pgsaga.saga.format`) that this release's workers understand.
pub const FORMAT: i16 = 3;

/// An invariant of the schema: a query that returns one row for each place where it is broken.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// The file's name, which says the rule.
    pub name: &'static str,
    /// The query. Its columns are `gid` and `found`, both text. `gid` is null where no single saga
    /// is at fault.
    pub sql: &'static str,
}

impl Check {
    const fn new(name: &'static str, sql: &'static str) -> Check {
        Check { name, sql }
    }
}

/// All invariants; `pgsaga doctor` runs them in one REPEATABLE READ snapshot.
pub const CHECKS: &[Check] = &include!(concat!(env!("OUT_DIR"), "/checks"));
