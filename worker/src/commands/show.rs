//! `pgsaga show GID`.

use chrono::{DateTime, Utc};
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use pgsaga_sql::query;
use serde_json::{Value, json};
use sqlx::{PgPool, Row as _};

use super::{Database, list};
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
            println!("{saga:#}");
        } else {
            print(&saga);
        }
        Ok(())
    }
}

/// The saga as JSON: what both forms of output are made from.
async fn read(pool: &PgPool, gid: &str) -> Result<Option<Value>, Error> {
    let Some(saga) = sqlx::query(query::SHOW_SAGA).bind(gid).fetch_optional(pool).await? else {
        return Ok(None);
    };
    let id: i64 = saga.try_get("id")?;
    let steps: Value = serde_json::from_str(saga.try_get("steps")?).unwrap_or_default();
    let name = |step: i16| {
        let index = usize::try_from(step - 1).unwrap_or(0);
        steps[index]["name"].as_str().map_or_else(|| default_step_name(index), str::to_owned)
    };
    let mut history = Vec::new();
    for row in sqlx::query(query::SHOW_HISTORY).bind(id).fetch_all(pool).await? {
        let at: DateTime<Utc> = row.try_get("at")?;
        history.push(json!({
            "seq": row.try_get::<i64, _>("seq")?,
            "at": at.to_rfc3339(),
            "kind": row.try_get::<String, _>("kind")?,
            "step": row.try_get::<Option<i16>, _>("step")?.map(name),
            "op": row.try_get::<Option<String>, _>("op")?,
            "attempt": row.try_get::<Option<i32>, _>("attempt")?,
            "outcome": row.try_get::<Option<String>, _>("outcome")?,
            "status_code": row.try_get::<Option<i16>, _>("status_code")?,
            "duration_us": row.try_get::<Option<i32>, _>("duration_us")?,
            "message": row.try_get::<Option<String>, _>("message")?,
            "worker": row.try_get::<Option<i64>, _>("worker")?,
        }));
    }
    let mut next = Vec::new();
    for row in sqlx::query(query::SHOW_TASKS).bind(id).fetch_all(pool).await? {
        next.push(json!({
            "step": name(row.try_get("step")?),
            "op": row.try_get::<String, _>("op")?,
            "attempt": row.try_get::<i32, _>("attempt")?,
            "worker": row.try_get::<Option<i64>, _>("worker")?,
            "host": row.try_get::<Option<String>, _>("host")?,
            "pid": row.try_get::<Option<i32>, _>("pid")?,
            "lost_workers": row.try_get::<i16, _>("lost")?,
            "due_ms": row.try_get::<i64, _>("due_ms")?,
        }));
    }
    let object = |name: &'static str| -> Result<Value, sqlx::Error> {
        let text: Option<String> = saga.try_get(name)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    };
    let created_at: DateTime<Utc> = saga.try_get("created_at")?;
    let finished_at: Option<DateTime<Utc>> = saga.try_get("finished_at")?;
    Ok(Some(json!({
        "gid": gid,
        "status": saga.try_get::<String, _>("status")?,
        "reason": saga.try_get::<Option<String>, _>("reason")?,
        "created_at": created_at.to_rfc3339(),
        "finished_at": finished_at.map(|at| at.to_rfc3339()),
        "retry_interval": saga.try_get::<String, _>("retry_interval")?,
        "retry_limit": saga.try_get::<Option<i32>, _>("retry_limit")?,
        "request_timeout": saga.try_get::<String, _>("request_timeout")?,
        "headers": object("headers")?,
        "labels": object("labels")?,
        "steps": steps,
        "history": history,
        "next": next,
    })))
}

fn print(saga: &Value) {
    println!("saga {}: {}", text(&saga["gid"]), text(&saga["status"]));
    if !saga["reason"].is_null() {
        println!("reason: {}", text(&saga["reason"]));
    }
    println!(
        "created {}{}",
        text(&saga["created_at"]),
        match &saga["finished_at"] {
            Value::Null => String::new(),
            at => format!(", finished {}", text(at)),
        }
    );
    let mut steps = table(&["step", "action", "compensate", "payload"]);
    for (index, step) in saga["steps"].as_array().into_iter().flatten().enumerate() {
        let name = step["name"].as_str().map_or_else(|| default_step_name(index), str::to_owned);
        let mut payload = text(&step["payload"]);
        if payload.len() > 60 {
            payload = payload.chars().take(60).chain(['…']).collect();
        }
        steps.add_row([name, text(&step["action"]), text(&step["compensate"]), payload]);
    }
    println!("\nDefinition\n{steps}");
    let mut history = table(&["at", "step", "op", "try", "outcome", "status", "took", "worker", "message"]);
    for event in saga["history"].as_array().into_iter().flatten() {
        let took = event["duration_us"]
            .as_i64()
            .map(|us| format!("{:.1} ms", us as f64 / 1000.0))
            .unwrap_or_default();
        history.add_row([
            text(&event["at"]),
            text(&event["step"]),
            text(&event["op"]),
            text(&event["attempt"]),
            text(&event["outcome"]),
            text(&event["status_code"]),
            took,
            text(&event["worker"]),
            text(&event["message"]),
        ]);
    }
    println!("\nHistory\n{history}");
    println!("\nNext");
    let next = saga["next"].as_array().map(Vec::as_slice).unwrap_or_default();
    if next.is_empty() {
        println!(
            "{}",
            if saga["status"] == "stuck" {
                "a person must look: see the reason"
            } else {
                "nothing: it is over"
            }
        );
    }
    for task in next {
        let when = list::when(task["worker"].as_i64(), task["due_ms"].as_i64().unwrap_or(0));
        println!(
            "{} of step {}, try {}, {when}",
            text(&task["op"]),
            text(&task["step"]),
            text(&task["attempt"])
        );
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

/// A JSON value as a person reads it: strings without quotes, null as nothing.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
