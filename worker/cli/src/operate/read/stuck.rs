//! Steps of all sagas that wait for a person.

use pgsaga_plan::Op;
use pgsaga_sql::query;
use pgsaga_worker::db::Time;
use sqlx::postgres::PgPool;

use super::row;
use super::words::optional;
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

/// The last row of the page before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cursor {
    pub(crate) at: Option<Time>,
    pub(crate) saga_id: Option<i64>,
    pub(crate) step: Option<String>,
}

/// The `limit` longest stuck steps behind the cursor.
pub(crate) async fn read(pool: PgPool, behind: Cursor, limit: i64) -> Result<Vec<StuckStep>, Error> {
    let page = sqlx::query_as(query::UI_STUCK).bind(behind.at).bind(behind.saga_id).bind(behind.step);
    Ok(page.bind(limit).fetch_all(&pool).await?)
}
