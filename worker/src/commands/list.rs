//! `pgsaga list`.

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use pgsaga_sql::query;
use sqlx::Row as _;

use super::{Database, out};
use crate::db;
use crate::error::Error;

/// Lists sagas, the newest first.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    database: Database,
    /// Only sagas of this status
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// Only unfinished sagas
    #[arg(long)]
    open: bool,
    /// At most so many, 1 to 10,000
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// Print one JSON object a saga
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Status {
    Submitted,
    Succeeded,
    Aborting,
    Failed,
    Stuck,
}

impl List {
    /// Prints the table.
    ///
    /// # Errors
    /// What the database says.
    pub async fn run(self) -> Result<(), Error> {
        let pool = db::connect(&self.database.database_url).await?;
        let status = self
            .status
            .and_then(|status| status.to_possible_value())
            .map(|value| value.get_name().to_owned());
        let rows =
            sqlx::query(query::LIST).bind(status).bind(self.open).bind(self.limit).fetch_all(&pool).await?;
        let mut table = Table::new();
        table
            .load_style(UTF8_HORIZONTAL_ONLY)
            .set_header(["gid", "status", "steps", "created", "finished", "next", "reason"]);
        for row in &rows {
            let gid: String = row.try_get("gid")?;
            let status: String = row.try_get("status")?;
            let reason: Option<String> = row.try_get("reason")?;
            let steps: i32 = row.try_get("steps")?;
            let created_at: DateTime<Utc> = row.try_get("created_at")?;
            let finished_at: Option<DateTime<Utc>> = row.try_get("finished_at")?;
            let next = next(row)?;
            if self.json {
                out(format_args!(
                    "{}",
                    serde_json::json!({
                        "gid": gid, "status": status, "reason": reason, "steps": steps,
                        "created_at": created_at.to_rfc3339(), "finished_at": finished_at.map(|at| at.to_rfc3339()), "next": next,
                    })
                ))?;
                continue;
            }
            table.add_row([
                gid,
                status,
                steps.to_string(),
                time(created_at),
                finished_at.map(time).unwrap_or_default(),
                next.unwrap_or_default(),
                reason.unwrap_or_default(),
            ]);
        }
        if !self.json {
            out(format_args!("{table}"))?;
        }
        pool.close().await;
        Ok(())
    }
}

fn next(row: &sqlx::postgres::PgRow) -> Result<Option<String>, sqlx::Error> {
    let Some(op) = row.try_get::<Option<String>, _>("op")? else { return Ok(None) };
    let (step, attempt): (i16, i32) = (row.try_get("step")?, row.try_get("attempt")?);
    let worker: Option<i64> = row.try_get("worker")?;
    let due_ms: i64 = row.try_get("due_ms")?;
    Ok(Some(format!("{op} of step {step}, try {attempt}, {}", when(worker, due_ms))))
}

/// A time as a person reads it, in UTC.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// When a task runs, in words.
pub(super) fn when(worker: Option<i64>, due_ms: i64) -> String {
    match worker {
        Some(worker) => format!("held by worker {worker}"),
        None if due_ms > 0 => format!("in {:.1} s", due_ms as f64 / 1000.0),
        None => format!("due for {:.1} s", -due_ms as f64 / 1000.0),
    }
}
