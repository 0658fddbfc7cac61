/// Errors of the private server and of scratch databases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A private Postgres server could not be run.
    #[error("failed to {0}")]
    Embedded(#[from] crate::embedded::Error),
    /// The database answered with an error, or not at all.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database's URL cannot be used.
    #[error(transparent)]
    Url(#[from] pgsaga_worker::Error),
    /// A server could not be started or stopped.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
}
