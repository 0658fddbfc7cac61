//! The queues: tasks that are due, wait and run, and whether the queue is paused.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use crate::operate::read::queues::{Counts, Queue, uncounted};
use crate::ui::App;
use crate::ui::access::visitor::Visitor;
use crate::ui::failure::Failure;
use crate::ui::layout::{NavItem, show, table, time};
use crate::ui::overview;
use crate::ui::params::link;
use crate::ui::text::text;
use crate::words::{count, span_us};

pub(crate) async fn page(State(app): State<App>, visitor: Visitor) -> Response {
    let body = async {
        // If counting the tasks takes too long, a person has even more reason to pause a queue.
        let queues = app.store.read(|pool| uncounted(pool, None)).await?;
        let overview = overview::current(&app).await;
        let counted = overview.as_ref().map_err(Clone::clone).and_then(|overview| {
            overview.queues.as_ref().map(|queues| (queues, overview.at)).ok_or_else(Failure::too_long)
        });
        let counts = |queue: &Queue| {
            let (counted, _) = counted.as_ref().ok()?;
            let same = |(other, _): &&(Queue, Counts)| {
                other.queue == queue.queue && other.priority == queue.priority
            };
            counted.iter().find(same).map(|(_, counts)| *counts)
        };
        Ok(html! {
            h1 { "Queues" }
            p.muted { "Workers claim no task of a paused queue, and its sagas do not continue with their next step. Class 0 comes first." }
            @match &counted {
                Ok((_, at)) => p.muted { "Counted at " (time(*at)) " UTC" },
                Err(failure) => (not_counted(failure)),
            }
            (list(queues.iter().map(|queue| (queue, counts(queue))), visitor.may_log_in))
        })
    };
    let body = body.await;
    show(&app, &visitor, NavItem::Queues, "Queues", body)
}

pub(crate) fn not_counted(failure: &Failure) -> Markup {
    html! { p.alarm { "What lies in the queues is not counted. " (failure.what) ": " (text(&failure.why)) } }
}

/// The table of queues, with buttons for a person who may decide.
pub(crate) fn list<'a>(queues: impl Iterator<Item = (&'a Queue, Option<Counts>)>, decides: bool) -> Markup {
    let row = |(queue, counts): (&Queue, Option<Counts>)| {
        let name = &queue.queue;
        let mut cells = vec![
            html! { a href=(link("/sagas", &[("status", "open"), ("queue", name)])) { (text(name)) } },
            html! { (queue.priority) },
        ];
        cells.extend(numbers(counts));
        cells.push(paused(queue));
        if decides {
            let (action, word) =
                if queue.paused_at.is_some() { ("resume", "Resume") } else { ("pause", "Pause") };
            cells.push(html! {
                a.button href=(link("/decide", &[("action", action), ("queue", name)])) {
                    (word) span.hidden { " the queue " (name) }
                }
            });
        }
        cells
    };
    let columns = ["Queue", "Class", "Due", "Waiting", "Running", "Paused", "Decide"];
    table("Queues", &columns[..if decides { 7 } else { 6 }], &queues.map(row).collect::<Vec<_>>())
}

fn numbers(counts: Option<Counts>) -> [Markup; 3] {
    let Some(counts) = counts else {
        return std::array::from_fn(|_| html! { span.muted { "not counted" } });
    };
    [
        html! { (count(counts.due)) @if counts.due > 0 { span.muted { " oldest " (span_us(counts.oldest_due_us)) } } },
        html! { (count(counts.waiting)) },
        html! { (count(counts.running)) },
    ]
}

fn paused(queue: &Queue) -> Markup {
    html! {
        @match queue.paused_at {
            Some(at) => { span.badge.stuck { "paused" } " since " (time(at)) " by " (text(queue.paused_by.as_deref().unwrap_or("somebody"))) }
            None => "no",
        }
    }
}
