//! The queues: what is due, waits and runs in each, and whether it is paused.

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};

use super::App;
use super::page::{self, Place, Visitor, show, table};
use super::params::link;
use super::text::text;
use crate::commands::words::{count, span_us};
use crate::error::Error;

/// A class of priority in a queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: String,
    priority: i16,
    due: i64,
    waiting: i64,
    running: i64,
    oldest_due_us: i64,
    paused_at: Option<DateTime<Utc>>,
    paused_by: Option<String>,
}

impl Queue {
    fn read(row: &PgRow) -> Result<Queue, sqlx::Error> {
        Ok(Queue {
            name: row.try_get("queue")?,
            priority: row.try_get("priority")?,
            due: row.try_get("due")?,
            waiting: row.try_get("waiting")?,
            running: row.try_get("running")?,
            oldest_due_us: row.try_get("oldest_due_us")?,
            paused_at: row.try_get("paused_at")?,
            paused_by: row.try_get("paused_by")?,
        })
    }
}

/// All of them.
///
/// # Errors
/// What the database says.
pub(super) async fn read(pool: PgPool) -> Result<Vec<Queue>, Error> {
    let rows = sqlx::query(query::QUEUES).fetch_all(&pool).await?;
    Ok(rows.iter().map(Queue::read).collect::<Result<_, _>>()?)
}

/// GET /queues
pub(super) async fn page(State(app): State<App>, visitor: Visitor) -> Response {
    let body = app.store.read(read).await.map(|queues| {
        html! {
            h1 { "Queues" }
            p.muted { "A paused queue: none of its tries is claimed, and none of its sagas goes on to its next step. Class 0 goes first." }
            (list(&queues, visitor.may_log_in))
        }
    });
    show(&app, &visitor, Place::Queues, "Queues", body)
}

/// As a table, with buttons where somebody may decide.
pub(super) fn list(queues: &[Queue], decides: bool) -> Markup {
    let rows: Vec<Vec<Markup>> = queues
        .iter()
        .map(|queue| {
            let mut cells = vec![
                html! { a href=(link("/sagas", &[("status", "open"), ("queue", &queue.name)])) { (text(&queue.name)) } },
                html! { (queue.priority) },
                html! { (count(queue.due)) @if queue.due > 0 { span.muted { " oldest " (span_us(queue.oldest_due_us)) } } },
                html! { (count(queue.waiting)) },
                html! { (count(queue.running)) },
                paused(queue),
            ];
            if decides {
                let (action, word) = if queue.paused_at.is_some() { ("resume", "Resume") } else { ("pause", "Pause") };
                cells.push(html! {
                    a.button href=(link("/decide", &[("action", action), ("queue", &queue.name)])) {
                        (word) span.hidden { " the queue " (queue.name) }
                    }
                });
            }
            cells
        })
        .collect();
    let columns = ["Queue", "Class", "Due", "Waiting", "Running", "Paused", "Decide"];
    table("Queues", &columns[..if decides { 7 } else { 6 }], &rows)
}

fn paused(queue: &Queue) -> Markup {
    html! {
        @match queue.paused_at {
            Some(at) => { span.badge.stuck { "paused" } " since " (page::time(at)) " by " (text(queue.paused_by.as_deref().unwrap_or("somebody"))) }
            None => "no",
        }
    }
}

/// What follows from pausing or resuming one.
pub(super) fn consequences(name: &str, pause: bool) -> Vec<String> {
    if pause {
        return vec![
            format!(
                "No try of the queue {name} is claimed any more, and none of its sagas goes on to its next step, until somebody resumes it."
            ),
            "Calls in flight end, and what they come to is recorded.".to_owned(),
            "Deadlines wait, too. New sagas are taken, and wait.".to_owned(),
        ];
    }
    vec![
        format!("What is due of the queue {name} is claimed and called at once."),
        "Sagas whose deadline has passed meanwhile turn back.".to_owned(),
    ]
}
