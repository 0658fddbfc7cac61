use std::time::Duration;

use pgsaga_sql::fail;
use pgsaga_sql::query::{self, NewSaga};
use serde::Deserialize;
use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgDatabaseError, PgRow};
use sqlx::{Executor, Postgres, Row as _};

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
    /// The result of a saga that succeeded, as Postgres prints the JSON: the last step's answer if that is JSON, or what
    /// [`Saga::result_mapping`] makes of all.
    pub result: Option<String>,
}

impl Status {
    /// The result as a type of yours; `None` when there is none.
    pub fn read_result<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<Option<T>> {
        self.result.as_deref().map(serde_json::from_str).transpose()
    }
}

/// How statements are sent. [`Saga::submit`], [`submit_many`], [`status`] and [`abort`] use the default.
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
        fail::before(query::ProducerSubmit::SQL);
        let submit = query::ProducerSubmit { saga: row(saga) };
        let inserted = submit
            .query()
            .persistent(self.persistent)
            .fetch_optional(executor)
            .await
            .map_err(not_submitted)?;
        fail::after(query::ProducerSubmit::SQL);
        let inserted = inserted.map(|row| row.try_get("gid")).transpose()?;
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
        fail::before(query::ProducerSubmitMany::SQL);
        let submit = query::ProducerSubmitMany { sagas: sagas.iter().map(row).collect() };
        let rows =
            submit.query().persistent(self.persistent).fetch_all(executor).await.map_err(not_submitted)?;
        fail::after(query::ProducerSubmitMany::SQL);
        let submitted =
            |row: &PgRow| Ok(Submitted { gid: row.try_get("gid")?, created: row.try_get("created")? });
        rows.iter().map(submitted).collect()
    }

    /// As [`status`].
    pub async fn status<'e, E>(&self, executor: E, gid: &str) -> Result<Option<Status>, Error>
    where
        E: Executor<'e, Database = Postgres>,
    {
        let row: Option<(String, Option<String>, Option<String>)> = sqlx::query_as(query::PRODUCER_STATUS)
            .bind(gid)
            .persistent(self.persistent)
            .fetch_optional(executor)
            .await?;
        Ok(row.map(|(status, reason, result)| Status { status, reason, result }))
    }

    /// As [`abort`].
    pub async fn abort<'e, E>(&self, executor: E, gid: &str, reason: &str) -> Result<String, Error>
    where
        E: Executor<'e, Database = Postgres>,
    {
        fail::before(query::PRODUCER_ABORT);
        let status = sqlx::query_scalar(query::PRODUCER_ABORT)
            .bind(gid)
            .bind(reason)
            .persistent(self.persistent)
            .fetch_one(executor)
            .await
            .map_err(|error| not_aborted(gid, error))?;
        fail::after(query::PRODUCER_ABORT);
        Ok(status)
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

/// Turns a saga back, and answers its status afterwards: `aborting`, also when it was so already; or `submitted` while its
/// pivot was called and its outcome is awaited. Once this has committed, no new step is started; calls in flight end
/// first, then what may have taken effect is compensated. The reason is kept in the saga's.
///
/// # Errors
/// [`Error::NoSaga`], [`Error::TooLate`] where it has ended or its pivot has succeeded, [`Error::Reason`] where the reason
/// is empty. Each makes a transaction that it runs in unusable, as any error does in Postgres.
pub async fn abort<'e, E>(executor: E, gid: &str, reason: &str) -> Result<String, Error>
where
    E: Executor<'e, Database = Postgres>,
{
    Producer::default().abort(executor, gid, reason).await
}

/// The primary keys that the INSERT of a saga fills from a sequence. A clash of one of them is not
/// a clash of gids.
const IDS: [(&str, &str, &str); 3] = [
    // control: clash-of-ids
    ("saga_pkey", "saga_id_seq", "saga"),
    ("task_pkey", "task_id_seq", "task"),
    ("lane_pkey", "lane_id_seq", "lane"),
];

fn not_submitted(error: sqlx::Error) -> Error {
    let refusal = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    let taken = refusal.filter(|refusal| refusal.code() == "23505" && refusal.schema() == Some("pgsaga"));
    let id =
        taken.and_then(|taken| IDS.iter().find(|(constraint, ..)| taken.constraint() == Some(constraint)));
    match id {
        Some(&(_, sequence, table)) => Error::SequenceBehind { sequence, table, source: error },
        None => Error::Database(error),
    }
}

fn not_aborted(gid: &str, error: sqlx::Error) -> Error {
    let Some(refusal) = error.as_database_error() else { return Error::Database(error) };
    let (gid, why) = (gid.to_owned(), refusal.message().to_owned());
    match refusal.code().as_deref() {
        Some("P0002") => Error::NoSaga { gid },
        Some("55000") => Error::TooLate { gid, why },
        Some("22023") => Error::Reason { gid, why },
        _ => Error::Database(error),
    }
}

fn row(saga: &Definition) -> NewSaga<'_> {
    NewSaga {
        gid: saga.gid.as_ref().map(|gid| gid.as_str()),
        steps: &saga.steps,
        retry_interval: saga.retry_interval.map(interval),
        retry_limit: saga.retry_limit,
        request_timeout: saga.request_timeout.map(interval),
        headers: saga.headers.as_deref(),
        labels: saga.labels.as_deref(),
        queue: saga.queue.as_deref(),
        priority: saga.priority,
        run_at: saga.run_at,
        run_after: saga.run_after.map(interval),
        timeout_to_fail: saga.timeout_to_fail.map(interval),
        compensate_retry_limit: saga.compensate_retry_limit,
        result_mapping: saga.result_mapping.as_deref(),
    }
}

/// A definition's durations are within a century, so this loses nothing but what lies below a microsecond.
fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}
