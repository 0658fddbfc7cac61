//! Errors of the command line, in words for a person.

use pgsaga_sql::describe;
use pgsaga_sql::schema::{ApplyError, Misfit};
use pgsaga_worker::db::{is_denied, sqlstate};

/// An error of the command line. Each text says what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database answered with an error, or not at all.
    #[error("the database: {}", describe(.0))]
    Database(#[from] sqlx::Error),
    /// The worker could not be set up, or stopped working.
    #[error(transparent)]
    Worker(pgsaga_worker::Error),
    /// The result of a decision is unknown.
    #[error("the database: {}; it may have been decided all the same: {advice}", describe(error))]
    Unanswered { error: sqlx::Error, advice: &'static str },
    /// A step of a migration failed, and the migration was rolled back.
    #[error(transparent)]
    Migrate(ApplyError),
    /// Other sessions held locks for as long as the migration was willing to wait. The migration
    /// changed nothing.
    #[error(
        "the migration waited {waited_seconds} s for locks: {holders}; end that session or let it finish, or wait longer with --lock-wait-seconds"
    )]
    LockedOut { waited_seconds: u64, holders: String },
    /// The port of /metrics could not be opened.
    #[error("listen on {address}: {source}; choose another with --listen")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    /// An invalid flag, variable or file.
    #[error("{0}")]
    Usage(String),
    #[error("no saga has the gid {0:?} in this database")]
    NotFound(String),
    /// The saga, step or queue does not exist; the message is the database's.
    #[error("{0}")]
    Absent(String),
    /// The state of the saga does not allow the decision; the message is the database's.
    #[error("{0}")]
    Refused(String),
    /// A command found a fault, and has reported it.
    #[error("{0}")]
    Found(String),
    #[error("{doing}: {source}")]
    Io { doing: String, source: std::io::Error },
    /// A private Postgres server or a scratch database could not be started.
    #[error(transparent)]
    Test(pgsaga_test::Error),
    #[error(transparent)]
    Producer(#[from] pgsaga_producer::Error),
    #[error(transparent)]
    Participant(#[from] pgsaga_participant::Error),
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { doing: doing.into(), source }
    }

    /// Wraps any other error as an I/O error.
    pub(crate) fn other(
        doing: impl Into<String>,
        why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Io { doing: doing.into(), source: std::io::Error::other(why) }
    }

    /// A signal arrived before the command had ended.
    pub(crate) fn stopped(doing: &str) -> Error {
        let source = std::io::Error::new(std::io::ErrorKind::Interrupted, "stopped by a signal");
        Error::Io { doing: doing.to_owned(), source }
    }

    /// Whether the database cancelled a statement because it took too long.
    pub(crate) fn is_too_long(&self) -> bool {
        matches!(self.sqlstate().as_deref(), Some("57014" | "55P03"))
    }

    /// Whether other sessions changed the same rows, so that nothing was done.
    pub(crate) fn is_overtaken(&self) -> bool {
        matches!(self.sqlstate().as_deref(), Some("40001" | "40P01"))
    }

    fn sqlstate(&self) -> Option<String> {
        match self {
            Error::Database(error) => sqlstate(error),
            _ => None,
        }
    }

    /// Adds to an error what helps, if this user lacks a right that the role has.
    pub(crate) fn explain(self, user: &str, role: &'static str) -> Error {
        match self {
            Error::Database(source) if is_denied(&source) => {
                Error::Worker(pgsaga_worker::Error::Denied { user: user.to_owned(), role, source })
            }
            error => error,
        }
    }

    /// A task of this process panicked or was cancelled.
    pub(crate) fn loop_ended(error: &tokio::task::JoinError) -> Error {
        Error::Worker(pgsaga_worker::Error::LoopEnded(error.to_string()))
    }

    /// The process's exit code; `pgsaga --help` lists them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::Found(_) | Error::Refused(_) => 1,
            Error::Usage(_) => 2,
            Error::Worker(pgsaga_worker::Error::Usage(_)) => 2,
            Error::Worker(pgsaga_worker::Error::Schema(_)) => 3,
            Error::Worker(error) if error.database().is_some() => 5,
            Error::NotFound(_) | Error::Absent(_) => 4,
            Error::Database(_) | Error::Unanswered { .. } | Error::Migrate(_) | Error::LockedOut { .. } => 5,
            _ => 6,
        }
    }
}

impl From<ApplyError> for Error {
    fn from(error: ApplyError) -> Error {
        match error {
            ApplyError::Database(error) => Error::Database(error),
            ApplyError::Misfit(misfit) => misfit.into(),
            error => Error::Migrate(error),
        }
    }
}

impl From<Misfit> for Error {
    fn from(misfit: Misfit) -> Error {
        Error::Worker(misfit.into())
    }
}

impl From<pgsaga_worker::Error> for Error {
    fn from(error: pgsaga_worker::Error) -> Error {
        match error {
            pgsaga_worker::Error::Database(error) => Error::Database(error),
            error => Error::Worker(error),
        }
    }
}

impl From<pgsaga_test::Error> for Error {
    fn from(error: pgsaga_test::Error) -> Error {
        match error {
            pgsaga_test::Error::Database(error) => Error::Database(error),
            pgsaga_test::Error::Worker(error) => error.into(),
            pgsaga_test::Error::Producer(pgsaga_producer::Error::Database(error)) => Error::Database(error),
            error => Error::Test(error),
        }
    }
}
