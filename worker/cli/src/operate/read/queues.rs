//! Queues and their priority classes.

use pgsaga_sql::query;
use pgsaga_worker::db::Time;
use sqlx::FromRow as _;
use sqlx::postgres::{PgPool, PgRow};

use super::row;
use crate::error::Error;

/// Upper bound on the classes of a list. A queue has up to four.
const CLASSES_MAX: i64 = 1000;

row! {
    /// One priority class of a queue.
    #[derive(Debug)]
    Queue {
        queue: String,
        priority: i16,
        paused_at: Option<Time>,
        paused_by: Option<String>,
    }
}

row! {
    /// The queue's tasks, counted by state, and the living workers that serve it.
    #[derive(Debug, Clone, Copy)]
    Counts {
        due: i64,
        waiting: i64,
        running: i64,
        oldest_due_us: i64,
        workers: i64,
    }
}

/// Returns all classes of all queues with their counts. Reads the whole table of tasks.
pub(crate) async fn counted(pool: &PgPool) -> Result<Vec<(Queue, Counts)>, Error> {
    let rows = sqlx::query(query::QUEUES).fetch_all(pool).await?;
    let read = |row: &PgRow| Ok((Queue::from_row(row)?, Counts::from_row(row)?));
    Ok(rows.iter().map(read).collect::<Result<_, sqlx::Error>>()?)
}

/// Returns the classes of all queues, or of the queue `name`, without counts.
pub(crate) async fn uncounted(pool: PgPool, name: Option<String>) -> Result<Vec<Queue>, Error> {
    Ok(sqlx::query_as(query::UI_QUEUES).bind(name).bind(CLASSES_MAX).fetch_all(&pool).await?)
}
