//! The workers: which are alive, since when, and their release.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use crate::operate::read::workers::{self, Worker};
use crate::ui::App;
use crate::ui::access::visitor::Visitor;
use crate::ui::layout::{NavItem, badge, show, table, time};
use crate::ui::text::text;
use crate::words::span_us;

pub(crate) async fn page(State(app): State<App>, visitor: Visitor) -> Response {
    let body = app.store.read(workers::read).await.map(|workers| {
        html! {
            h1 { "Workers" }
            p.muted {
                "A worker that was silent for its lease is declared dead by another one, its tries are queued again, and then its row goes."
            }
            (list(&workers))
        }
    });
    show(&app, &visitor, NavItem::Workers, "Workers", body)
}

pub(crate) fn list(workers: &[Worker]) -> Markup {
    if workers.is_empty() {
        return html! { p.alarm { "No worker is registered: nothing is called before one is started with " code { "pgsaga work" } "." } };
    }
    let row = |worker: &Worker| {
        vec![
            html! { (worker.id) },
            html! { (badge(worker.state().as_str())) },
            html! { (text(&worker.host)) ", process " (worker.pid) },
            html! { (text(&worker.version)) },
            html! { (span_us(worker.age_us)) span.muted { " since " (time(worker.started_at)) } },
            html! { (span_us(worker.seen_us)) " ago" },
            html! { (span_us(worker.lease_us())) },
        ]
    };
    let rows: Vec<Vec<Markup>> = workers.iter().map(row).collect();
    table("Workers", &["Id", "State", "Host", "Version", "Age", "Last heartbeat", "Lease"], &rows)
}
