//! End-to-end tests: real worker processes, a real Postgres, scripted participants.
//!
//! A test goes into the folder of what it is about; a new module gets a line here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

/// What an application and its participants see: they insert sagas, wait for them and are called.
mod application {
    /// A saga exists if and only if the transaction that inserted it committed.
    mod atomic;
    /// The barrier, with which a participant does the work of each op once.
    mod barrier;
    /// The behaviours that DTM's own tests cover, through the crate and in plain SQL.
    mod dtm;
    /// The producer crate against a real database.
    mod producer;
}

/// The connections to participants, and what they do to the calls that share them.
mod connections {
    /// HTTP/2: frozen and old connections, what a server did not process, and full connections.
    mod http2;
    /// When an idle connection is used again.
    mod idle;
    /// A participant that takes few calls a second, and asks the others to come back later.
    mod limited;
}

/// What the database holds, refuses and deletes.
mod database {
    /// Rows with extreme and unreadable values, each of which costs only its own saga.
    mod extremes;
    /// A jump of the sequence of saga ids, and ids that no saga got, cost nothing.
    mod jump;
    /// What a foreign key or a trigger keeps holds up no other saga's deletion.
    mod refused;
    /// Retention deletes what finished long ago, and nothing else.
    mod retention;
    /// The least rights with which producers and workers can do their work.
    mod roles;
    /// Every statement fits the schema, every check can fail, and other versions are refused.
    mod schema;
    /// Settings of a database or a role, which change nothing.
    mod settings;
}

/// Participants whose handlers run in the worker's process.
mod handlers {
    /// What a handler gets, and what becomes of what it returns.
    mod calls;
    /// How a handler ends, and that it never runs beside its next attempt.
    mod ends;
    /// Tasks of a participant that only some workers serve cost the others nothing.
    mod lanes;
    /// What a handler writes to the saga's database commits with the record of its attempt.
    mod transactional;
}

/// The test kit finds nothing wrong with a participant that keeps its duties, and names each
/// planted bug by exactly its question.
mod kit {
    /// The test of docs/testing.md, as it stands there.
    mod guide;
    /// The planted bugs, in handlers of the process.
    mod questions;
    /// A participant with a planted bug.
    mod shelf;
    /// `pgsaga verify` asks the same of a service in Node.
    mod verify;
}

/// Two sessions in an order that the test chooses, most of them races that broke earlier drafts.
mod interleaving {
    /// A completion that comes while a worker settles.
    mod completions;
    /// Epochs, interrupts and locks keep a worker from writing to a task that it has lost.
    mod fences;
    /// Transactions that use a queue first wait for nobody.
    mod first_use;
    /// A settle of a parallel saga writes only what was planned from the newest row.
    mod joins;
    /// Settles and rescues wait for no row.
    mod locks;
    /// The races of sequential sagas, each with the statement that lacks its rule.
    mod races;
}

/// Workers that start, stop, die and lose their database.
mod lifecycle {
    /// Killed, frozen and cut-off workers, and a Postgres that crashes under load.
    mod crash;
    /// Who may start a call and who is dead, whatever the clocks say.
    mod lease;
    /// Workers behind PgBouncer in transaction mode.
    mod pooler;
    /// One worker process for several databases on two servers.
    mod several;
    /// SIGTERM cuts off no call within the grace and leaves no task claimed.
    mod shutdown;
}

/// What people read and decide.
mod operate {
    /// `pgsaga bench` measures what it says.
    mod bench;
    /// The command line as a user meets it: help, errors, exit codes.
    mod cli;
    /// The decisions as commands, for one saga and in bulk.
    mod commands;
    /// What people see of a step that waits, and what they report of it.
    mod completing;
    /// The decisions as functions: abort, force, retry, skip, resolve, and what they do to a saga.
    mod decisions;
    /// `pgsaga list`, its filters and `--watch`.
    mod list;
    /// What the log of a worker has at its default level.
    mod logs;
    /// What is said when the database is away, lacks the schema or a right.
    mod messages;
    /// Each exported number against what really happened.
    mod metrics;
    /// `pgsaga show` for people, as JSON and as a picture.
    mod show;
}

/// How tasks are found, and in which order.
mod queue {
    /// What a claim must find.
    mod claims;
    /// Queues, priorities, limits, and participants that are dead or hang.
    mod fairness;
    /// The plans of the hot statements, whatever the statistics say.
    mod plans;
    /// Queues that no living worker serves.
    mod served;
    /// A worker that waits is woken, and producers pay for that only while one waits.
    mod wakeup;
}

/// What a saga does, from its first call to its end.
mod saga {
    /// Calls that a participant accepts, and whose end is reported later.
    mod accepted;
    /// What is sent to a participant, and what no answer can do.
    mod answers;
    /// What is undone, in which order, and what is not.
    mod compensation;
    /// Steps in any order and at the same time, forward and backward.
    mod order;
    /// The point of no return.
    mod pivot;
    /// Answers that flow from step to step, and into the saga's result.
    mod results;
    /// Deadlines, starting times and limits, which survive restarts.
    mod time;
    /// A request that was never sent did nothing; a request that was sent may have.
    mod unsent;
    /// Steps that wait for a completion instead of calling somebody.
    mod waits;
}

/// The workers' own statements in sessions of the test, one at a time. Holds no tests.
mod session;
