use std::time::Duration;

use pgsaga_sql::query;
use sqlx::postgres::types::PgInterval;
use sqlx::{Executor, Postgres};

use crate::definition::Definition;
use crate::error::Error;
use crate::saga::Saga;

/// What became of a saga that was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The saga's name: the one given, or the one that the database made.
    pub gid: String,
    /// False when a saga of this gid was there already; it is left as it is.
    pub created: bool,
}

/// Where a saga stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `submitted`, `aborting`, `succeeded`, `failed` or `stuck`.
    pub status: String,
    /// Why it is aborting, failed or stuck: it starts with the step's name.
    pub reason: Option<String>,
}

/// How statements are sent. [`Saga::submit`], [`submit_many`] and [`status`] use the default.
#[derive(Debug, Clone, Copy)]
pub struct Producer {
    pub(crate) persistent: bool,
}

impl Default for Producer {
    /// Statements are prepared once a connection.
    fn default() -> Self {
        Self { persistent: true }
    }
}

impl Producer {
    /// For pools that go through PgBouncer in transaction mode, where the next message may meet another server
    /// connection: statements are not kept. Submit and ask **inside a transaction**, which stays on one server connection;
    /// sqlx prepares and runs a statement in two exchanges, and outside a transaction PgBouncer may part them, which is
    /// an error, never a wrong result. Also connect with `PgConnectOptions::extra_float_digits(None)`.
    pub fn behind_pgbouncer() -> Self {
        Self { persistent: false }
    }

    /// As [`Saga::submit`].
    pub async fn submit<'e, E>(&self, executor: E, saga: &Saga) -> Result<Submitted, Error>
    where
        E: Executor<'e, Database = Postgres>,
    {
        self.submit_definition(executor, &saga.definition()?).await
    }

    /// Inserts a saga that was checked before. Idempotent by gid.
    pub async fn submit_definition<'e, E>(&self, executor: E, saga: &Definition) -> Result<Submitted, Error>
    where
        E: Executor<'e, Database = Postgres>,
    {
        let given = saga.gid.as_ref().map(|gid| gid.as_str());
        let inserted: Option<String> = sqlx::query_scalar(query::PRODUCER_SUBMIT)
            .bind(given)
            .bind(&saga.steps)
            .bind(saga.retry_interval.map(interval))
            .bind(saga.retry_limit)
            .bind(saga.request_timeout.map(interval))
            .bind(&saga.headers)
            .bind(&saga.labels)
            .persistent(self.persistent)
            .fetch_optional(executor)
            .await?;
        match (inserted, given) {
            (Some(gid), _) => Ok(Submitted { gid, created: true }),
            (None, Some(gid)) => Ok(Submitted { gid: gid.to_owned(), created: false }),
            (None, None) => Err(Error::Database(sqlx::Error::RowNotFound)),
        }
    }

    /// As [`submit_many`].
    pub async fn submit_many<'e, E>(&self, executor: E, sagas: &[Saga]) -> Result<Vec<Submitted>, Error>
    where
        E: Executor<'e, Database = Postgres>,
    {
        let definitions = sagas
            .iter()
            .enumerate()
            .map(|(index, saga)| {
                saga.definition().map_err(|invalid| Error::InvalidInBatch { index, invalid })
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.submit_definitions(executor, &definitions).await
    }

    /// As [`submit_many`], for sagas that were checked before.
    pub async fn submit_definitions<'e, E>(
        &self,
        executor: E,
        sagas: &[Definition],
    ) -> Result<Vec<Submitted>, Error>
    where
        E: Executor<'e, Database = Postgres>,
    {
        if sagas.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<(String, bool)> = sqlx::query_as(query::PRODUCER_SUBMIT_MANY)
            .bind(column(sagas, |saga| saga.gid.as_ref().map(|gid| gid.as_str())))
            .bind(column(sagas, |saga| saga.steps.as_str()))
            .bind(column(sagas, |saga| saga.retry_interval.map(interval)))
            .bind(column(sagas, |saga| saga.retry_limit))
            .bind(column(sagas, |saga| saga.request_timeout.map(interval)))
            .bind(column(sagas, |saga| saga.headers.as_deref()))
            .bind(column(sagas, |saga| saga.labels.as_deref()))
            .persistent(self.persistent)
            .fetch_all(executor)
            .await?;
        Ok(rows.into_iter().map(|(gid, created)| Submitted { gid, created }).collect())
    }

    /// As [`status`].
    pub async fn status<'e, E>(&self, executor: E, gid: &str) -> Result<Option<Status>, Error>
    where
        E: Executor<'e, Database = Postgres>,
    {
        let row: Option<(String, Option<String>)> = sqlx::query_as(query::PRODUCER_STATUS)
            .bind(gid)
            .persistent(self.persistent)
            .fetch_optional(executor)
            .await?;
        Ok(row.map(|(status, reason)| Status { status, reason }))
    }
}

/// Checks the sagas and inserts them in one statement; answers in their order. Idempotent by gid: of several with the
/// same gid only the first is created. One bad saga and none is inserted.
pub async fn submit_many<'e, E>(executor: E, sagas: &[Saga]) -> Result<Vec<Submitted>, Error>
where
    E: Executor<'e, Database = Postgres>,
{
    Producer::default().submit_many(executor, sagas).await
}

/// Where a saga stands; `None` when there is none of this gid, or its transaction has not committed.
pub async fn status<'e, E>(executor: E, gid: &str) -> Result<Option<Status>, Error>
where
    E: Executor<'e, Database = Postgres>,
{
    Producer::default().status(executor, gid).await
}

fn column<'a, T>(sagas: &'a [Definition], of: impl Fn(&'a Definition) -> T) -> Vec<T> {
    sagas.iter().map(of).collect()
}

/// A definition's durations are within a day, so this loses nothing but what lies below a microsecond.
fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}
