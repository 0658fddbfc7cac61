//! What can go wrong, as a person reads it.

/// Errors of the worker and the command line. Each text says what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database answered with an error, or not at all.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The answer to a decision never came.
    #[error("the database: {error}; it may have been decided all the same: {advice}")]
    Unanswered {
        /// Why not.
        error: sqlx::Error,
        /// What helps.
        advice: &'static str,
    },
    /// A migration failed; nothing of it remains.
    #[error("migrate failed at {at}: {}; nothing of the database was changed{advice}", words(source))]
    Migrate {
        /// The version of the schema, or the function.
        at: String,
        /// What the database says.
        source: sqlx::Error,
        /// What helps, behind a semicolon; empty where nothing is known.
        advice: &'static str,
    },
    /// Others held locks for as long as a migration was willing to wait. Nothing was changed by the migration that waited.
    #[error(
        "the migration waited {waited_seconds} s for locks: {holders}; end that session or let it finish, or wait longer with --lock-wait-seconds"
    )]
    LockedOut {
        /// How long.
        waited_seconds: u64,
        /// Who they are, in words.
        holders: String,
    },
    /// The schema is not the one that this release is written for.
    #[error("the schema of this database is {found}, and this pgsaga {} needs version {needed}: {advice}", env!("CARGO_PKG_VERSION"))]
    Schema {
        /// What is there, in words.
        found: String,
        /// The version that would fit.
        needed: i64,
        /// Which command helps.
        advice: &'static str,
    },
    /// The HTTP client could not be made.
    #[error("set up the HTTP client: {0}")]
    HttpClient(reqwest::Error),
    /// The port of /metrics could not be opened.
    #[error("listen on {address}: {source}; choose another with --listen")]
    Listen {
        /// What was asked for.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A part of the worker ended that never should. The process exits, so that its supervisor starts a new one.
    #[error("the {0} loop ended unexpectedly")]
    LoopEnded(String),
    /// A flag, a variable or a file that is not as it must be.
    #[error("{0}")]
    Usage(String),
    /// No such saga.
    #[error("no saga has the gid {0:?} in this database")]
    NotFound(String),
    /// No such saga, step or queue, in the database's words.
    #[error("{0}")]
    Absent(String),
    /// The state of a saga does not allow what was decided about it, in the database's words.
    #[error("{0}")]
    Refused(String),
    /// A command found something wrong; it has said what.
    #[error("{0}")]
    Found(String),
    /// Input or output.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A private Postgres server could not be run.
    #[error("failed to {0}")]
    Embedded(#[from] crate::embedded::Error),
    /// The producer refused or failed.
    #[error(transparent)]
    Producer(#[from] pgsaga_producer::Error),
}

/// What Postgres says, without the line of its own source that sqlx adds.
fn words(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

impl Error {
    /// The process's exit code; `pgsaga --help` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Found(_) | Error::Refused(_) => 1,
            Error::Usage(_) => 2,
            Error::Schema { .. } => 3,
            Error::NotFound(_) | Error::Absent(_) => 4,
            Error::Database(_)
            | Error::Unanswered { .. }
            | Error::Migrate { .. }
            | Error::LockedOut { .. } => 5,
            _ => 6,
        }
    }
}
