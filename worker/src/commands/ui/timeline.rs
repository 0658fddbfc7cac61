//! What happened to a saga, a try or a decision a row, with what was answered.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};

use super::page::{badge, table, time};
use super::params::link;
use super::text::{folded, text};
use crate::commands::show::read::Saga;
use crate::commands::words::{count, span_us};

/// Events a page, the last ones first.
pub(super) const PAGE: usize = 100;

#[derive(Debug)]
struct Event {
    seq: i64,
    at: DateTime<Utc>,
    kind: String,
    /// Position from 1.
    step: Option<i16>,
    op: Option<String>,
    attempt: Option<i32>,
    outcome: Option<String>,
    status_code: Option<i16>,
    duration_us: Option<i32>,
    message: Option<String>,
    worker: Option<i64>,
    decision: Option<String>,
    decided_by: Option<String>,
    answer: Option<String>,
}

/// A page of it, in the order of time.
#[derive(Debug)]
pub(super) struct Timeline {
    events: Vec<Event>,
    /// There is more before it.
    earlier: bool,
    /// It does not end with the last event.
    later: bool,
}

/// Reads the events before `before`, or the last ones.
///
/// # Errors
/// What the database says.
pub(super) async fn read(pool: &PgPool, saga: &Saga, before: Option<i64>) -> Result<Timeline, sqlx::Error> {
    let end = saga.head.last_seq.unwrap_or(0).saturating_add(1);
    let until = before.map_or(end, |before| before.min(end));
    let rows = sqlx::query(query::UI_HISTORY)
        .bind(saga.id)
        .bind(until)
        .bind(PAGE as i64 + 1)
        .fetch_all(pool)
        .await?;
    let mut events = rows.iter().map(Event::read).collect::<Result<Vec<_>, _>>()?;
    let earlier = events.len() > PAGE;
    events.truncate(PAGE);
    events.reverse();
    Ok(Timeline { events, earlier, later: until < end })
}

impl Event {
    fn read(row: &PgRow) -> Result<Event, sqlx::Error> {
        Ok(Event {
            seq: row.try_get("seq")?,
            at: row.try_get("at")?,
            kind: row.try_get("kind")?,
            step: row.try_get("step")?,
            op: row.try_get("op")?,
            attempt: row.try_get("attempt")?,
            outcome: row.try_get("outcome")?,
            status_code: row.try_get("status_code")?,
            duration_us: row.try_get("duration_us")?,
            message: row.try_get("message")?,
            worker: row.try_get("worker")?,
            decision: row.try_get("decision")?,
            decided_by: row.try_get("decided_by")?,
            answer: row.try_get("answer")?,
        })
    }

    fn row(&self, saga: &Saga) -> Vec<Markup> {
        let since_us = (self.at - saga.head.created_at).num_microseconds().unwrap_or(i64::MAX);
        let sign = if since_us < 0 { "-" } else { "+" };
        let position = self.step.and_then(|step| usize::try_from(step).ok()?.checked_sub(1));
        let step = position.and_then(|index| saga.steps.get(index)).map(|step| step.name.as_str());
        let at = html! { (time(self.at)) span.muted { " " (sign) (span_us(since_us.saturating_abs())) } };
        let said = html! {
            @if let Some(message) = &self.message { (folded(message)) }
            @if let Some(answer) = &self.answer { div.answer { span.muted { "answer " } (folded(answer)) } }
        };
        let what = match &self.decision {
            Some(decision) => html! { span.badge.decision { (decision) } },
            None if self.kind == "deadline" => html! { span.badge.decision { "deadline" } },
            None => html! { (self.op.as_deref().unwrap_or_default()) },
        };
        let who = match (&self.decided_by, self.worker) {
            (Some(by), _) => html! { "by " (text(by)) },
            (None, Some(worker)) => html! { "worker " (worker) },
            (None, None) => html! {},
        };
        vec![
            at,
            html! { (text(step.unwrap_or_default())) },
            what,
            html! { @if let Some(attempt) = self.attempt { "try " (count(attempt.into())) } },
            html! {
                @if let Some(outcome) = &self.outcome { (badge(outcome)) }
                @if let Some(code) = self.status_code { " " (code) }
            },
            html! { @if let Some(us) = self.duration_us { (span_us(us.into())) } },
            said,
            who,
        ]
    }
}

impl Timeline {
    /// As a table, with the ways to its other pages.
    pub(super) fn markup(&self, saga: &Saga) -> Markup {
        let gid = saga.head.gid.as_str();
        let first = self.events.first().map(|event| event.seq.to_string());
        let rows: Vec<Vec<Markup>> = self.events.iter().map(|event| event.row(saga)).collect();
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
