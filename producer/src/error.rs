use crate::invalid::Invalid;

/// What can go wrong when producing, waiting for, or taking part in sagas.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The saga is malformed; nothing was sent to the database.
    #[error(transparent)]
    Invalid(#[from] Invalid),

    /// A saga of a batch is malformed; nothing was sent to the database.
    #[error("saga {index} of the batch, counted from 0: {invalid}")]
    InvalidInBatch {
        /// Its place in the slice, from 0.
        index: usize,
        /// Why it is refused.
        invalid: Invalid,
    },

    /// The database refused or could not be reached. After a failure of a statement outside a transaction the saga may
    /// have been inserted: submit it again with the same gid.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),

    /// A sequence of pgsaga gave a number that is taken, as it does after a move to another cluster
    /// that left the sequences behind. The saga was not submitted, and it is not a saga that was
    /// submitted before.
    #[error(
        "pgsaga.{sequence}: found a next value that pgsaga.{table} holds already; allowed: one above all that are there. \
         The saga was not submitted: `pgsaga doctor` names the setval that moves the sequence ahead ({source})"
    )]
    SequenceBehind {
        /// The sequence, in the schema `pgsaga`.
        sequence: &'static str,
        /// Its table, in the schema `pgsaga`.
        table: &'static str,
        /// The unique violation (23505).
        source: sqlx::Error,
    },

    /// No saga of this gid was there at the deadline. It may still be in a transaction that has not committed.
    #[error("no saga {gid} was found until the deadline; is its transaction committed?")]
    Unknown {
        /// The gid waited for.
        gid: String,
    },

    /// The saga had not ended at the deadline. It goes on by itself.
    #[error("saga {gid} had not ended at the deadline{}", last_seen(.status, .database))]
    Deadline {
        /// The gid waited for.
        gid: String,
        /// Its status at the last look; `None` when no look succeeded.
        status: Option<String>,
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

    /// A participant was called with a query that lacks what the barrier needs.
    #[error("the query of the call cannot be a saga's: {place}: found {found}; allowed: {allowed}")]
    Query {
        /// The parameter.
        place: &'static str,
        /// What was found there.
        found: String,
        /// What is allowed there.
        allowed: &'static str,
    },

    /// The barrier was entered outside of a transaction, where it would protect nothing.
    #[error(
        "the barrier was entered outside of a transaction: call sqlx's begin() first and do the work in it"
    )]
    NoTransaction,
}

/// What waiting can end with; `WaitError::Unknown` and `WaitError::Deadline` are the usual ones.
pub type WaitError = Error;

fn last_seen(status: &Option<String>, database: &Option<String>) -> String {
    let mut text = status.as_ref().map_or(String::new(), |status| format!(": {status} when last seen"));
    if let Some(database) = database {
        text.push_str("; the last look at the database failed: ");
        text.push_str(database);
    }
    text
}
