//! Why a page cannot be shown, in words for the visitor.

use axum::http::StatusCode;

use crate::error::Error;
use pgsaga_sql::describe;
use pgsaga_worker::db::{Class, sqlstate};

/// Heading if a read was given up.
const TOO_LONG: &str = "It took too long";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) what: &'static str,
    /// The details, with what is allowed or what to do.
    pub(crate) why: String,
}

impl Failure {
    fn new(status: StatusCode, what: &'static str, why: impl Into<String>) -> Failure {
        Failure { status, what, why: why.into() }
    }

    /// An invalid filter or field.
    pub(crate) fn bad(why: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "That cannot be asked", why)
    }

    pub(crate) fn absent(why: impl Into<String>) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "Not found", why)
    }

    /// The visitor may not do this.
    pub(crate) fn forbidden(why: impl Into<String>) -> Failure {
        Failure::new(StatusCode::FORBIDDEN, "Not allowed", why)
    }

    /// The saga's state does not allow the decision, or differs from the state that the page
    /// showed.
    pub(crate) fn conflict(why: impl Into<String>) -> Failure {
        Failure::new(StatusCode::CONFLICT, "Not done", why)
    }

    pub(crate) fn too_often(why: impl Into<String>) -> Failure {
        Failure::new(StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens", why)
    }

    /// Whether the database was still working when the request was given up.
    pub(crate) fn is_too_long(&self) -> bool {
        self.what == TOO_LONG
    }

    pub(crate) fn too_long() -> Failure {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            TOO_LONG,
            "The database did not have the answer within 5 s, and the question was given up: ask for less, or later.",
        )
    }

    /// The database cannot be reached.
    pub(crate) fn away(why: impl Into<String>) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "The database does not answer", why)
    }

    pub(crate) fn busy() -> Failure {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The page is busy",
            "All of its connections to the database are in use: ask again in a few seconds.",
        )
    }

    pub(crate) fn broken(why: impl Into<String>) -> Failure {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "That failed", why)
    }
}

impl From<pgsaga_worker::Error> for Failure {
    fn from(error: pgsaga_worker::Error) -> Failure {
        Error::from(error).into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let words = error.to_string();
        match &error {
            Error::NotFound(_) | Error::Absent(_) => Failure::absent(words),
            Error::Refused(_) => Failure::conflict(words),
            Error::Usage(_) => Failure::bad(words),
            Error::Worker(pgsaga_worker::Error::Schema(_)) => {
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "The schema does not fit", words)
            }
            Error::Unanswered { .. } => {
                Failure::new(StatusCode::GATEWAY_TIMEOUT, "Nobody knows whether it was done", words)
            }
            // Every visitor sees the page, so that host and user are left to the log.
            Error::Worker(pgsaga_worker::Error::Unreachable { source, .. }) => {
                of_database(source, format!("the database: {}", describe(source)))
            }
            error if error.is_too_long() => Failure::too_long(),
            Error::Database(error) => of_database(error, words),
            _ => Failure::broken(words),
        }
    }
}

fn of_database(error: &sqlx::Error, words: String) -> Failure {
    match sqlstate(error).as_deref() {
        Some("40001" | "40P01") => {
            Failure::conflict("Others change it just now: nothing is done. Read again what will happen now.")
        }
        Some("42501") => Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The database does not allow it",
            format!("{words}. This page's user needs the role pgsaga_reader; to decide, pgsaga_operator."),
        ),
        // Such as a NUL character, which Postgres cannot store in a text.
        Some(code) if code.starts_with("22") => Failure::bad(words),
        _ if Class::of(error) == Class::Connection => {
            Failure::away(format!("{words}. This page recovers by itself once the database is back."))
        }
        _ => Failure::broken(words),
    }
}
