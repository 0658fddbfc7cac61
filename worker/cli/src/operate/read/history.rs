//! A saga's history: its attempts, and the decisions of people and of the deadline.

use pgsaga_plan::{Op, Outcome};
use pgsaga_sql::query;
use pgsaga_worker::db::Time;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow as _, Row as _};

use super::parts::optional_position;
use super::row;
use super::saga::Saga;
use super::words::{EventKind, later, optional, serialize, serialize_optional, word};

row! {
    /// One event, as `pgsaga show --json` prints it.
    #[derive(Debug, Serialize)]
    Event {
        seq: i64,
        at: Time,
        #[serde(serialize_with = "serialize")]
        kind: EventKind => word,
        step: Option<String> => later,
        /// The step's position from 0.
        #[serde(skip)]
        position: Option<usize> => step_position,
        #[serde(serialize_with = "serialize_optional")]
        op: Option<Op> => optional,
        attempt: Option<i32>,
        #[serde(serialize_with = "serialize_optional")]
        outcome: Option<Outcome> => optional,
        status_code: Option<i16>,
        duration_us: Option<i32>,
        message: Option<String>,
        worker: Option<i64>,
        decision: Option<String>,
        decided_by: Option<String>,
        /// The participant's answer with all digits of its numbers. Read only for JSON.
        answer: Option<Box<RawValue>> => later,
        /// The beginning of the answer, and its length in characters. Read only for the web page.
        #[serde(skip)]
        answer_start: Option<(String, i32)> => later,
    }
}

fn step_position(row: &PgRow, _: &str) -> Result<Option<usize>, sqlx::Error> {
    optional_position(row, "step")
}

impl Event {
    fn read(saga: &Saga, row: &PgRow) -> Result<Event, sqlx::Error> {
        let mut event = Event::from_row(row)?;
        event.step = event.position.map(|position| saga.step_name(position));
        Ok(event)
    }
}

/// Returns the next `limit` events from `from` on, up to the end of the snapshot of the saga.
pub(crate) async fn from(
    pool: &PgPool,
    saga: &Saga,
    from: i64,
    limit: i64,
) -> Result<Vec<Event>, sqlx::Error> {
    let Some(last) = saga.head.last_seq else { return Ok(Vec::new()) };
    let page =
        query::ShowHistory { saga_id: saga.head.id, first_seq: from, last_seq: last, events_max: limit };
    let with_answer = |row: &PgRow| {
        let answer: Option<String> = row.try_get("answer")?;
        let answer = answer.map(RawValue::from_string).transpose();
        let answer = answer.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok(Event { answer, ..Event::read(saga, row)? })
    };
    page.query().fetch_all(pool).await?.iter().map(with_answer).collect()
}

/// Returns the last `limit` events up to `until`, the newest first, with up to `chars` characters
/// of each answer.
pub(crate) async fn until(
    pool: &PgPool,
    saga: &Saga,
    until: i64,
    limit: i64,
    chars: i32,
) -> Result<Vec<Event>, sqlx::Error> {
    let page = query::UiHistory {
        saga_id: saga.head.id,
        last_seq: until,
        events_max: limit,
        answer_chars_max: chars,
    };
    let with_start = |row: &PgRow| {
        let start: Option<String> = row.try_get("answer")?;
        let answer_start = start.zip(row.try_get("answer_chars")?);
        Ok(Event { answer_start, ..Event::read(saga, row)? })
    };
    page.query().fetch_all(pool).await?.iter().map(with_start).collect()
}
