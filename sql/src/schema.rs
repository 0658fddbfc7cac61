//! The schema of a release: the numbered versions of `sql/schema` and the functions of
//! `sql/functions`.
//!
//! Both share one line of numbers. A number is a file of `sql/schema`, or a change of functions
//! that name the number in their first line, or both. `pgsaga.migration` has a row for each. A
//! database at a higher number than a release knows belongs to a newer release: an older `pgsaga
//! migrate` changes nothing in it.
//!
//! `pgsaga migrate` runs before the workers of a new release start, so workers of the release
//! before run beside the new schema for a while. The name of a number says whether they may: beside
//! `expand_…` they go on, since all their statements work and newer workers write nothing that
//! means something else to them (such rows have a newer `format`). Beside `contract_…` they claim
//! nothing more and wait to be replaced. A worker reads the names from `pgsaga.migration`, so it
//! needs to know nothing else of the newer release.

mod apply;
mod found;
mod home;
mod script;

use std::collections::BTreeMap;

pub use apply::{ApplyError, Kind, apply, is_migrated};
pub use found::{Found, Misfit};
pub use home::{Home, HomeChange, environment};
pub use script::script;

/// A numbered file of `sql/schema`: forward only, never edited once released.
#[derive(Debug, Clone, Copy)]
pub struct SchemaVersion {
    /// The number of the file.
    pub version: i64,
    /// What the version adds, in a word or two, behind `expand_` or `contract_`.
    pub name: &'static str,
    /// The statements. They run as `pgsaga_owner`, before the functions are applied, and call none.
    pub sql: &'static str,
}

/// A file of `sql/functions`: a function with its rights, and the trigger that calls it.
///
/// The first line of the file says which number last changed the function, and whether workers of
/// the release before may go on beside the change: `-- version 7: expands` or `-- version 7:
/// contracts`. A function that contracted in an earlier number keeps that number: `-- version 9:
/// expands, contracted in 7`. A worker of number 6 that meets a database at 9 must stop.
///
/// `create or replace` changes neither arguments nor the type of the result: the file of such a
/// function drops it as it was, `drop function if exists pgsaga.f(text);`, before it creates it,
/// and contracts. The file of a function that is no longer needed stays, and only drops it.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// The name of the function and of its file.
    pub name: &'static str,
    /// The statements. Running them again changes nothing.
    pub sql: &'static str,
    /// The number that last changed the function.
    pub version: i64,
    /// The newest number whose change stops workers of the release before; 0 where none does.
    pub contracted_in: i64,
}

impl Function {
    /// Reads the first line of the file.
    ///
    /// # Panics
    /// When the first line does not say the number and the kind of the change. For the functions of
    /// a release this is an error of the compiler.
    pub const fn new(name: &'static str, sql: &'static str) -> Function {
        let line = sql.as_bytes();
        assert!(
            starts_with(line, 0, b"-- version "),
            "the first line of a function's file must be: -- version N: expands, or contracts"
        );
        let (version, at) = number(line, b"-- version ".len());
        let contracted_in = if starts_with(line, at, b": contracts\n") {
            version
        } else if starts_with(line, at, b": expands\n") {
            0
        } else {
            let contracted = b": expands, contracted in ";
            assert!(
                starts_with(line, at, contracted),
                "a function's file must say `expands`, `contracts` or `expands, contracted in N`"
            );
            let (contracted_in, at) = number(line, at + contracted.len());
            assert!(starts_with(line, at, b"\n") && contracted_in < version, "no earlier number");
            contracted_in
        };
        Function { name, sql, version, contracted_in }
    }
}

const fn starts_with(text: &[u8], at: usize, prefix: &[u8]) -> bool {
    let mut i = 0;
    while i < prefix.len() {
        if at + i >= text.len() || text[at + i] != prefix[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// The number at this place, and the place behind it.
const fn number(text: &[u8], mut at: usize) -> (i64, usize) {
    let (start, mut number) = (at, 0);
    while at < text.len() && text[at].is_ascii_digit() {
        number = number * 10 + (text[at] - b'0') as i64;
        at += 1;
    }
    assert!(at > start && number > 0, "a version is a number from 1");
    (number, at)
}

/// What a release makes of a database.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    /// The files of `sql/schema`, ascending.
    pub versions: &'static [SchemaVersion],
    /// The files of `sql/functions`.
    pub functions: &'static [Function],
}

impl Release {
    /// The highest number of its files and functions.
    pub const fn version(&self) -> i64 {
        let mut newest = 0;
        let mut i = 0;
        while i < self.versions.len() {
            if self.versions[i].version > newest {
                newest = self.versions[i].version;
            }
            i += 1;
        }
        let mut i = 0;
        while i < self.functions.len() {
            if self.functions[i].version > newest {
                newest = self.functions[i].version;
            }
            i += 1;
        }
        newest
    }

    /// Every number with its name, as in `pgsaga.migration`.
    pub fn names(&self) -> BTreeMap<i64, &'static str> {
        let mut names = BTreeMap::new();
        for function in self.functions {
            names.entry(function.version).or_insert("expand_functions");
        }
        for function in self.functions.iter().filter(|function| function.contracted_in > 0) {
            names.insert(function.contracted_in, "contract_functions");
        }
        // A file speaks for the functions that change with it: see the tests below.
        names.extend(self.versions.iter().map(|file| (file.version, file.name)));
        names
    }
}

macro_rules! versions {
    ($($version:literal $name:literal $file:literal),* $(,)?) => {
        const VERSIONS: &[SchemaVersion] = &[$(SchemaVersion {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../schema/", $file)),
        }),*];
    };
}

versions! {
    1 "baseline" "0001_baseline.sql",
}

const FUNCTIONS: &[Function] = &include!(concat!(env!("OUT_DIR"), "/functions"));

/// What this release makes of a database.
pub const RELEASE: Release = Release { versions: VERSIONS, functions: FUNCTIONS };

/// The schema version that this release's statements are written for.
pub const SCHEMA_VERSION: i64 = RELEASE.version();

/// The roles, idempotent. Run before everything else, by a user who may create roles.
pub const ROLES: &str = include_str!("../roles.sql");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_whether_running_workers_may_go_on() {
        assert_eq!(VERSIONS[0].name, "baseline");
        for file in &VERSIONS[1..] {
            assert!(
                ["expand_", "contract_"].iter().any(|prefix| file.name.starts_with(prefix)),
                "{}: found the name {}; allowed: expand_… or contract_…",
                file.version,
                file.name
            );
            // The file's name hides what functions say of the same number.
            let contracts = FUNCTIONS.iter().any(|function| function.contracted_in == file.version);
            assert!(
                !contracts || file.name.starts_with("contract_"),
                "{}: found the name {}; allowed: contract_…, as a function of this version contracts",
                file.version,
                file.name
            );
        }
        assert!(VERSIONS.is_sorted_by(|one, next| one.version < next.version));
    }

    #[test]
    fn a_version_calls_no_function_since_functions_are_applied_after_it() {
        for file in VERSIONS {
            for Function { name, .. } in FUNCTIONS {
                assert!(!file.sql.contains(&format!("pgsaga.{name}(")), "{} calls {name}", file.version);
            }
        }
    }

    /// Of a function that is no longer there, the file stays and drops it.
    #[test]
    fn a_function_is_alone_in_its_file_has_a_fixed_search_path_and_is_not_for_everybody() {
        for Function { name, sql, .. } in FUNCTIONS {
            let creates =
                sql.matches("create function ").count() + sql.matches("create or replace function ").count();
            if creates == 0 {
                assert!(
                    sql.contains(&format!("\ndrop function if exists pgsaga.{name}(")),
                    "{name}: no function"
                );
                continue;
            }
            assert_eq!(creates, 1, "{name}: one function a file");
            for line in [
                &format!("\ncreate or replace function pgsaga.{name}("),
                "set search_path = pg_catalog, pg_temp",
                &format!("\nrevoke all on function pgsaga.{name} from public;\n"),
            ] {
                assert!(sql.contains(line), "{name}: {line:?} is missing");
            }
            assert!(!sql.contains("\ncreate trigger "), "{name}: allowed: create or replace trigger");
        }
    }

    #[test]
    fn the_first_line_of_a_function_says_its_version_and_what_stops_older_workers() {
        let head = |sql| {
            let function = Function::new("f", sql);
            (function.version, function.contracted_in)
        };
        assert_eq!(head("-- version 1: expands\n"), (1, 0));
        assert_eq!(head("-- version 12: contracts\n…"), (12, 12));
        assert_eq!(head("-- version 13: expands, contracted in 12\n…"), (13, 12));
        for wrong in [
            "create or replace function",
            "-- version : expands\n",
            "-- version 0: expands\n",
            "-- version 1: expands",
            "-- version 1: grows\n",
            "-- version 2: expands, contracted in 2\n",
            "-- version 2: expands, contracted in 1.\n",
        ] {
            assert!(std::panic::catch_unwind(|| Function::new("f", wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_contracted_stays_known_when_the_function_changes_again() {
        const RELEASE: Release = Release {
            versions: &[
                SchemaVersion { version: 1, name: "baseline", sql: "" },
                SchemaVersion { version: 4, name: "expand_more", sql: "" },
            ],
            functions: &[
                Function::new("f", "-- version 6: expands, contracted in 3\n"),
                Function::new("g", "-- version 4: expands\n"),
                Function::new("h", "-- version 6: contracts\n"),
                Function::new("i", "-- version 5: expands\n"),
            ],
        };
        assert_eq!(RELEASE.version(), 6);
        assert_eq!(
            Vec::from_iter(RELEASE.names()),
            [
                (1, "baseline"),
                (3, "contract_functions"),
                (4, "expand_more"),
                (5, "expand_functions"),
                (6, "contract_functions")
            ]
        );
    }
}
