//! `pgsaga pause`, `pgsaga resume` and `pgsaga queues`.

use clap::Args;
use comfy_table::CellAlignment;
use pgsaga_sql::{fail, query};
use sqlx::Row as _;

use super::decide::refusal;
use super::{Database, connect, out, out_json, table_of};
use crate::error::Error;
use crate::words::{count, printable, span_us, time};
use pgsaga_worker::db::Time;

/// Pause a queue
///
/// Nothing of it is claimed, and no saga of it goes on to its next step. Calls in flight end; deadlines wait too.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The queue
    queue: String,
    #[command(flatten)]
    database: Database,
}

/// Let a paused queue go on
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The queue
    queue: String,
    #[command(flatten)]
    database: Database,
}

/// Show each queue and class of priority: what is due, waits and runs
///
/// Reads the whole table of queued tries, which holds no finished saga.
#[derive(Debug, Args)]
pub(crate) struct Queues {
    #[command(flatten)]
    database: Database,
    /// Print one JSON object a queue and class
    #[arg(long)]
    json: bool,
}

/// Pauses or resumes, in a statement of its own.
async fn switch(sql: &'static str, database: &Database, queue: &str) -> Result<(), Error> {
    let pool = connect(&database.database_url).await?;
    fail::before(sql);
    sqlx::query(sql).bind(queue).execute(&pool).await.map_err(refusal)?;
    fail::after(sql);
    pool.close().await;
    Ok(())
}

impl Pause {
    /// Pauses.
    ///
    /// # Errors
    /// [`Error::Absent`] where no saga was ever in the queue.
    pub(crate) async fn run(self) -> Result<(), Error> {
        switch(query::PAUSE, &self.database, &self.queue).await?;
        out(format_args!("queue {} is paused", self.queue))
    }
}

impl Resume {
    /// Resumes.
    ///
    /// # Errors
    /// [`Error::Absent`] where no saga was ever in the queue.
    pub(crate) async fn run(self) -> Result<(), Error> {
        switch(query::RESUME, &self.database, &self.queue).await?;
        out(format_args!("queue {} goes on", self.queue))
    }
}

impl Queues {
    /// Prints the table.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let pool = connect(&self.database.database_url).await?;
        let rows = sqlx::query(query::QUEUES).fetch_all(&pool).await?;
        pool.close().await;
        let mut table = table_of(&["queue", "priority", "due", "waiting", "running", "oldest due", "paused"]);
        for column in table.column_iter_mut().skip(1).take(5) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in &rows {
            let (queue, priority): (String, i16) = (row.try_get("queue")?, row.try_get("priority")?);
            let (due, waiting): (i64, i64) = (row.try_get("due")?, row.try_get("waiting")?);
            let (running, oldest): (i64, i64) = (row.try_get("running")?, row.try_get("oldest_due_us")?);
            let paused_at: Option<Time> = row.try_get("paused_at")?;
            let paused_by: Option<String> = row.try_get("paused_by")?;
            if self.json {
                out_json(serde_json::json!({
                    "queue": queue, "priority": priority, "due": due, "waiting": waiting, "running": running,
                    "oldest_due_seconds": oldest as f64 / 1e6,
                    "paused_at": paused_at.map(|at| at.exact()), "paused_by": paused_by,
                }))?;
                continue;
            }
            let by = paused_by.map(|by| format!(" by {}", printable(&by, 64))).unwrap_or_default();
            table.add_row([
                queue,
                priority.to_string(),
                count(due),
                count(waiting),
                count(running),
                if due > 0 { span_us(oldest) } else { String::new() },
                paused_at.map(|at| format!("since {}{by}", time(at))).unwrap_or_default(),
            ]);
        }
        if self.json { Ok(()) } else { out(table) }
    }
}
