//! What waits for a person, with what may be decided about it.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};
use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};

use crate::error::Error;
use crate::ui::App;
use crate::ui::action::EXPLAINED;
use crate::ui::failure::Failure;
use crate::ui::layout::{self as page, Place, Visitor, saga_link, show, table};
use crate::ui::params::{Params, link};
use crate::ui::text::{folded, text};
use crate::words::span_us;
use pgsaga_worker::db::Time;

/// Stuck steps a page.
const PAGE: usize = 50;

#[derive(Debug)]
struct Stuck {
    gid: String,
    queue: String,
    saga_id: i64,
    step: String,
    op: Option<String>,
    reason: String,
    at: Time,
    since_us: i64,
}

/// Behind which one a page begins.
#[derive(Debug, Clone, Default)]
struct Cursor {
    at: Option<Time>,
    saga_id: Option<i64>,
    step: Option<String>,
}

impl Stuck {
    fn read(row: &PgRow) -> Result<Stuck, sqlx::Error> {
        Ok(Stuck {
            gid: row.try_get("gid")?,
            queue: row.try_get("queue")?,
            saga_id: row.try_get("saga_id")?,
            step: row.try_get("step")?,
            op: row.try_get("op")?,
            reason: row.try_get("reason")?,
            at: row.try_get("at")?,
            since_us: row.try_get("since_us")?,
        })
    }
}

impl Cursor {
    fn read(params: &Params) -> Result<Cursor, Failure> {
        params.only(&["at", "saga", "step"])?;
        let (Some(at), Some(saga), Some(step)) = (params.get("at"), params.get("saga"), params.get("step"))
        else {
            return Ok(Cursor::default());
        };
        match (at.parse().ok().and_then(Time::from_raw), saga.parse().ok()) {
            (Some(at), Some(saga_id)) => {
                Ok(Cursor { at: Some(at), saga_id: Some(saga_id), step: Some(step.to_owned()) })
            }
            _ => Err(Failure::bad(
                "at and saga: found no numbers; allowed: what the link to the next page has",
            )),
        }
    }
}

/// GET /stuck
pub(crate) async fn page(State(app): State<App>, visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let body = async {
        let cursor = Cursor::read(&Params::read(query.as_deref().unwrap_or_default()))?;
        let stuck = app.store.read(move |pool| read(pool, cursor)).await?;
        Ok(markup(&stuck, visitor.may_log_in))
    };
    let body = body.await;
    show(&app, &visitor, Place::Stuck, "Stuck", body)
}

async fn read(pool: PgPool, cursor: Cursor) -> Result<Vec<Stuck>, Error> {
    let rows = sqlx::query(query::UI_STUCK)
        .bind(cursor.at)
        .bind(cursor.saga_id)
        .bind(cursor.step)
        .bind(PAGE as i64 + 1)
        .fetch_all(&pool)
        .await?;
    Ok(rows.iter().map(Stuck::read).collect::<Result<_, _>>()?)
}

fn markup(stuck: &[Stuck], decides: bool) -> Markup {
    let shown = &stuck[..stuck.len().min(PAGE)];
    let next = shown.last().filter(|_| stuck.len() > PAGE).map(|last| {
        let (at, saga) = (last.at.raw().to_string(), last.saga_id.to_string());
        link("/stuck", &[("at", &at), ("saga", &saga), ("step", &last.step)])
    });
    let row = |stuck: &Stuck| {
        let mut cells = vec![
            html! { (saga_link(&stuck.gid)) },
            html! { (stuck.op.as_deref().unwrap_or("an op")) " of " (text(&stuck.step)) },
            html! { (folded(&stuck.reason)) },
            html! { (span_us(stuck.since_us)) span.muted { " since " (page::time(stuck.at)) } },
            html! { (text(&stuck.queue)) },
        ];
        if decides {
            let to = |action: &str| {
                link("/decide", &[("action", action), ("gid", &stuck.gid), ("step", &stuck.step)])
            };
            let of = |word: &str| html! { (word) span.hidden { " " (stuck.step) " of " (stuck.gid) } };
            cells.push(html! {
                div.choice {
                    a.button href=(to("retry")) { (of("Retry")) }
                    a.button href=(to("skip")) { (of("Skip")) }
                    a.button href=(link("/saga", &[("gid", &stuck.gid)])) { (of("More")) }
                }
            });
        }
        cells
    };
    let columns = ["Saga", "Stands at", "Reason", "For", "Queue", "Decide"];
    html! {
        h1 { "Stuck" }
        p.muted { "These sagas cannot go on without a person. The longest stuck come first; each decision shows what it will do before it is taken." }
        @if shown.is_empty() {
            p { "Nothing is stuck." }
        } @else {
            (table("Steps that wait for a person", &columns[..if decides { 6 } else { 5 }], &shown.iter().map(row).collect::<Vec<_>>()))
        }
        @if let Some(next) = next { nav aria-label="Further pages" { a.button href=(next) { "Next page" } } }
        section aria-labelledby="what-each-does" {
            h2 id="what-each-does" { "What each decision does" }
            dl.explained { @for (name, what) in EXPLAINED { dt { (name) } dd { (what) } } }
            @if !decides {
                p { "This page is read-only. On the command line: " code { "pgsaga retry GID" } ", " code { "pgsaga skip GID STEP" } ", " code { "pgsaga resolve GID" } " …" }
            }
        }
    }
}
