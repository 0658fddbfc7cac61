/// Errors of the private server and of scratch databases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A private Postgres server could not be run.
    #[error("failed to {0}")]
    Embedded(#[from] crate::embedded::Error),
    /// The database returned an error or did not answer.
    #[error("the database: {}", pgsaga_worker::db::describe(.0))]
    Database(#[from] sqlx::Error),
    /// The URL of the database cannot be used.
    #[error(transparent)]
    Url(#[from] pgsaga_worker::Error),
    /// A server could not be started or stopped.
    #[error("{doing}: {source}")]
    Io {
        /// The operation that was in progress.
        doing: String,
        /// The reason for the failure.
        source: std::io::Error,
    },
}
