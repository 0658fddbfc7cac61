//! A migration as a script, for databases where only a person may change the schema.

use super::apply::steps;
use super::{HomeChange, RELEASE, ROLES};

/// Refuses the script on a database that it was not printed for: `pgsaga.migrate_from` says the
/// version that the script starts from.
const GUARD: &str = include_str!("../../guard.sql");

/// All that `pgsaga migrate` would run on a database at version `from`, with what it records, so
/// that a later `pgsaga migrate` goes on from there. A script cannot compare functions, so it has
/// all of them.
pub fn script(from: i64, skip_roles: bool, home: &HomeChange) -> String {
    // Better an error than everybody queueing behind a lock that does not come.
    let mut script = String::from("set lock_timeout = '10s';\n");
    if !skip_roles {
        script.push_str(ROLES);
    }
    script.push_str(&format!("\nset role pgsaga_owner;\nset pgsaga.migrate_from = '{from}';\n{GUARD}"));
    for step in steps(&RELEASE, from, |_, _| true) {
        script.push_str(&format!("\n-- {}\n{}", step.kind, step.sql));
    }
    // A new database is one of this cluster, as in `apply`.
    let home = HomeChange { adopts: home.adopts || from == 0, ..home.clone() };
    script.push_str(&home.script());
    script.push_str("\nreset role;\nreset pgsaga.migrate_from;\nreset lock_timeout;\n");
    script
}
