//! The parts that all pages share: head, navigation, landmarks, tables, and failures.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};
use pgsaga_plan::{Effect, Outcome};
use pgsaga_worker::db::Time;

use super::App;
use super::access::visitor::Visitor;
use super::failure::Failure;
use super::params::link;
use super::text::text;
use crate::words;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NavItem {
    Overview,
    Sagas,
    Stuck,
    Queues,
    Workers,
    Elsewhere,
}

const NAVIGATION: [(NavItem, &str, &str); 5] = [
    (NavItem::Overview, "/", "Overview"),
    (NavItem::Sagas, "/sagas", "Sagas"),
    (NavItem::Stuck, "/stuck", "Stuck"),
    (NavItem::Queues, "/queues", "Queues"),
    (NavItem::Workers, "/workers", "Workers"),
];

/// A whole page with `body`, or with the failure instead.
pub(crate) fn show(
    app: &App,
    visitor: &Visitor,
    at: NavItem,
    title: &str,
    body: Result<Markup, Failure>,
) -> Response {
    let (status, title, body) = match body {
        Ok(body) => (StatusCode::OK, title, body),
        Err(failure) => (failure.status, failure.what, failed(visitor, &failure)),
    };
    show_as(app, visitor, at, title, status, body)
}

/// Like [`show`], with an HTTP status of its own.
pub(crate) fn show_as(
    app: &App,
    visitor: &Visitor,
    at: NavItem,
    title: &str,
    status: StatusCode,
    body: Markup,
) -> Response {
    let told = visitor.session.as_ref().and_then(|session| app.sessions.told(session));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – pgsaga" }
                link rel="icon" type="image/svg+xml" href="/static/icon.svg";
                link rel="stylesheet" href="/static/style.css";
                script src="/static/live.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    span.name { "pgsaga" }
                    nav aria-label="Pages" {
                        ul {
                            @for (of, path, name) in NAVIGATION {
                                li { a href=(path) aria-current=[(of == at).then_some("page")] { (name) } }
                            }
                        }
                    }
                    (who(visitor))
                }
                main id="main" tabindex="-1" {
                    @if let Some(told) = told { p.told role="status" { (told) } }
                    (body)
                }
                footer {
                    "pgsaga " (env!("CARGO_PKG_VERSION"))
                    @if let Some(database) = app.store.database() { " · database " (text(&database)) }
                    @if !visitor.may_log_in { " · read-only" }
                }
            }
        }
    };
    let mut response = (status, Html(page.into_string())).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

fn who(visitor: &Visitor) -> Markup {
    html! {
        div.who {
            @if let Some(session) = &visitor.session {
                span { (text(&session.name)) }
                form method="post" action="/logout" {
                    input type="hidden" name="form_token" value=(session.form_token);
                    button { "Log out" }
                }
            } @else if visitor.may_log_in {
                a href=(link("/login", &[("to", &visitor.asked_for)])) { "Log in" }
            }
        }
    }
}

fn failed(visitor: &Visitor, failure: &Failure) -> Markup {
    html! {
        h1 { (failure.what) }
        p.alarm role="alert" { (text(&failure.why)) }
        p { a href=(visitor.asked_for) { "Try again" } " · " a href="/" { "Overview" } }
    }
}

pub(crate) async fn nowhere(State(app): State<App>, visitor: Visitor, uri: Uri) -> Response {
    let why = format!("There is no page {:?}.", uri.path().chars().take(200).collect::<String>());
    show(&app, &visitor, NavItem::Elsewhere, "Not found", Err(Failure::absent(why)))
}

/// A table whose first column heads each row. The ARIA roles keep it a table for screen readers
/// where the style sheet changes its layout.
pub(crate) fn table(caption: &str, columns: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        table role="table" {
            caption { (caption) }
            thead role="rowgroup" {
                tr role="row" { @for column in columns { th role="columnheader" scope="col" { (column) } } }
            }
            tbody role="rowgroup" {
                @for row in rows {
                    tr role="row" {
                        @for (nth, (column, cell)) in columns.iter().zip(row).enumerate() {
                            @if nth == 0 {
                                th role="rowheader" scope="row" data-label=(column) { div { (cell) } }
                            } @else {
                                td role="cell" data-label=(column) { div { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The outcome of an attempt, in the colour of its effect.
pub(crate) fn outcome_badge(outcome: Outcome) -> Markup {
    let facts = outcome.facts();
    let class = match facts.effect {
        Effect::Done => "good",
        Effect::None if facts.overrides => "bad",
        Effect::None | Effect::Pending | Effect::Maybe => "warn",
    };
    html! { span class={ "badge " (class) } { (facts.word) } }
}

/// The status of a saga or of a worker.
pub(crate) fn badge(word: &str) -> Markup {
    let class = if word.bytes().all(|byte| byte.is_ascii_lowercase()) { word } else { "" };
    html! { span class={ "badge " (class) } { (word) } }
}

pub(crate) fn saga_link(gid: &str) -> Markup {
    html! { a.gid href=(link("/saga", &[("gid", gid)])) { (text(gid)) } }
}

pub(crate) fn time(at: Time) -> Markup {
    html! { time datetime=[at.rfc3339()] { (words::time(at)) } }
}
