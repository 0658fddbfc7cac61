//! The stuck steps of all sagas.

use pgsaga_plan::Op;
use pgsaga_sql::query::{self, RawTime};
use pgsaga_worker::db::Time;
use sqlx::postgres::PgPool;

use super::words::optional;
use super::{all, row};
use crate::error::Error;

row! {
    #[derive(Debug)]
    StuckStep {
        gid: String,
        queue: String,
        saga_id: i64,
        step: String,
        op: Option<Op> => optional,
        reason: String,
        at: Time,
        since_us: i64,
    }
}

/// The last row of the previous page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cursor {
    pub(crate) at: Option<Time>,
    pub(crate) saga_id: Option<i64>,
    pub(crate) step: Option<String>,
}

/// Returns the `limit` longest stuck steps after the cursor.
pub(crate) async fn read(pool: PgPool, behind: Cursor, limit: i64) -> Result<Vec<StuckStep>, Error> {
    let page = query::UiStuck {
        after_at: behind.at.map(|at| RawTime(at.raw())),
        after_saga_id: behind.saga_id,
        after_step: behind.step.as_deref(),
        steps_max: limit,
    };
    Ok(all(&page.query().fetch_all(&pool).await?)?)
}
