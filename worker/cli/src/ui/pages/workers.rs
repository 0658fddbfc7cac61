//! The workers: who is alive, for how long, and of which release.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};

use crate::error::Error;
use crate::ui::App;
use crate::ui::layout::{self as page, Place, Visitor, badge, show, table};
use crate::ui::text::text;
use crate::words::span_us;
use pgsaga_worker::db::Time;

/// Rows at most. Those of the dead go once their tasks are rescued.
const WORKERS_MAX: i64 = 1000;

#[derive(Debug)]
pub(crate) struct Worker {
    id: i64,
    host: String,
    pid: i32,
    version: String,
    dead: bool,
    retired: bool,
    lease_ms: i32,
    started_at: Time,
    age_us: i64,
    seen_us: i64,
}

impl Worker {
    fn read(row: &PgRow) -> Result<Worker, sqlx::Error> {
        Ok(Worker {
            id: row.try_get("id")?,
            host: row.try_get("host")?,
            pid: row.try_get("pid")?,
            version: row.try_get("version")?,
            dead: row.try_get("dead")?,
            retired: row.try_get("retired")?,
            lease_ms: row.try_get("lease_ms")?,
            started_at: row.try_get("started_at")?,
            age_us: row.try_get("age_us")?,
            seen_us: row.try_get("seen_us")?,
        })
    }

    /// In a word that a style is of as well.
    fn standing(&self) -> &'static str {
        match self {
            Worker { retired: true, .. } => "retired",
            Worker { dead: true, .. } => "dead",
            _ if self.seen_us > i64::from(self.lease_ms) * 1000 => "silent",
            _ => "alive",
        }
    }
}

/// All of them.
///
/// # Errors
/// What the database says.
pub(crate) async fn read(pool: PgPool) -> Result<Vec<Worker>, Error> {
    let rows = sqlx::query(query::UI_WORKERS).bind(WORKERS_MAX).fetch_all(&pool).await?;
    Ok(rows.iter().map(Worker::read).collect::<Result<_, _>>()?)
}

/// GET /workers
pub(crate) async fn page(State(app): State<App>, visitor: Visitor) -> Response {
    let body = app.store.read(read).await.map(|workers| {
        html! {
            h1 { "Workers" }
            p.muted {
                "A worker that was silent for its lease is declared dead by another one, its tries are queued again, and then its row goes."
            }
            (list(&workers))
        }
    });
    show(&app, &visitor, Place::Workers, "Workers", body)
}

/// How many are alive.
pub(crate) fn alive(workers: &[Worker]) -> usize {
    workers.iter().filter(|worker| worker.standing() == "alive").count()
}

/// As a table.
pub(crate) fn list(workers: &[Worker]) -> Markup {
    if workers.is_empty() {
        return html! { p.alarm { "No worker is registered: nothing is called before one is started with " code { "pgsaga work" } "." } };
    }
    let row = |worker: &Worker| {
        vec![
            html! { (worker.id) },
            html! { (badge(worker.standing())) },
            html! { (text(&worker.host)) ", process " (worker.pid) },
            html! { (text(&worker.version)) },
            html! { (span_us(worker.age_us)) span.muted { " since " (page::time(worker.started_at)) } },
            html! { (span_us(worker.seen_us)) " ago" },
            html! { (span_us(i64::from(worker.lease_ms) * 1000)) },
        ]
    };
    let rows: Vec<Vec<Markup>> = workers.iter().map(row).collect();
    table("Workers", &["Id", "State", "Host", "Version", "Age", "Last heartbeat", "Lease"], &rows)
}
