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
