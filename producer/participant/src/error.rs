/// Why a barrier cannot be installed or entered. Roll back, and answer an error, so that the call
/// comes again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The participant's database refused, or could not be reached.
    #[error("the database failed: {}", describe(.0))]
    Database(#[from] sqlx::Error),

    /// The query of the call does not name an operation of a saga.
    #[error("the query of the call cannot be a saga's: {place}: found {found}; allowed: {allowed}")]
    Query {
        /// The parameter.
        place: &'static str,
        /// What was found there, cut to 64 characters.
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

/// sqlx adds the line of Postgres' C source to what Postgres says, which misleads people.
fn describe(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}
