//! `pgsaga show GID`.

use chrono::{DateTime, Utc};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use pgsaga_sql::query;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{PgPool, Row as _};

use super::{Database, list, out};
use crate::db;
use crate::definition::default_step_name;
use crate::error::Error;

/// Shows one saga: its definition, its history, and what is next.
#[derive(Debug, Args)]
pub struct Show {
    /// The saga's gid
    gid: String,
    #[command(flatten)]
    database: Database,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A saga as it is shown. JSON columns are Postgres's own text: numbers keep their digits.
#[derive(Debug, Serialize)]
struct Saga {
    gid: String,
    status: String,
    reason: Option<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    retry_interval: String,
    retry_limit: Option<i32>,
    request_timeout: String,
    headers: Option<Box<RawValue>>,
    labels: Option<Box<RawValue>>,
    steps: Vec<Box<RawValue>>,
    history: Vec<Event>,
    next: Vec<Task>,
}

#[derive(Debug, Serialize)]
struct Event {
    seq: i64,
    at: DateTime<Utc>,
    kind: String,
    step: Option<String>,
    op: Option<String>,
    attempt: Option<i32>,
    outcome: Option<String>,
    status_code: Option<i16>,
    duration_us: Option<i32>,
    message: Option<String>,
    worker: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Task {
    step: String,
    op: String,
    attempt: i32,
    worker: Option<i64>,
    host: Option<String>,
    pid: Option<i32>,
    lost_workers: i16,
    due_ms: i64,
}

/// What the table shows of a step.
#[derive(Debug, Deserialize)]
struct Step<'a> {
    name: Option<String>,
    action: Option<String>,
    compensate: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl Show {
    /// Prints the saga.
    ///
    /// # Errors
    /// [`Error::NotFound`] (exit code 4) for an unknown gid.
    pub async fn run(self) -> Result<(), Error> {
        let pool = db::connect(&self.database.database_url).await?;
        let saga = read(&pool, &self.gid).await?.ok_or(Error::NotFound(self.gid))?;
        pool.close().await;
        if self.json {
            out(format_args!("{}", serde_json::to_string_pretty(&saga).map_err(unreadable)?))?;
            return Ok(());
        }
        print(&saga)
    }
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::Found(format!("the saga's row cannot be read: {error}"))
}

async fn read(pool: &PgPool, gid: &str) -> Result<Option<Saga>, Error> {
    let Some(saga) = sqlx::query(query::SHOW_SAGA).bind(gid).fetch_optional(pool).await? else {
        return Ok(None);
    };
    let id: i64 = saga.try_get("id")?;
    let steps: Vec<Box<RawValue>> = serde_json::from_str(saga.try_get("steps")?).map_err(unreadable)?;
    let mut names = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        let step: Step<'_> = serde_json::from_str(step.get()).map_err(unreadable)?;
        names.push(step.name.unwrap_or_else(|| default_step_name(index)));
    }
    let name = |step: i16| {
        let index = usize::try_from(step - 1).unwrap_or(usize::MAX);
        names.get(index).cloned().unwrap_or_else(|| step.to_string())
    };
    let mut history = Vec::new();
    for row in sqlx::query(query::SHOW_HISTORY).bind(id).fetch_all(pool).await? {
        history.push(Event {
            seq: row.try_get("seq")?,
            at: row.try_get("at")?,
            kind: row.try_get("kind")?,
            step: row.try_get::<Option<i16>, _>("step")?.map(name),
            op: row.try_get("op")?,
            attempt: row.try_get("attempt")?,
            outcome: row.try_get("outcome")?,
            status_code: row.try_get("status_code")?,
            duration_us: row.try_get("duration_us")?,
            message: row.try_get("message")?,
            worker: row.try_get("worker")?,
        });
    }
    let mut next = Vec::new();
    for row in sqlx::query(query::SHOW_TASKS).bind(id).fetch_all(pool).await? {
        next.push(Task {
            step: name(row.try_get("step")?),
            op: row.try_get("op")?,
            attempt: row.try_get("attempt")?,
            worker: row.try_get("worker")?,
            host: row.try_get("host")?,
            pid: row.try_get("pid")?,
            lost_workers: row.try_get("lost")?,
            due_ms: row.try_get("due_ms")?,
        });
    }
    let raw = |column: &'static str| -> Result<Option<Box<RawValue>>, Error> {
        let text: Option<String> = saga.try_get(column)?;
        text.map(RawValue::from_string).transpose().map_err(unreadable)
    };
    Ok(Some(Saga {
        gid: saga.try_get("gid")?,
        status: saga.try_get("status")?,
        reason: saga.try_get("reason")?,
        created_at: saga.try_get("created_at")?,
        finished_at: saga.try_get("finished_at")?,
        retry_interval: saga.try_get("retry_interval")?,
        retry_limit: saga.try_get("retry_limit")?,
        request_timeout: saga.try_get("request_timeout")?,
        headers: raw("headers")?,
        labels: raw("labels")?,
        steps,
        history,
        next,
    }))
}

fn print(saga: &Saga) -> Result<(), Error> {
    out(format_args!("saga {}: {}", saga.gid, saga.status))?;
    if let Some(reason) = &saga.reason {
        out(format_args!("reason: {reason}"))?;
    }
    let finished = saga.finished_at.map(|at| format!(", finished {}", list::time(at))).unwrap_or_default();
    out(format_args!("created {}{finished}", list::time(saga.created_at)))?;

    let mut steps = table(&["step", "action", "compensate", "payload"]);
    for (index, step) in saga.steps.iter().enumerate() {
        let step: Step<'_> = serde_json::from_str(step.get()).map_err(unreadable)?;
        let mut payload = shown(step.payload);
        if payload.len() > 60 {
            payload = payload.chars().take(60).chain(['…']).collect();
        }
        let name = step.name.unwrap_or_else(|| default_step_name(index));
        steps.add_row([name, shown(step.action), shown(step.compensate), payload]);
    }
    out(format_args!("\nDefinition\n{steps}"))?;

    let mut history = table(&["at", "step", "op", "try", "outcome", "status", "took", "worker", "message"]);
    for event in &saga.history {
        history.add_row([
            list::time(event.at),
            shown(event.step.as_deref()),
            shown(event.op.as_deref()),
            shown(event.attempt),
            shown(event.outcome.as_deref()),
            shown(event.status_code),
            event.duration_us.map(|us| format!("{:.1} ms", f64::from(us) / 1000.0)).unwrap_or_default(),
            shown(event.worker),
            shown(event.message.as_deref()),
        ]);
    }
    out(format_args!("\nHistory\n{history}"))?;

    out(format_args!("\nNext"))?;
    if saga.next.is_empty() {
        out(format_args!(
            "{}",
            if saga.status == "stuck" { "a person must look: see the reason" } else { "nothing: it is over" }
        ))?;
    }
    for task in &saga.next {
        let place = match (&task.host, task.pid) {
            (Some(host), Some(pid)) => format!(" (process {pid} on {host})"),
            _ => String::new(),
        };
        let when = list::when(task.worker, task.due_ms);
        out(format_args!("{} of step {}, try {}, {when}{place}", task.op, task.step, task.attempt))?;
    }
    Ok(())
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

/// What is absent is shown as nothing.
fn shown(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
