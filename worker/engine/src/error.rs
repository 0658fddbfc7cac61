//! What can go wrong, as a person reads it.

/// Errors of the worker. Each text says what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database answered with an error, or not at all.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema is not the one that this release is written for.
    #[error("the schema of this database is {found}, and this pgsaga {} needs version {needed}: {advice}", env!("CARGO_PKG_VERSION"))]
    Schema {
        /// Describes the version found.
        found: String,
        /// The version that would fit.
        needed: i64,
        /// The command that helps.
        advice: &'static str,
    },
    /// The HTTP client could not be made.
    #[error("set up the HTTP client: {0}")]
    HttpClient(reqwest::Error),
    /// A loop of the worker ended that never should. The process exits, so that its supervisor starts a new one.
    #[error("the {0} loop ended unexpectedly")]
    LoopEnded(String),
    /// The configuration holds a value that is not allowed.
    #[error("{0}")]
    Usage(String),
}
