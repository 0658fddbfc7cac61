#![doc = include_str!("../README.md")]

pub mod fail;
pub mod schema;

pub use schema::{RELEASE, ROLES, SCHEMA_VERSION};

/// The newest row format (`pgsaga.saga.format`) that this release's workers understand.
pub const FORMAT: i16 = 3;

/// The participant's barrier, idempotent. Run in each participant's own database.
pub const BARRIER: &str = include_str!("../barrier.sql");

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
    /// Whether pgsaga was ever migrated.
    MIGRATE_EXISTS = "migrate_exists",
    /// The functions that migrate has applied.
    MIGRATE_FUNCTIONS = "migrate_functions",
    /// Takes the lock of migrations.
    MIGRATE_LOCK = "migrate_lock",
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
    /// The applied versions of the schema.
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
