//! The steps that wait for a person, with the possible decisions.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};
use pgsaga_plan::Op;
use pgsaga_worker::db::Time;

use crate::operate::decide::Decision;
use crate::operate::read::stuck::{self, Cursor, StuckStep};
use crate::ui::App;
use crate::ui::access::visitor::Visitor;
use crate::ui::failure::Failure;
use crate::ui::layout::{NavItem, saga_link, show, table, time};
use crate::ui::params::{Params, link};
use crate::ui::text::{folded, text};
use crate::words::span_us;

const ROWS_PER_PAGE: usize = 50;

fn cursor(params: &Params) -> Result<Cursor, Failure> {
    params.only(&["at", "saga", "step"])?;
    let (Some(at), Some(saga), Some(step)) = (params.get("at"), params.get("saga"), params.get("step"))
    else {
        return Ok(Cursor::default());
    };
    match (at.parse().ok().and_then(Time::from_raw), saga.parse().ok()) {
        (Some(at), Some(saga_id)) => {
            Ok(Cursor { at: Some(at), saga_id: Some(saga_id), step: Some(step.to_owned()) })
        }
        _ => Err(Failure::bad("at and saga: found no numbers; allowed: what the link to the next page has")),
    }
}

pub(crate) async fn page(State(app): State<App>, visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let body = async {
        let cursor = cursor(&Params::read(query.as_deref().unwrap_or_default()))?;
        let stuck = app.store.read(move |pool| stuck::read(pool, cursor, ROWS_PER_PAGE as i64 + 1)).await?;
        Ok(markup(&stuck, visitor.may_log_in))
    };
    let body = body.await;
    show(&app, &visitor, NavItem::Stuck, "Stuck", body)
}

fn markup(stuck: &[StuckStep], decides: bool) -> Markup {
    let shown = &stuck[..stuck.len().min(ROWS_PER_PAGE)];
    let next = shown.last().filter(|_| stuck.len() > ROWS_PER_PAGE).map(|last| {
        let (at, saga) = (last.at.raw().to_string(), last.saga_id.to_string());
        link("/stuck", &[("at", &at), ("saga", &saga), ("step", &last.step)])
    });
    let row = |stuck: &StuckStep| {
        let mut cells = vec![
            html! { (saga_link(&stuck.gid)) },
            html! { (stuck.op.map_or("an op", Op::as_str)) " of " (text(&stuck.step)) },
            html! { (folded(&stuck.reason)) },
            html! { (span_us(stuck.since_us)) span.muted { " since " (time(stuck.at)) } },
            html! { (text(&stuck.queue)) },
        ];
        if decides {
            let of = |word: &str| html! { (word) span.hidden { " " (stuck.step) " of " (stuck.gid) } };
            let to = |decision: Decision| {
                let pairs = [("action", decision.facts().word), ("gid", &stuck.gid), ("step", &stuck.step)];
                html! { a.button href=(link("/decide", &pairs)) { (of(decision.facts().title)) } }
            };
            cells.push(html! {
                div.choice {
                    (to(Decision::Retry))
                    (to(Decision::Skip))
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
            dl.explained { @for facts in Decision::ALL.map(Decision::facts) { dt { (facts.title) } dd { (facts.explained) } } }
            @if !decides {
                p { "This page is read-only. On the command line: " code { "pgsaga retry GID" } ", " code { "pgsaga skip GID STEP" } ", " code { "pgsaga resolve GID" } " …" }
            }
        }
    }
}
