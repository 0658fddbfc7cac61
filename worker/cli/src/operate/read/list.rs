use pgsaga_plan::Op;
use pgsaga_sql::contract::SagaStatus;
use pgsaga_worker::db::Time;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::{FromRow as _, Row as _};

use super::row;
use super::words::{serialize, word};

row! {
    /// A saga with its earliest task, as `pgsaga list --json` prints it.
    #[derive(Debug, Serialize)]
    Listed {
        #[serde(serialize_with = "exact")]
        created_at: Time,
        #[serde(serialize_with = "exact_or_null")]
        finished_at: Option<Time>,
        gid: String,
        #[serde(serialize_with = "raw_or_null")]
        labels: Option<String>,
        next: Option<Next> => next,
        priority: i16,
        queue: String,
        reason: Option<String>,
        status: SagaStatus,
        steps: i32,
        tasks: i64,
    }
}

row! {
    #[derive(Debug, Serialize)]
    Next {
        attempt: i32,
        due_ms: i64,
        #[serde(serialize_with = "serialize")]
        op: Op => word,
        step: String,
        worker: Option<i64>,
        #[serde(skip)]
        format: i16,
    }
}

row! {
    /// A saga on the web page.
    #[derive(Debug)]
    Summary {
        id: i64,
        gid: String,
        status: SagaStatus,
        reason: Option<String>,
        queue: String,
        labels: Option<String>,
        created_at: Time,
        finished_at: Option<Time>,
    }
}

fn next(row: &PgRow, _: &str) -> Result<Option<Next>, sqlx::Error> {
    match row.try_get::<Option<&str>, _>("op")? {
        Some(_) => Next::from_row(row).map(Some),
        None => Ok(None),
    }
}

fn exact<S: Serializer>(at: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    at.exact().serialize(serializer)
}

fn exact_or_null<S: Serializer>(at: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(Time::exact).serialize(serializer)
}

/// Postgres' text as JSON. Labels may be nested more deeply than serde_json reads, if a person
/// changed the row.
fn raw_or_null<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let raw = text.as_deref().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    raw.serialize(serializer)
}
