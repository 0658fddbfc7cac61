#![doc = include_str!("../README.md")]

pub mod fail;
pub mod query;

/// A migration: forward only, never edited once released.
///
/// A fleet is upgraded by `pgsaga migrate` first and new workers then, so for a while workers of the release before run next to
/// the new schema. From version 6 on a migration's name says what they do: `expand_…` promises that they may go on, since all
/// their statements work and nothing that newer workers write means something else to them (rows that do have a newer `format`);
/// next to `contract_…` they claim nothing more and wait to be replaced. A worker reads it from pgsaga.migration, without
/// knowing the migration itself.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its number; the schema's version is the newest applied.
    pub version: i64,
    /// What it adds, in a word or two.
    pub name: &'static str,
    /// The statements, run in one transaction as `pgsaga_owner`.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal $file:literal),* $(,)?) => {
        /// All migrations, ascending.
        pub const MIGRATIONS: &[Migration] = &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../migrations/", $file)),
        }),*];
    };
}

migrations! {
    1 "schema" "0001_schema.sql",
    2 "validation" "0002_validation.sql",
    3 "sagas_in_full" "0003_sagas_in_full.sql",
    4 "validation_in_full" "0004_validation_in_full.sql",
    5 "decisions" "0005_decisions.sql",
    6 "expand_status_behind_steps" "0006_expand_status_behind_steps.sql",
    7 "expand_retention" "0007_expand_retention.sql",
    8 "expand_plain_sagas" "0008_expand_plain_sagas.sql",
    9 "expand_numbers" "0009_expand_numbers.sql",
    10 "expand_named_participants" "0010_expand_named_participants.sql",
    11 "expand_decided_by" "0011_expand_decided_by.sql",
    12 "expand_reserved_query" "0012_expand_reserved_query.sql",
}

/// The schema version that this release's statements are written for.
pub const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// The newest row format (`pgsaga.saga.format`) that this release's workers understand.
pub const FORMAT: i16 = 3;

/// The roles, idempotent. Run before the migrations, by a user who may create roles.
pub const ROLES: &str = include_str!("../roles.sql");

/// The participant's barrier, idempotent. Run in each participant's own database.
pub const BARRIER: &str = include_str!("../barrier.sql");

/// An invariant of the schema: a query that returns one row for each place where it is broken.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// The file's name, which says the rule.
    pub name: &'static str,
    /// The query. Its columns are `gid` and `found`, both text. `gid` is null where no single saga
    /// is at fault.
    pub sql: &'static str,
}

macro_rules! checks {
    ($($file:literal),* $(,)?) => {
        /// All invariants; `pgsaga doctor` runs them in one REPEATABLE READ snapshot.
        pub const CHECKS: &[Check] = &[$(Check {
            name: $file,
            sql: include_str!(concat!("../checks/", $file, ".sql")),
        }),*];
    };
}

checks! {
    "aborted_sagas_do_not_succeed",
    "attempts_are_numbered_without_gap",
    "compensations_follow_the_reverse_order",
    "failed_sagas_are_undone",
    "history_folds_into_the_present",
    "no_task_of_a_finished_saga",
    "nothing_is_undone_after_the_pivot",
    "nothing_runs_again_after_success",
    "open_sagas_can_go_on",
    "one_unwind",
    "only_answers_override",
    "progress_is_what_the_history_says",
    "rows_can_be_read",
    "sequences_are_ahead",
    "steps_run_in_order",
    "stuck_sagas_have_a_reason",
    "succeeded_sagas_are_done",
    "tasks_do_not_multiply",
}

#[cfg(test)]
mod tests {
    use super::MIGRATIONS;

    #[test]
    fn a_migration_says_whether_running_workers_may_go_on() {
        // The first five are older than the rule.
        for migration in MIGRATIONS.iter().filter(|migration| migration.version > 5) {
            assert!(
                ["expand_", "contract_"].iter().any(|prefix| migration.name.starts_with(prefix)),
                "{}: found the name {}; allowed: expand_… or contract_…",
                migration.version,
                migration.name
            );
        }
    }
}
