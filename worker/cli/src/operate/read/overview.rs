//! The newest sagas by status, the queues and the workers.

use pgsaga_sql::contract::SagaStatus;
use pgsaga_sql::query;
use pgsaga_worker::db::Time;
use sqlx::Row as _;
use sqlx::postgres::PgPool;

use super::queues::{self, Counts, Queue};
use super::workers::{self, Worker};
use crate::error::Error;

/// Number of the newest sagas that are counted. Reading them takes a few megabytes.
pub(crate) const NEWEST: i64 = 10_000;

#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) sagas: i64,
    pub(crate) by_status: Vec<(SagaStatus, i64)>,
    pub(crate) stuck_of_all: i64,
    pub(crate) at: Time,
    /// `None` if there are too many tasks to count them in time.
    pub(crate) queues: Option<Vec<(Queue, Counts)>>,
    pub(crate) workers: Vec<Worker>,
}

impl Overview {
    pub(crate) async fn read(pool: PgPool) -> Result<Overview, Error> {
        let row = sqlx::query(query::UI_OVERVIEW).bind(NEWEST).fetch_one(&pool).await?;
        let count = |status: SagaStatus| row.try_get(status.as_str()).map(|count| (status, count));
        let queues = match queues::counted(&pool).await {
            Err(error) if error.is_too_long() => None,
            queues => Some(queues?),
        };
        Ok(Overview {
            sagas: row.try_get("sagas")?,
            by_status: SagaStatus::ALL.into_iter().map(count).collect::<Result<_, _>>()?,
            stuck_of_all: row.try_get("stuck_of_all")?,
            at: row.try_get("at")?,
            queues,
            workers: workers::read(pool).await?,
        })
    }
}
