//! The first page: the newest sagas by status, the queues and the workers.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use maud::{Markup, html};

use super::{queues, workers};
use crate::operate::read::overview::{NEWEST, Overview};
use crate::operate::read::workers::WorkerState;
use crate::ui::App;
use crate::ui::access::visitor::Visitor;
use crate::ui::layout::{NavItem, show, time};
use crate::ui::overview;
use crate::ui::params::link;
use crate::words::{count, counted};

pub(crate) async fn page(State(app): State<App>, visitor: Visitor) -> Response {
    let body = overview::current(&app).await.map(|overview| {
        html! {
            h1 { "Overview" }
            p { a href="/" { "Refresh" } " " span id="live-state" role="status" {} }
            div id="live" data-from="/live" { (markup(&overview)) }
        }
    });
    show(&app, &visitor, NavItem::Overview, "Overview", body)
}

/// The part of the first page that the script refreshes.
pub(crate) async fn fragment(State(app): State<App>) -> Response {
    match overview::current(&app).await {
        Ok(overview) => Html(markup(&overview).into_string()).into_response(),
        Err(failure) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            let status = Some(failure.status).filter(StatusCode::is_server_error);
            let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            (status, kind, format!("{}: {}\n", failure.what, failure.why)).into_response()
        }
    }
}

fn markup(overview: &Overview) -> Markup {
    let is_alive = overview.workers.iter().any(|worker| worker.state() == WorkerState::Alive);
    html! {
        p.muted { "As of " (time(overview.at)) " UTC" }
        @if overview.stuck_of_all > 0 {
            p.alarm {
                a id="to-stuck" href="/stuck" { (counted(overview.stuck_of_all, "saga is stuck", "sagas are stuck")) }
                " until a person decides."
            }
        }
        @if !is_alive { p.alarm { "No worker is alive: nothing is called." } }
        section aria-labelledby="sagas" {
            h2 id="sagas" {
                @if overview.sagas < NEWEST { "All sagas by status" } @else { "The newest " (count(NEWEST)) " sagas by status" }
            }
            ul.counts {
                @for (status, number) in &overview.by_status {
                    @let status = status.as_str();
                    li class=(status) {
                        a id={ "to-sagas-" (status) } href=(link("/sagas", &[("status", status)])) {
                            span.number data-status=(status) { (count(*number)) } " " span.of { (status) }
                        }
                    }
                }
            }
        }
        section aria-label="Queues" {
            @match &overview.queues {
                Some(queues) => (queues::list(queues.iter().map(|(queue, counts)| (queue, Some(*counts))), false)),
                None => (queues::not_counted(&crate::ui::failure::Failure::too_long())),
            }
        }
        section aria-label="Workers" { (workers::list(&overview.workers)) }
    }
}
