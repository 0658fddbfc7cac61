//! `pgsaga pause`, `pgsaga resume` and `pgsaga queues`.

use clap::Args;
use comfy_table::CellAlignment;
use pgsaga_sql::{fail, query};
use pgsaga_worker::db::Time;

use super::decide::refusal;
use super::read::queues::{self, Counts, Queue};
use super::{Database, connect};
use crate::error::Error;
use crate::output::{out, out_json, table_of};
use crate::words::{count, printable, span_us, time};

/// Pause a queue
///
/// No worker claims a task of the queue, and no saga of the queue continues with its next step.
/// Calls in flight end. Deadlines are not enforced until the queue is resumed.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Name of the queue to pause
    queue: String,
    #[command(flatten)]
    pub(crate) database: Database,
}

/// Resume a paused queue
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// Name of the queue to resume
    queue: String,
    #[command(flatten)]
    pub(crate) database: Database,
}

/// Show how many tasks of each queue and priority are due, wait and run, and how many living
/// workers serve it
///
/// Reads the whole table of tasks, which holds no finished saga.
#[derive(Debug, Args)]
pub(crate) struct Queues {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Print one JSON object for each queue and priority
    #[arg(long)]
    json: bool,
}

/// Pauses or resumes the queue, in one statement.
async fn switch(sql: &'static str, database: &Database, queue: &str) -> Result<(), Error> {
    let pool = connect(&database.database_url).await?;
    fail::before(sql);
    sqlx::query(sql).bind(queue).execute(&pool).await.map_err(refusal)?;
    fail::after(sql);
    pool.close().await;
    Ok(())
}

impl Pause {
    pub(crate) async fn run(self) -> Result<(), Error> {
        switch(query::PAUSE, &self.database, &self.queue).await?;
        out(format_args!("queue {} is paused", self.queue))
    }
}

impl Resume {
    pub(crate) async fn run(self) -> Result<(), Error> {
        switch(query::RESUME, &self.database, &self.queue).await?;
        out(format_args!("queue {} is resumed", self.queue))
    }
}

impl Queues {
    pub(crate) async fn run(self) -> Result<(), Error> {
        let pool = connect(&self.database.database_url).await?;
        let queues = queues::counted(&pool).await?;
        pool.close().await;
        if self.json {
            return queues.iter().try_for_each(|(queue, counts)| out_json(json(queue, counts)));
        }
        let mut table =
            table_of(&["queue", "priority", "due", "waiting", "running", "oldest due", "workers", "paused"]);
        for column in table.column_iter_mut().skip(1).take(6) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for (queue, counts) in queues {
            let by = queue.paused_by.map(|by| format!(" by {}", printable(&by, 64))).unwrap_or_default();
            table.add_row([
                queue.queue,
                queue.priority.to_string(),
                count(counts.due),
                count(counts.waiting),
                count(counts.running),
                if counts.due > 0 { span_us(counts.oldest_due_us) } else { String::new() },
                count(counts.workers),
                queue.paused_at.map(|at| format!("since {}{by}", time(at))).unwrap_or_default(),
            ]);
        }
        out(table)
    }
}

fn json(queue: &Queue, counts: &Counts) -> serde_json::Value {
    serde_json::json!({
        "queue": queue.queue, "priority": queue.priority,
        "due": counts.due, "waiting": counts.waiting, "running": counts.running,
        "oldest_due_seconds": counts.oldest_due_us as f64 / 1e6, "workers": counts.workers,
        "paused_at": queue.paused_at.map(Time::exact), "paused_by": queue.paused_by,
    })
}
