//! The first page: what the newest sagas came to, the queues and the workers, as they are now.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::PgPool;
use tokio::sync::Mutex;

use super::App;
use super::failure::Failure;
use super::page::{self, Place, Visitor, show};
use super::params::link;
use super::queues::{self, Queue};
use super::workers::{self, Worker};
use crate::commands::words::{count, counted};
use crate::error::Error;

/// How many sagas are counted. It is no more than a few megabytes of memory to look at.
const NEWEST: i64 = 10_000;
/// However many look at it, it is read no more often than so.
const FRESH: Duration = Duration::from_secs(1);
/// And it may take this part of the database's time: a tenth.
const PART: u32 = 10;

struct Overview {
    sagas: i64,
    /// By status, in the order of a saga's life.
    by_status: [(&'static str, i64); 5],
    stuck_of_all: i64,
    at: DateTime<Utc>,
    queues: Vec<Queue>,
    workers: Vec<Worker>,
}

/// The last reading, for all who ask.
#[derive(Default)]
pub(super) struct Cache(Mutex<Option<Cached>>);

struct Cached {
    shown: Result<Markup, Failure>,
    until: Instant,
}

/// GET /
pub(super) async fn page(State(app): State<App>, visitor: Visitor) -> Response {
    let body = current(&app).await.map(|shown| {
        html! {
            h1 { "Overview" }
            p { a href="/" { "Refresh" } " " span id="live-state" role="status" {} }
            div id="live" data-from="/live" { (shown) }
        }
    });
    show(&app, &visitor, Place::Overview, "Overview", body)
}

/// GET /live: what the script puts into the first page.
pub(super) async fn fragment(State(app): State<App>) -> Response {
    match current(&app).await {
        Ok(shown) => Html(shown.into_string()).into_response(),
        Err(failure) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            let status = if failure.status.is_server_error() {
                failure.status
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (status, kind, format!("{}: {}\n", failure.what, failure.why)).into_response()
        }
    }
}

/// Who comes while it is read waits for that reading.
async fn current(app: &App) -> Result<Markup, Failure> {
    let mut cached = app.overview.0.lock().await;
    if let Some(last) = cached.as_ref().filter(|last| Instant::now() < last.until) {
        return last.shown.clone();
    }
    let started = Instant::now();
    let shown = app.store.read(read).await.map(|overview| markup(&overview));
    let fresh = if shown.is_ok() { FRESH.max(started.elapsed() * PART) } else { FRESH };
    *cached = Some(Cached { shown: shown.clone(), until: Instant::now() + fresh });
    shown
}

async fn read(pool: PgPool) -> Result<Overview, Error> {
    let row = sqlx::query(query::UI_OVERVIEW).bind(NEWEST).fetch_one(&pool).await?;
    let of = |status: &'static str| row.try_get::<i64, _>(status).map(|count| (status, count));
    Ok(Overview {
        sagas: row.try_get("sagas")?,
        by_status: [of("submitted")?, of("aborting")?, of("stuck")?, of("succeeded")?, of("failed")?],
        stuck_of_all: row.try_get("stuck_of_all")?,
        at: row.try_get("at")?,
        queues: queues::read(pool.clone()).await?,
        workers: workers::read(pool).await?,
    })
}

fn markup(overview: &Overview) -> Markup {
    let alive = workers::alive(&overview.workers);
    html! {
        p.muted { "As of " (page::time(overview.at)) " UTC" }
        @if overview.stuck_of_all > 0 {
            p.alarm {
                a id="to-stuck" href="/stuck" { (counted(overview.stuck_of_all, "saga is stuck", "sagas are stuck")) }
                " until a person decides."
            }
        }
        @if alive == 0 { p.alarm { "No worker is alive: nothing is called." } }
        section aria-labelledby="sagas" {
            h2 id="sagas" {
                @if overview.sagas < NEWEST { "All sagas by status" } @else { "The newest " (count(NEWEST)) " sagas by status" }
            }
            ul.counts {
                @for (status, number) in overview.by_status {
                    li class=(status) {
                        a id={ "to-sagas-" (status) } href=(link("/sagas", &[("status", status)])) {
                            span.number data-status=(status) { (count(number)) } " " span.of { (status) }
                        }
                    }
                }
            }
        }
        section aria-label="Queues" { (queues::list(&overview.queues, false)) }
        section aria-label="Workers" { (workers::list(&overview.workers)) }
    }
}
