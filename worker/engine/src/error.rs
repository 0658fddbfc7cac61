//! Errors of the worker, with texts for people.

use pgsaga_sql::{describe, grant};

/// Errors of the worker. The text contains the value found and the action to take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database returned an error or did not answer.
    #[error("the database: {}", describe(.0))]
    Database(#[from] sqlx::Error),
    /// No connection could be opened.
    #[error(
        "cannot connect to Postgres at {place}: {}; check that Postgres runs there, and that the database URL is right",
        describe(source)
    )]
    Unreachable {
        /// Hosts with their ports, database and user.
        place: String,
        /// The reason that the server or the network gave.
        source: sqlx::Error,
    },
    /// The user of the database URL lacks a right.
    #[error(
        "the database: {}; the user {user} needs the rights of {role}. Their administrator gives them: {}",
        describe(source),
        grant(role, user)
    )]
    Denied {
        /// The user of the database URL.
        user: String,
        /// The role of pgsaga that has the right.
        role: &'static str,
        /// The error of Postgres, with SQLSTATE 42501.
        source: sqlx::Error,
    },
    /// The schema does not have the version that this release needs.
    #[error(transparent)]
    Schema(#[from] pgsaga_sql::schema::Misfit),
    /// The HTTP client could not be created.
    #[error("set up the HTTP client: {0}")]
    HttpClient(#[source] reqwest::Error),
    /// A loop of the worker ended unexpectedly. The process exits, so that its supervisor starts a
    /// new one.
    #[error("the {0} loop ended unexpectedly")]
    LoopEnded(String),
    /// The configuration contains a value that is not allowed.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// Returns the database's error, if this is one.
    pub fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Error::Database(source) | Error::Unreachable { source, .. } | Error::Denied { source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }
}

/// Returns the causes of an error, the deepest last.
pub(crate) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| cause.source())
}
