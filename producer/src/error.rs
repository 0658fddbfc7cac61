use pgsaga_sql::contract::SagaStatus;
use pgsaga_sql::describe;

use crate::validate::Invalid;

/// Why a saga cannot be submitted, awaited, aborted or completed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The saga is malformed; nothing was sent to the database.
    #[error(transparent)]
    Invalid(#[from] Invalid),

    /// A saga of a batch is malformed; nothing was sent to the database.
    #[error("saga {index} of the batch, counted from 0: {invalid}")]
    InvalidInBatch {
        /// Position in the slice, from 0.
        index: usize,
        /// Why this saga is refused.
        invalid: Invalid,
    },

    /// The database refused, or could not be reached. When a statement outside a transaction
    /// failed, the saga may have been inserted: submit it again with the same gid.
    #[error("the database failed: {}", describe(.0))]
    Database(#[from] sqlx::Error),

    /// A sequence of pgsaga returned an id that exists already, as after a move to another cluster
    /// without the sequences. The saga was not submitted, now or earlier.
    #[error(
        "pgsaga.{sequence}: found a next value that pgsaga.{table} holds already; allowed: one above all that are there. \
         The saga was not submitted: `pgsaga doctor` names the setval that moves the sequence ahead ({})",
        describe(source)
    )]
    SequenceBehind {
        /// The sequence, in the schema `pgsaga`.
        sequence: &'static str,
        /// Its table, in the schema `pgsaga`.
        table: &'static str,
        /// The unique violation (23505).
        source: sqlx::Error,
    },

    /// No saga of this gid existed at the deadline. The transaction that inserts it may not have
    /// committed.
    #[error("no saga {gid} was found until the deadline; is its transaction committed?")]
    Unknown {
        /// The gid waited for.
        gid: String,
    },

    /// The saga had not ended at the deadline. It continues.
    #[error("saga {gid} had not ended at the deadline{}", last_seen(.status, .database))]
    Deadline {
        /// The gid waited for.
        gid: String,
        /// The saga's status at the last look. `None` when no look succeeded, or when only a newer
        /// release of this crate knows the status.
        status: Option<SagaStatus>,
        /// Why the last look failed, if it did.
        database: Option<String>,
    },

    /// There is no saga of this gid to abort, or its transaction has not committed.
    #[error("there is no saga {gid} to abort; is its transaction committed?")]
    NoSaga {
        /// The gid given.
        gid: String,
    },

    /// The saga cannot be aborted any more: it has ended, or is past its pivot.
    #[error("saga {gid} cannot be aborted: {why}")]
    TooLate {
        /// The gid given.
        gid: String,
        /// In the database's words.
        why: String,
    },

    /// The reason to abort is refused.
    #[error("the reason to abort saga {gid} is refused: {why}")]
    Reason {
        /// The gid given.
        gid: String,
        /// In the database's words.
        why: String,
    },

    /// There is no saga of this gid, or it has no step of this name, or its transaction has not
    /// committed.
    #[error("step {step} of saga {gid} cannot be completed: {why}; is its transaction committed?")]
    NothingToComplete {
        /// The gid given.
        gid: String,
        /// The step given.
        step: String,
        /// In the database's words.
        why: String,
    },

    /// Another completion came first, or the op is over, or has not begun.
    #[error("step {step} of saga {gid} cannot be completed: {why}")]
    NotCompleted {
        /// The gid given.
        gid: String,
        /// The step given.
        step: String,
        /// In the database's words.
        why: String,
    },

    /// The completion is refused.
    #[error("the completion of step {step} of saga {gid} is refused: {why}")]
    Completion {
        /// The gid given.
        gid: String,
        /// The step given.
        step: String,
        /// In the database's words.
        why: String,
    },
}

/// Why waiting ended without a result, usually [`Error::Unknown`] or [`Error::Deadline`].
pub type WaitError = Error;

fn last_seen(status: &Option<SagaStatus>, database: &Option<String>) -> String {
    let mut text = status.as_ref().map_or(String::new(), |status| format!(": {status} when last seen"));
    if let Some(database) = database {
        text.push_str("; the last look at the database failed: ");
        text.push_str(database);
    }
    text
}
