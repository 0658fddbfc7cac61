//! The first page: what the newest sagas came to, the queues and the workers, as they are now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use maud::{Markup, html};
use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::PgPool;
use tokio::sync::Mutex;

use super::queues::{self, Queue};
use super::workers::{self, Worker};
use crate::error::Error;
use crate::ui::App;
use crate::ui::failure::{Failure, is_too_long};
use crate::ui::layout::{self as page, Place, Visitor, show};
use crate::ui::params::link;
use crate::words::{count, counted};
use pgsaga_worker::db::Time;

/// How many sagas are counted. It is no more than a few megabytes of memory to look at.
const NEWEST: i64 = 10_000;
/// However many look at it, it is read no more often than so.
const FRESH: Duration = Duration::from_secs(1);
/// And it may take this part of the database's time: a tenth.
const PART: u32 = 10;

#[derive(Debug)]
pub(crate) struct Overview {
    sagas: i64,
    /// By status, in the order of a saga's life.
    by_status: [(&'static str, i64); 5],
    stuck_of_all: i64,
    pub(crate) at: Time,
    /// Where there are too many tasks to be counted in time, all else is shown.
    pub(crate) queues: Result<Vec<Queue>, Failure>,
    workers: Vec<Worker>,
}

/// The last reading, for all who ask.
#[derive(Default)]
pub(crate) struct Cache(Arc<Mutex<Option<Cached>>>);

struct Cached {
    read: Result<Arc<Overview>, Failure>,
    until: Instant,
}

/// GET /
pub(crate) async fn page(State(app): State<App>, visitor: Visitor) -> Response {
    let body = current(&app).await.map(|overview| {
        html! {
            h1 { "Overview" }
            p { a href="/" { "Refresh" } " " span id="live-state" role="status" {} }
            div id="live" data-from="/live" { (markup(&overview)) }
        }
    });
    show(&app, &visitor, Place::Overview, "Overview", body)
}

/// GET /live: what the script puts into the first page.
pub(crate) async fn fragment(State(app): State<App>) -> Response {
    match current(&app).await {
        Ok(overview) => Html(markup(&overview).into_string()).into_response(),
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
///
/// # Errors
/// What the database says, or said the last time.
pub(crate) async fn current(app: &App) -> Result<Arc<Overview>, Failure> {
    let mut cached = Arc::clone(&app.overview.0).lock_owned().await;
    if let Some(last) = cached.as_ref().filter(|last| Instant::now() < last.until) {
        return last.read.clone();
    }
    let reader = app.clone();
    // In a task of its own: the database is at it even where whoever asked first hangs up, and nobody else may ask meanwhile.
    let reading = tokio::spawn(async move {
        let started = Instant::now();
        let read = reader.store.read(read).await.map(Arc::new);
        let is_load = read.as_ref().err().is_none_or(Failure::is_too_long);
        let fresh = if is_load { FRESH.max(started.elapsed() * PART) } else { FRESH };
        *cached = Some(Cached { read: read.clone(), until: Instant::now() + fresh });
        read
    });
    reading.await.unwrap_or_else(|_| Err(Failure::broken("The page ended unexpectedly; its log says why.")))
}

async fn read(pool: PgPool) -> Result<Overview, Error> {
    let row = sqlx::query(query::UI_OVERVIEW).bind(NEWEST).fetch_one(&pool).await?;
    let queues = match queues::count_tasks(&pool).await {
        Err(error) if is_too_long(&error) => Err(error.into()),
        queues => Ok(queues?),
    };
    let of = |status: &'static str| row.try_get::<i64, _>(status).map(|count| (status, count));
    Ok(Overview {
        sagas: row.try_get("sagas")?,
        by_status: [of("submitted")?, of("aborting")?, of("stuck")?, of("succeeded")?, of("failed")?],
        stuck_of_all: row.try_get("stuck_of_all")?,
        at: row.try_get("at")?,
        queues,
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
        section aria-label="Queues" {
            @match &overview.queues {
                Ok(queues) => (queues::list(queues, false)),
                Err(failure) => (queues::not_counted(failure)),
            }
         }
        section aria-label="Workers" { (workers::list(&overview.workers)) }
    }
}
