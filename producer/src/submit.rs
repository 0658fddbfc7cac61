use pgsaga_sql::contract::SagaStatus;
use pgsaga_sql::fail;
use pgsaga_sql::query::{self, NewSaga};
use serde::Deserialize;
use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgDatabaseError, PgRow};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgExecutor, Row as _};

use crate::definition::Definition;
use crate::error::Error;
use crate::saga::Saga;

/// Result of submitting a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The saga's name: the one given, or the one that the database made.
    pub gid: String,
    /// False when a saga of this gid existed already; the existing saga stays as it is.
    pub created: bool,
}

/// Status of a saga, with its reason or its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Where the saga is in its life.
    pub status: SagaStatus,
    /// Why the saga is aborting, failed or stuck; starts with a step's name.
    pub reason: Option<String>,
    /// Result of a saga that succeeded, as Postgres prints the JSON: the last step's answer if that
    /// is JSON, or what [`Saga::result_mapping`] makes of the answers.
    pub result: Option<String>,
}

impl Status {
    /// Deserializes the result; `None` when there is none.
    pub fn read_result<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<Option<T>> {
        self.result.as_deref().map(serde_json::from_str).transpose()
    }
}

/// How statements are sent. [`Saga::submit`], [`submit_many`], [`status`], [`abort`] and
/// [`complete`](crate::complete) use the default.
#[derive(Debug, Clone, Copy)]
pub struct Producer {
    pub(crate) persistent: bool,
}

impl Default for Producer {
    /// Prepares each statement once a connection.
    fn default() -> Self {
        Self { persistent: true }
    }
}

impl Producer {
    /// Does not keep prepared statements, as a pool through PgBouncer in transaction mode needs:
    /// there, the next statement may run on another server connection.
    ///
    /// Use it **inside a transaction**, which stays on one server connection. sqlx prepares and
    /// runs a statement in two exchanges; outside a transaction PgBouncer may separate them, which
    /// is an error, never a wrong result. Also connect with
    /// `PgConnectOptions::extra_float_digits(None)`.
    pub fn behind_pgbouncer() -> Self {
        Self { persistent: false }
    }

    /// Checks and inserts a saga, as [`Saga::submit`] does.
    pub async fn submit<'e>(&self, executor: impl PgExecutor<'e>, saga: &Saga) -> Result<Submitted, Error> {
        self.submit_definition(executor, &saga.definition()?).await
    }

    /// Inserts a saga that was checked before, as [`Saga::submit`] does.
    pub async fn submit_definition<'e>(
        &self,
        executor: impl PgExecutor<'e>,
        saga: &Definition,
    ) -> Result<Submitted, Error> {
        let given = saga.columns.gid.as_deref();
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

    /// Checks and inserts sagas, as [`submit_many`] does.
    pub async fn submit_many<'e>(
        &self,
        executor: impl PgExecutor<'e>,
        sagas: &[Saga],
    ) -> Result<Vec<Submitted>, Error> {
        let definitions = sagas
            .iter()
            .enumerate()
            .map(|(index, saga)| {
                saga.definition().map_err(|invalid| Error::InvalidInBatch { index, invalid })
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.submit_definitions(executor, &definitions).await
    }

    /// Inserts sagas that were checked before, as [`submit_many`] does.
    pub async fn submit_definitions<'e>(
        &self,
        executor: impl PgExecutor<'e>,
        sagas: &[Definition],
    ) -> Result<Vec<Submitted>, Error> {
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

    /// Reads the status of a saga, as [`status`] does.
    pub async fn status<'e>(
        &self,
        executor: impl PgExecutor<'e>,
        gid: &str,
    ) -> Result<Option<Status>, Error> {
        let row: Option<(SagaStatus, Option<String>, Option<String>)> =
            sqlx::query_as(query::PRODUCER_STATUS)
                .bind(gid)
                .persistent(self.persistent)
                .fetch_optional(executor)
                .await?;
        Ok(row.map(|(status, reason, result)| Status { status, reason, result }))
    }

    /// Aborts a saga, as [`abort`] does.
    pub async fn abort<'e>(
        &self,
        executor: impl PgExecutor<'e>,
        gid: &str,
        reason: &str,
    ) -> Result<SagaStatus, Error> {
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

impl Saga {
    /// Checks the saga and inserts it. When `executor` is your transaction, the saga exists exactly
    /// when your own rows do. A saga whose gid exists already stays as it is, and `created` is
    /// false.
    pub async fn submit<'e>(&self, executor: impl PgExecutor<'e>) -> Result<Submitted, Error> {
        Producer::default().submit(executor, self).await
    }
}

/// Checks the sagas and inserts them in one statement; the results are in the order of the sagas.
/// Of several sagas with the same gid only the first is created. If one saga is refused, none is
/// inserted.
pub async fn submit_many<'e>(executor: impl PgExecutor<'e>, sagas: &[Saga]) -> Result<Vec<Submitted>, Error> {
    Producer::default().submit_many(executor, sagas).await
}

/// Reads the status of a saga; `None` when there is no saga of this gid, or its transaction has not
/// committed.
pub async fn status<'e>(executor: impl PgExecutor<'e>, gid: &str) -> Result<Option<Status>, Error> {
    Producer::default().status(executor, gid).await
}

/// Aborts a saga, and returns its status afterwards: [`SagaStatus::Aborting`], or
/// [`SagaStatus::Submitted`] while the outcome of a pivot that was called is awaited. An aborting
/// saga may be aborted again. Once the abort has committed, no new step starts; calls in flight end
/// first, then the steps that may have taken effect are compensated. The saga's reason contains
/// `reason`.
///
/// # Errors
/// [`Error::NoSaga`]; [`Error::TooLate`] when the saga has ended or its pivot has succeeded;
/// [`Error::Reason`] when the reason is empty. As in Postgres, each error aborts the transaction
/// that it happens in.
pub async fn abort<'e>(executor: impl PgExecutor<'e>, gid: &str, reason: &str) -> Result<SagaStatus, Error> {
    Producer::default().abort(executor, gid, reason).await
}

/// Primary keys that the INSERT of a saga fills from a sequence. Their clashes are no clashes of
/// gids.
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
    let columns = &saga.columns;
    NewSaga {
        gid: columns.gid.as_deref(),
        steps: &columns.steps,
        retry_interval: columns.retry_interval_us.map(interval),
        retry_limit: columns.retry_limit.and_then(narrow),
        request_timeout: columns.request_timeout_us.map(interval),
        headers: columns.headers.as_deref(),
        labels: columns.labels.as_deref(),
        queue: columns.queue.as_deref(),
        priority: columns.priority.and_then(narrow),
        run_at: columns.run_at_us.and_then(time),
        run_after: columns.run_after_us.map(interval),
        timeout_to_fail: columns.timeout_to_fail_us.map(interval),
        compensate_retry_limit: columns.compensate_retry_limit.and_then(narrow),
        compensate_failed: columns.compensate_failed,
        result_mapping: columns.result_mapping.as_deref(),
    }
}

/// A checked number, which fits the type of its column.
fn narrow<T: TryFrom<i64>>(number: i64) -> Option<T> {
    T::try_from(number).ok()
}

fn time(micros_since_1970: i128) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(i64::try_from(micros_since_1970).ok()?)
}

/// A checked duration is within a century.
fn interval(micros: i128) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(micros).unwrap_or(i64::MAX) }
}
