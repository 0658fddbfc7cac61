//! Workers that have a row.

use pgsaga_sql::query;
use pgsaga_worker::db::Time;
use sqlx::postgres::PgPool;

use super::row;
use crate::error::Error;

/// Upper bound on the rows of a list. A dead worker's row is removed once its tasks are rescued.
const WORKERS_MAX: i64 = 1000;

row! {
    #[derive(Debug)]
    Worker {
        id: i64,
        host: String,
        pid: i32,
        version: String,
        dead: bool,
        retired: bool,
        lease_ms: i32,
        started_at: Time,
        age_us: i64,
        seen_us: i64,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerState {
    Alive,
    /// Sent no heartbeat for its lease.
    Silent,
    Dead,
    Retired,
}

impl WorkerState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            WorkerState::Alive => "alive",
            WorkerState::Silent => "silent",
            WorkerState::Dead => "dead",
            WorkerState::Retired => "retired",
        }
    }
}

impl Worker {
    pub(crate) fn lease_us(&self) -> i64 {
        i64::from(self.lease_ms) * 1000
    }

    pub(crate) fn state(&self) -> WorkerState {
        match self {
            Worker { retired: true, .. } => WorkerState::Retired,
            Worker { dead: true, .. } => WorkerState::Dead,
            _ if self.seen_us > self.lease_us() => WorkerState::Silent,
            _ => WorkerState::Alive,
        }
    }
}

pub(crate) async fn read(pool: PgPool) -> Result<Vec<Worker>, Error> {
    Ok(sqlx::query_as(query::UI_WORKERS).bind(WORKERS_MAX).fetch_all(&pool).await?)
}
