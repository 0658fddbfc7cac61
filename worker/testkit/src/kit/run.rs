//! A saga that has ended, with its history.

use std::fmt;

use pgsaga_producer::SagaStatus;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};

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
    pub(super) async fn read(pool: &PgPool, gid: &str) -> Result<Option<Run>, sqlx::Error> {
        let head: Option<(SagaStatus, Option<String>)> =
            sqlx::query_as(include_str!("sql/head.sql")).bind(gid).fetch_optional(pool).await?;
        let Some((status, reason)) = head else { return Ok(None) };
        let rows = sqlx::query(include_str!("sql/history.sql")).bind(gid).fetch_all(pool).await?;
        let history = rows.iter().map(Entry::read).collect::<Result<_, _>>()?;
        Ok(Some(Run { gid: gid.to_owned(), status, reason, history }))
    }

    /// Whether nothing happens until a person decides.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.status, SagaStatus::Succeeded | SagaStatus::Failed | SagaStatus::Stuck)
    }
}

impl Entry {
    fn read(row: &PgRow) -> Result<Entry, sqlx::Error> {
        Ok(Entry {
            step: row.try_get("step")?,
            what: row.try_get("what")?,
            attempt: row.try_get("attempt")?,
            outcome: row.try_get("outcome")?,
            message: row.try_get("message")?,
        })
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status.as_str())?;
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        for entry in &self.history {
            f.write_str("\n  ")?;
            entry.fmt(f)?;
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
