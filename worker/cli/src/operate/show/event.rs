//! One event of a saga's history: a try, or what a person or a deadline decided.

use serde::Serialize;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::read::{Saga, position};

use pgsaga_worker::db::Time;

/// As `pgsaga show --json` prints it. What was answered is read in full or cut, as its reader needs it.
#[derive(Debug, Serialize)]
pub(crate) struct Event<A> {
    pub(crate) seq: i64,
    pub(crate) at: Time,
    pub(crate) kind: String,
    pub(crate) step: Option<String>,
    pub(crate) op: Option<String>,
    pub(crate) attempt: Option<i32>,
    pub(crate) outcome: Option<String>,
    pub(crate) status_code: Option<i16>,
    pub(crate) duration_us: Option<i32>,
    pub(crate) message: Option<String>,
    pub(crate) worker: Option<i64>,
    pub(crate) decision: Option<String>,
    pub(crate) decided_by: Option<String>,
    pub(crate) answer: Option<A>,
}

impl<A> Event<A> {
    /// Reads a row of the history of this saga, but for its answer.
    ///
    /// # Errors
    /// A column that is missing or of another type.
    pub(crate) fn read(saga: &Saga, row: &PgRow, answer: Option<A>) -> Result<Event<A>, sqlx::Error> {
        let step: Option<i16> = row.try_get("step")?;
        Ok(Event {
            seq: row.try_get("seq")?,
            at: row.try_get("at")?,
            kind: row.try_get("kind")?,
            step: step.map(|step| saga.step_name(position(step))),
            op: row.try_get("op")?,
            attempt: row.try_get("attempt")?,
            outcome: row.try_get("outcome")?,
            status_code: row.try_get("status_code")?,
            duration_us: row.try_get("duration_us")?,
            message: row.try_get("message")?,
            worker: row.try_get("worker")?,
            decision: row.try_get("decision")?,
            decided_by: row.try_get("decided_by")?,
            answer,
        })
    }
}
