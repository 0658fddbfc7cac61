//! The history of a saga: a row for each attempt or decision, with the answers.

use maud::{Markup, html};
use pgsaga_plan::{Op, Word as _};
use sqlx::postgres::PgPool;

use crate::operate::read::history::{self, Event};
use crate::operate::read::saga::Saga;
use crate::operate::read::words::EventKind;
use crate::ui::layout::{outcome_badge, table, time};
use crate::ui::params::link;
use crate::ui::text::{CHARS_MAX, folded, folded_first, text};
use crate::words::{count, span_us};

pub(crate) const EVENTS_PER_PAGE: usize = 100;

/// One page of the history, in the order of time.
#[derive(Debug)]
pub(crate) struct Timeline {
    events: Vec<Event>,
    /// Whether there are earlier events.
    earlier: bool,
    /// Whether there are later events.
    later: bool,
}

/// Reads the events before `before`, or the last ones.
pub(crate) async fn read(pool: &PgPool, saga: &Saga, before: Option<i64>) -> Result<Timeline, sqlx::Error> {
    let end = saga.head.last_seq.unwrap_or(i64::MAX);
    let until = before.map_or(end, |before| before.saturating_sub(1).min(end));
    let mut events = history::until(pool, saga, until, EVENTS_PER_PAGE as i64 + 1, CHARS_MAX as i32).await?;
    let earlier = events.len() > EVENTS_PER_PAGE;
    events.truncate(EVENTS_PER_PAGE);
    events.reverse();
    Ok(Timeline { events, earlier, later: until < end })
}

fn row(event: &Event, saga: &Saga) -> Vec<Markup> {
    let since_us = event.at.us_since(saga.head.created_at);
    let sign = if since_us < 0 { "-" } else { "+" };
    let at = html! { (time(event.at)) span.muted { " " (sign) (span_us(since_us.saturating_abs())) } };
    let said = html! {
        @if let Some(message) = &event.message { (folded(message)) }
        @if let Some((start, chars)) = &event.answer_start {
            div.answer { span.muted { "answer " } (folded_first(start, usize::try_from(*chars).unwrap_or(0))) }
        }
    };
    let what = match &event.decision {
        Some(decision) => html! { span.badge.decision { (decision) } },
        None if event.kind != EventKind::Attempt => html! {
            span.badge.decision { (event.kind.word()) } " " (event.op.map(Op::as_str).unwrap_or_default())
        },
        None => html! { (event.op.map(Op::as_str).unwrap_or_default()) },
    };
    let who = match (&event.decided_by, event.worker) {
        (Some(by), _) => html! { "by " (text(by)) },
        (None, Some(worker)) => html! { "worker " (worker) },
        (None, None) => html! {},
    };
    vec![
        at,
        html! { (text(event.step.as_deref().unwrap_or_default())) },
        what,
        html! { @if let Some(attempt) = event.attempt { "try " (count(attempt.into())) } },
        html! {
            @if let Some(outcome) = event.outcome { (outcome_badge(outcome)) }
            @if let Some(code) = event.status_code { " " (code) }
        },
        html! { @if let Some(us) = event.duration_us { (span_us(us.into())) } },
        said,
        who,
    ]
}

impl Timeline {
    /// The table of the page's events, with links to the other pages.
    pub(crate) fn markup(&self, saga: &Saga) -> Markup {
        let gid = saga.head.gid.as_str();
        let first = self.events.first().map(|event| event.seq.to_string());
        let rows: Vec<Vec<Markup>> = self.events.iter().map(|event| row(event, saga)).collect();
        html! {
            section aria-labelledby="timeline" {
                h2 id="timeline" { "Timeline" }
                @if rows.is_empty() {
                    p { "Nothing has happened yet." }
                } @else {
                    @if let (true, Some(first)) = (self.earlier, &first) {
                        p { a.button href=(link("/saga", &[("gid", gid), ("before", first)])) { "Earlier tries" } }
                    }
                    (table("By the end of each try (UTC)", &["At", "Step", "What", "Try", "Outcome", "Took", "Said", "Who"], &rows))
                    @if self.later { p { a.button href=(link("/saga", &[("gid", gid)])) { "The last tries" } } }
                }
            }
        }
    }
}
