//! One saga: its state, what happens next, possible decisions, and its history.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};
use pgsaga_plan::Outcome;
use pgsaga_sql::contract::SagaStatus;
use sqlx::postgres::PgPool;

use super::timeline::{self, Timeline};
use crate::error::Error;
use crate::operate::decide::Decision;
use crate::operate::decide::consequences::{Offer, allowed};
use crate::operate::read::saga::{Head, Saga, Step, Tries};
use crate::operate::show::{next, standing};
use crate::ui::App;
use crate::ui::access::visitor::Visitor;
use crate::ui::layout::{NavItem, badge, outcome_badge, show, table, time};
use crate::ui::params::{Params, link, unknown};
use crate::ui::text::{folded, text};
use crate::words::{counted, span_us};

/// Buttons of one decision about a step: hundreds of steps of a parallel saga may run at once.
const STEPS_MAX: usize = 20;

pub(crate) async fn page(State(app): State<App>, visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let params = Params::read(query.as_deref().unwrap_or_default());
    let title = params
        .get("gid")
        .map_or("Saga".to_owned(), |gid| format!("Saga {}", gid.chars().take(128).collect::<String>()));
    let body = async {
        params.only(&["gid", "before"])?;
        let gid = params.gid()?;
        let before = params.number("before")?;
        let wanted = gid.clone();
        let found = app.store.read(move |pool| read_whole(pool, wanted, before)).await?;
        let (saga, timeline) = found.ok_or_else(|| unknown(&gid))?;
        Ok(markup(&visitor, &saga, &timeline))
    };
    let body = body.await;
    show(&app, &visitor, NavItem::Sagas, &title, body)
}

async fn read_whole(
    pool: PgPool,
    gid: String,
    before: Option<i64>,
) -> Result<Option<(Saga, Timeline)>, Error> {
    let Some(saga) = Saga::read(&pool, &gid, false, None).await? else { return Ok(None) };
    let timeline = timeline::read(&pool, &saga, before).await?;
    Ok(Some((saga, timeline)))
}

fn markup(visitor: &Visitor, saga: &Saga, timeline: &Timeline) -> Markup {
    html! {
        h1 { "Saga " span.gid { (text(&saga.head.gid)) } " " (badge(saga.head.status.as_str())) }
        (facts(&saga.head))
        section aria-labelledby="next" {
            h2 id="next" { "Next" }
            ul { @for line in next::lines(saga) { (said_next(&line)) } }
        }
        (decisions(visitor, saga))
        (steps(saga))
        (timeline.markup(saga))
    }
}

/// Shows the commands within a sentence as commands.
fn said_next(line: &str) -> Markup {
    match line.strip_prefix("  ").and_then(|command| command.split_once("   ")) {
        Some((command, what)) => html! { li.command { code { (text(command)) } " " (what) } },
        None => html! { li { (text(line)) } },
    }
}

fn facts(head: &Head) -> Markup {
    let finished = head.finished_at.map(|at| {
        let took_us = at.us_since(head.created_at);
        html! { (time(at)) ", after " (span_us(took_us)) }
    });
    let deadline = head.deadline.map(|at| {
        html! {
            (time(at))
            @match head.deadline_us {
                _ if head.finished_at.is_some() => "",
                Some(us) if us > 0 => { ", in " (span_us(us)) }
                Some(us) => { ", " (span_us(us.saturating_neg())) " ago" }
                None => "",
            }
        }
    });
    let said = |text: &Option<String>| text.as_deref().map(folded);
    let facts: [(&str, Option<Markup>); 10] = [
        ("Reason", said(&head.reason)),
        ("Created", Some(time(head.created_at))),
        ("Finished", finished),
        ("Runs from", head.run_at.map(time)),
        ("Deadline", deadline),
        (
            "Queue",
            Some(
                html! { (text(&head.queue)) ", class " (head.priority) @if head.paused_at.is_some() { " " span.badge.stuck { "paused" } } },
            ),
        ),
        ("Labels", said(&head.labels)),
        ("Result", said(&head.result)),
        ("Rolls back because", said(&head.abort_reason).filter(|_| head.abort_reason != head.reason)),
        ("Ends as", head.ending.map(SagaStatus::as_str).map(text)),
    ];
    html! {
        dl.facts {
            @for (name, value) in facts { @if let Some(value) = value { div { dt { (name) } dd { (value) } } } }
        }
    }
}

fn decisions(visitor: &Visitor, saga: &Saga) -> Markup {
    let allowed = allowed(saga);
    if allowed.is_empty() || !visitor.may_log_in {
        return html! {};
    }
    let of = |decision| allowed.iter().filter(move |offer: &&Offer| offer.decision == decision);
    let shown = Decision::ALL.into_iter().flat_map(|decision| of(decision).take(STEPS_MAX));
    let more = Decision::ALL.into_iter().filter_map(|decision| {
        let more = of(decision).count().saturating_sub(STEPS_MAX);
        let (command, _) = decision.facts().helps?;
        (more > 0)
            .then(|| (decision.facts().about, counted(more as i64, "other step", "other steps"), command))
    });
    html! {
        section aria-labelledby="decide" {
            h2 id="decide" { "Decide" }
            @if visitor.session.is_none() { p.muted { "Each asks you to log in first, and shows what it will do." } }
            @else { p.muted { "Each shows what it will do before it is done." } }
            div.choice { @for offer in shown { a.button href=(way_to(saga, offer)) { (offer.title()) } } }
            @for (about, steps, command) in more {
                p.muted { "And to " (about) " one of " (steps) ": " code { "pgsaga " (command) } "." }
            }
        }
    }
}

fn way_to(saga: &Saga, offer: &Offer) -> String {
    let mut pairs = vec![("action", offer.decision.facts().word), ("gid", saga.head.gid.as_str())];
    pairs.extend(offer.step.as_deref().map(|step| ("step", step)));
    link("/decide", &pairs)
}

fn steps(saga: &Saga) -> Markup {
    let rows: Vec<Vec<Markup>> =
        saga.steps.iter().enumerate().map(|(index, step)| row(saga, index, step)).collect();
    html! {
        section aria-labelledby="steps" {
            h2 id="steps" { "Steps" }
            (table("In the order of their definition", &["Step", "Stands", "Waits for", "Action", "Compensation", "Payload"], &rows))
        }
    }
}

fn row(saga: &Saga, index: usize, step: &Step) -> Vec<Markup> {
    let (mark, _) = standing::mark(step.state);
    let after: Vec<&str> = step
        .after
        .iter()
        .filter_map(|&before| saga.steps.get(before))
        .map(|step| step.name.as_str())
        .collect();
    vec![
        html! {
            (text(&step.name)) @if step.pivot { " " span.badge { "pivot" } }
            @if !step.settings.is_empty() { div.muted { (text(&standing::settings(step))) } }
        },
        html! { span.mark aria-hidden="true" { (mark) } " " (standing::word(saga, index)) },
        html! { @if after.is_empty() { span.muted { "nothing" } } @else { (folded(&after.join(", "))) } },
        op(Some(if step.waits() { WAITS } else { &step.action }), &step.acted),
        op(step.compensate.as_deref(), &step.undone),
        html! { @if let Some(payload) = &step.payload { code { (text(payload)) } } },
    ]
}

/// In place of the URL of an action that waits. No URL looks like it.
const WAITS: &str = "waits";

/// The URL of an op, its number of attempts, and the last answer.
fn op(url: Option<&str>, tries: &Tries) -> Markup {
    html! {
        @match url {
            None => { span.muted { "none" } }
            Some("") => { span.muted { "no call" } }
            Some(WAITS) => { span.muted { "waits for a completion" } }
            Some(url) => { div.url { (folded(url)) } }
        }
        @if tries.tries > 0 {
            div {
                (counted(tries.tries, "try", "tries")) ", the last "
                (outcome_badge(tries.outcome.unwrap_or(Outcome::Unknown)))
                @if let Some(code) = tries.status_code { " " (code) }
                @if let Some(message) = &tries.message { " " (folded(message)) }
            }
        }
    }
}
