#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop at the first surprise"))]

pub mod contract;
pub mod fail;

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

macro_rules! queries {
    ($($(#[$doc:meta])* $name:ident = $file:literal),* $(,)?) => {
        /// The statements, one file each.
        pub mod query {
            $($(#[$doc])* pub const $name: &str = include_str!(concat!("../queries/", $file, ".sql"));)*
            /// Every statement with its file's name, for tests that prepare and explain them.
            pub const ALL: &[(&str, &str)] = &[$(($file, $name)),*];
        }
    };
}

queries! {
    /// Asks for a sign of life.
    ALIVE = "alive",
    /// Removes a dead worker's row.
    BURY = "bury",
    /// Claims due tasks.
    CLAIM = "claim",
    /// Declares a silent worker dead.
    DECLARE_DEAD = "declare_dead",
    /// What a claim leaves out: steps of parallel sagas, and answers.
    DETAILS = "details",
    /// Drops a history partition of which no saga is left.
    DROP_HISTORY_PARTITION = "drop_history_partition",
    /// Gives unstarted tasks back.
    HAND_BACK = "hand_back",
    /// Raises a worker's counter and reads all counters.
    HEARTBEAT = "heartbeat",
    /// What a worker holds.
    HELD = "held",
    /// The history's partitions.
    HISTORY_PARTITIONS = "history_partitions",
    /// Asks producers to notify.
    IDLE_LOCK = "idle_lock",
    /// Asks producers to stop notifying.
    IDLE_UNLOCK = "idle_unlock",
    /// Who may keep a migration waiting.
    LOCK_HOLDERS = "lock_holders",
    /// Whether a claim is worth while.
    LOOK = "look",
    /// Makes history partitions ahead.
    MAKE_HISTORY_PARTITIONS = "make_history_partitions",
    /// Puts off what is due for participants that do not answer.
    PARK = "park",
    /// Where parallel sagas stand.
    PROGRESS = "progress",
    /// Turns a saga back.
    PRODUCER_ABORT = "producer_abort",
    /// Inserts one saga, idempotently by gid.
    PRODUCER_SUBMIT = "producer_submit",
    /// Inserts many sagas in one statement.
    PRODUCER_SUBMIT_MANY = "producer_submit_many",
    /// One saga's status.
    PRODUCER_STATUS = "producer_status",
    /// Which of many sagas have ended.
    PRODUCER_WAIT = "producer_wait",
    /// Deletes history whose saga is gone.
    PURGE_HISTORY = "purge_history",
    /// Deletes sagas that finished long ago.
    PURGE_SAGAS = "purge_sagas",
    /// Registers a worker.
    REGISTER = "register",
    /// Requeues a dead worker's tasks.
    RESCUE = "rescue",
    /// A worker's farewell.
    RETIRE = "retire",
    /// Marks a task as running alone.
    RUN_ALONE = "run_alone",
    /// What keeps the tables from being vacuumed.
    SAMPLE = "sample",
    /// Tasks by queue, for metrics.
    SAMPLE_QUEUES = "sample_queues",
    /// Sagas and workers, for metrics.
    SAMPLE_SAGAS = "sample_sagas",
    /// Which server this is, and of which history.
    SERVER_HISTORY = "server_history",
    /// Whether a server takes writes.
    SERVER_ROLE = "server_role",
    /// The newest applied migration.
    SCHEMA_VERSION = "schema_version",
    /// Settles a group of sequential sagas.
    SETTLE = "settle",
    /// Settles a group of parallel sagas.
    SETTLE_PARALLEL = "settle_parallel",
    /// `pgsaga list`.
    LIST = "list",
    /// `pgsaga show`: the saga.
    SHOW_SAGA = "show_saga",
    /// `pgsaga show`: its steps and what they came to.
    SHOW_STEPS = "show_steps",
    /// `pgsaga show`: its tasks.
    SHOW_TASKS = "show_tasks",
    /// `pgsaga show`: what of it waits for a person.
    SHOW_STUCK = "show_stuck",
    /// `pgsaga show`: its history as lines.
    SHOW_TIMELINE = "show_timeline",
    /// `pgsaga show --json`: a page of its history.
    SHOW_HISTORY = "show_history",
    /// `pgsaga abort`.
    DECIDE_ABORT = "decide_abort",
    /// `pgsaga force`.
    DECIDE_FORCE = "decide_force",
    /// `pgsaga resolve`.
    DECIDE_RESOLVE = "decide_resolve",
    /// `pgsaga retry`.
    DECIDE_RETRY = "decide_retry",
    /// `pgsaga skip`.
    DECIDE_SKIP = "decide_skip",
    /// Whom a bulk abort is for.
    SELECT_OPEN = "select_open",
    /// Whom a bulk retry, skip or resolve is for.
    SELECT_STUCK = "select_stuck",
    /// `pgsaga pause`.
    PAUSE = "pause",
    /// `pgsaga resume`.
    RESUME = "resume",
    /// `pgsaga queues`.
    QUEUES = "queues",
    /// Makes sagas stuck whose rows cannot be read.
    STICK = "stick",
    /// Which of these tasks a worker still holds.
    STILL_HELD = "still_held",
    /// `pgsaga ui`: who decides in this transaction.
    UI_DECIDED_BY = "ui_decided_by",
    /// `pgsaga ui`: what the newest sagas came to.
    UI_OVERVIEW = "ui_overview",
    /// `pgsaga ui`: sagas, chosen among the newest.
    UI_SAGAS = "ui_sagas",
    /// `pgsaga ui`: sagas, chosen among those that are not over.
    UI_SAGAS_OPEN = "ui_sagas_open",
    /// `pgsaga ui`: how far it looked for them.
    UI_SAGAS_LOOKED = "ui_sagas_looked",
    /// `pgsaga ui`: a page of a saga's history, from its end.
    UI_HISTORY = "ui_history",
    /// `pgsaga ui`: the queues, without what lies in them.
    UI_QUEUES = "ui_queues",
    /// `pgsaga ui`: what waits for a person.
    UI_STUCK = "ui_stuck",
    /// `pgsaga ui`: the workers.
    UI_WORKERS = "ui_workers",
    /// Finds tasks that no claim reaches.
    UNREACHABLE = "unreachable",
    /// Notifies idle workers that something is due.
    WAKE = "wake",
}

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
