//! Queues and their classes of priority.

use pgsaga_sql::query;
use pgsaga_worker::db::Time;
use sqlx::FromRow as _;
use sqlx::postgres::{PgPool, PgRow};

use super::row;
use crate::error::Error;

/// Upper bound on the classes of a list. A queue has four.
const CLASSES_MAX: i64 = 1000;

row! {
    /// A class of priority in a queue.
    #[derive(Debug)]
    Queue {
        queue: String,
        priority: i16,
        paused_at: Option<Time>,
        paused_by: Option<String>,
    }
}

row! {
    /// Number of the queue's tries by what they wait for.
    #[derive(Debug, Clone, Copy)]
    Counts {
        due: i64,
        waiting: i64,
        running: i64,
        oldest_due_us: i64,
    }
}

/// All classes of all queues, with their counts. Reads the whole table of tasks.
pub(crate) async fn counted(pool: &PgPool) -> Result<Vec<(Queue, Counts)>, Error> {
    let rows = sqlx::query(query::QUEUES).fetch_all(pool).await?;
    let read = |row: &PgRow| Ok((Queue::from_row(row)?, Counts::from_row(row)?));
    Ok(rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?)
}

/// All classes of all queues, or of the queue `name`, without counts.
pub(crate) async fn uncounted(pool: PgPool, name: Option<String>) -> Result<Vec<Queue>, Error> {
    Ok(sqlx::query_as(query::UI_QUEUES).bind(name).bind(CLASSES_MAX).fetch_all(&pool).await?)
}
