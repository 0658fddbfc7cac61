//! Errors of the worker, with texts for people.

/// Errors of the worker. The text contains the value found and the action to take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database returned an error or did not answer.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema does not have the version that this release needs.
    #[error(transparent)]
    Schema(#[from] pgsaga_sql::schema::Misfit),
    /// The HTTP client could not be created.
    #[error("set up the HTTP client: {0}")]
    HttpClient(reqwest::Error),
    /// A loop of the worker ended unexpectedly. The process exits, so that its supervisor starts a
    /// new one.
    #[error("the {0} loop ended unexpectedly")]
    LoopEnded(String),
    /// The configuration contains a value that is not allowed.
    #[error("{0}")]
    Usage(String),
}
