//! A saga that has ended, with its history.

use std::fmt;

use pgsaga_plan::Outcome;
use pgsaga_producer::{SagaStatus, Status};
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};

use crate::error::Error;

/// A saga that has ended. Its text has no times, ids or names of workers, for snapshot tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The saga's name.
    pub gid: String,
    /// How it ended. A saga that is stuck has ended, too, until a person decides.
    pub status: SagaStatus,
    /// Why it was rolled back or is stuck.
    pub reason: Option<String>,
    /// What was called and decided, in order.
    pub history: Vec<Entry>,
}

/// An attempt or a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The step's name. `None` for a decision about the whole saga.
    pub step: Option<String>,
    /// `action` or `compensate`, or the decision.
    pub what: String,
    /// The number of the attempt, from 1.
    pub attempt: Option<i32>,
    /// How the attempt ended.
    pub outcome: Option<String>,
    /// What the participant or the person said.
    pub message: Option<String>,
}

impl Run {
    /// Reads a saga. `None` if there is none of this gid.
    pub(super) async fn read(pool: &PgPool, gid: &str) -> Result<Option<Run>, Error> {
        let Some(Status { status, reason, .. }) = pgsaga_producer::status(pool, gid).await? else {
            return Ok(None);
        };
        let rows = sqlx::query(include_str!("sql/history.sql")).bind(gid).fetch_all(pool).await?;
        let history = rows.iter().map(Entry::read).collect::<Result<_, sqlx::Error>>()?;
        Ok(Some(Run { gid: gid.to_owned(), status, reason, history }))
    }

    /// Whether some op has had no definite outcome in so many attempts.
    pub(super) fn is_hopeless(&self, attempts_max: usize) -> bool {
        let unknown = || {
            self.history.iter().filter(|entry| entry.outcome.as_deref() == Some(Outcome::Unknown.as_str()))
        };
        unknown().any(|entry| unknown().filter(|other| other.is_op_of(entry)).count() >= attempts_max)
    }

    /// Whether nothing happens until a person decides.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.status, SagaStatus::Succeeded | SagaStatus::Failed | SagaStatus::Stuck)
    }
}

impl Entry {
    fn is_op_of(&self, other: &Entry) -> bool {
        (&self.step, &self.what) == (&other.step, &other.what)
    }

    /// Whether only the number of the attempt is another.
    fn is_like(&self, other: &Entry) -> bool {
        self.is_op_of(other)
            && self.attempt.is_some()
            && (&self.outcome, &self.message) == (&other.outcome, &other.message)
    }

    fn read(row: &PgRow) -> Result<Entry, sqlx::Error> {
        Ok(Entry {
            step: row.try_get("step")?,
            what: row.try_get("what")?,
            attempt: row.try_get("attempt")?,
            outcome: row.try_get("outcome")?,
            message: row.try_get::<Option<String>, _>("message")?.map(without_id),
        })
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status.as_str())?;
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        for like in self.history.chunk_by(Entry::is_like) {
            let [first, .., last] = like else {
                like.iter().try_for_each(|entry| write!(f, "\n  {entry}"))?;
                continue;
            };
            // Of many attempts with the same end, one line says it.
            write!(f, "\n  {first} (and so on, to attempt {})", last.attempt.unwrap_or_default())?;
        }
        Ok(())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.step {
            write!(f, "{step} ")?;
        }
        f.write_str(&self.what)?;
        if let Some(attempt) = self.attempt {
            write!(f, " {attempt}")?;
        }
        if let Some(outcome) = &self.outcome {
            write!(f, ": {outcome}")?;
        }
        if let Some(message) = &self.message {
            write!(f, ", {message}")?;
        }
        Ok(())
    }
}

/// The id of a worker is another one in each run.
fn without_id(message: String) -> String {
    let rest =
        message.strip_prefix("worker ").map(|rest| rest.trim_start_matches(|id: char| id.is_ascii_digit()));
    match rest {
        Some(rest) if rest.starts_with(" was lost") => format!("the worker{rest}"),
        _ => message,
    }
}
