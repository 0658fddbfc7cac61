//! How a handler says that its op did not succeed.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::db::is_conflict;
use crate::error::causes;

/// Why a handler's op did not succeed.
///
/// Every other error becomes one by `?` and counts as *unknown*: the op may or may not have taken
/// effect. The worker calls the handler again under the same key, and the history has the error
/// with its causes. Only [`refuse`](HandlerError::refuse) is a definite no. An error of a
/// transactional handler rolls its transaction back, and the attempt counts as *unsent*.
#[derive(Debug)]
pub struct HandlerError(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Refused(String),
    Ongoing(Duration),
    Accepted(Duration),
    Failed(Box<dyn Error + Send + Sync>),
}

impl HandlerError {
    /// A definite no, with the reason for people: under this key nothing was done, and nothing ever
    /// will be. A refused action rolls the saga back; the handler answers every later call of the
    /// key in the same way. A refused compensation makes the saga stuck.
    pub fn refuse(reason: impl fmt::Display) -> HandlerError {
        HandlerError(Kind::Refused(reason.to_string()))
    }

    /// The op is accepted and not finished: the handler is called again after this time. Such an
    /// attempt does not count against `retry_limit`.
    pub fn ongoing(after: Duration) -> HandlerError {
        HandlerError(Kind::Ongoing(after))
    }

    /// The op is accepted, and somebody reports its end by `pgsaga.complete`. The handler is called
    /// again only if nobody has after this time, up to 365 days.
    pub fn accepted(reports_within: Duration) -> HandlerError {
        HandlerError(Kind::Accepted(reports_within))
    }
}

impl Kind {
    /// Whether the handler's transaction could not be serialized or met a deadlock. It can be
    /// repeated at once, and says nothing about the handler.
    pub(super) fn is_conflict(&self) -> bool {
        let Kind::Failed(error) = self else { return false };
        let of_database = |error: &(dyn Error + 'static)| error.downcast_ref().is_some_and(is_conflict);
        of_database(&**error) || causes(&**error).any(of_database)
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for HandlerError {
    fn from(error: E) -> HandlerError {
        HandlerError(Kind::Failed(error.into()))
    }
}
