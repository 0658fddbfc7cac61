//! The queues: what is due, waits and runs in each, and whether it is paused.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};

use super::overview::{self, Overview};
use crate::error::Error;
use crate::ui::App;
use crate::ui::failure::Failure;
use crate::ui::layout::{self as page, Place, Visitor, show, table};
use crate::ui::params::link;
use crate::ui::text::text;
use crate::words::{count, span_us};
use pgsaga_worker::db::Time;

/// Classes that are shown. There are four a queue.
const CLASSES_MAX: i64 = 1000;

/// A class of priority in a queue.
#[derive(Debug)]
pub(crate) struct Queue {
    name: String,
    priority: i16,
    paused_at: Option<Time>,
    paused_by: Option<String>,
    /// Where they were counted.
    tasks: Option<Tasks>,
}

/// What lies in it.
#[derive(Debug, Clone, Copy)]
struct Tasks {
    due: i64,
    waiting: i64,
    running: i64,
    oldest_due_us: i64,
}

impl Queue {
    fn read(row: &PgRow) -> Result<Queue, sqlx::Error> {
        Ok(Queue {
            name: row.try_get("queue")?,
            priority: row.try_get("priority")?,
            paused_at: row.try_get("paused_at")?,
            paused_by: row.try_get("paused_by")?,
            tasks: None,
        })
    }

    /// The numbers of the same class, where it was counted.
    fn take_tasks_of(&mut self, counted: &[Queue]) {
        let same = counted.iter().find(|queue| queue.name == self.name && queue.priority == self.priority);
        self.tasks = same.and_then(|queue| queue.tasks);
    }
}

impl Tasks {
    fn read(row: &PgRow) -> Result<Tasks, sqlx::Error> {
        Ok(Tasks {
            due: row.try_get("due")?,
            waiting: row.try_get("waiting")?,
            running: row.try_get("running")?,
            oldest_due_us: row.try_get("oldest_due_us")?,
        })
    }
}

/// All of them, with what lies in each. That takes as long as all tasks take to read: only the overview may ask, which asks
/// seldom.
///
/// # Errors
/// What the database says.
pub(crate) async fn count_tasks(pool: &PgPool) -> Result<Vec<Queue>, Error> {
    let rows = sqlx::query(query::QUEUES).fetch_all(pool).await?;
    let counted = |row| Ok(Queue { tasks: Some(Tasks::read(row)?), ..Queue::read(row)? });
    Ok(rows.iter().map(counted).collect::<Result<_, sqlx::Error>>()?)
}

/// All of them, or those of one name, as they are paused now.
async fn read(pool: PgPool, name: Option<String>) -> Result<Vec<Queue>, Error> {
    let rows = sqlx::query(query::UI_QUEUES).bind(name).bind(CLASSES_MAX).fetch_all(&pool).await?;
    Ok(rows.iter().map(Queue::read).collect::<Result<_, _>>()?)
}

/// Whether a queue may be paused or resumed.
///
/// # Errors
/// What the database says; [`Failure::absent`] where there is none of that name.
pub(crate) async fn check(app: &App, name: &str) -> Result<(), Failure> {
    let wanted = name.to_owned();
    if app.store.read(move |pool| read(pool, Some(wanted))).await?.is_empty() {
        return Err(Failure::absent(format!("No saga was ever in the queue {name:?}.")));
    }
    Ok(())
}

/// GET /queues
pub(crate) async fn page(State(app): State<App>, visitor: Visitor) -> Response {
    let body = async {
        // Where tasks take too long to be counted, somebody may want to pause a queue all the more.
        let mut queues = app.store.read(|pool| read(pool, None)).await?;
        let counted = overview::current(&app).await.and_then(|overview| {
            let of = overview.queues.as_ref().map_err(Clone::clone)?;
            queues.iter_mut().for_each(|queue| queue.take_tasks_of(of));
            Ok(overview)
        });
        Ok(markup(&visitor, &queues, &counted))
    };
    let body = body.await;
    show(&app, &visitor, Place::Queues, "Queues", body)
}

fn markup(visitor: &Visitor, queues: &[Queue], counted: &Result<Arc<Overview>, Failure>) -> Markup {
    html! {
        h1 { "Queues" }
        p.muted { "A paused queue: none of its tries is claimed, and none of its sagas goes on to its next step. Class 0 goes first." }
        @match counted {
            Ok(overview) => p.muted { "Counted at " (page::time(overview.at)) " UTC" },
            Err(failure) => (not_counted(failure)),
        }
        (list(queues, visitor.may_log_in))
    }
}

/// Instead of the numbers.
pub(crate) fn not_counted(failure: &Failure) -> Markup {
    html! { p.alarm { "What lies in the queues is not counted. " (failure.what) ": " (text(&failure.why)) } }
}

/// As a table, with buttons where somebody may decide.
pub(crate) fn list(queues: &[Queue], decides: bool) -> Markup {
    let rows: Vec<Vec<Markup>> = queues
        .iter()
        .map(|queue| {
            let mut cells = vec![
                html! { a href=(link("/sagas", &[("status", "open"), ("queue", &queue.name)])) { (text(&queue.name)) } },
                html! { (queue.priority) },
            ];
            cells.extend(numbers(queue.tasks));
            cells.push(paused(queue));
            if decides {
                let (action, word) = if queue.paused_at.is_some() { ("resume", "Resume") } else { ("pause", "Pause") };
                cells.push(html! {
                    a.button href=(link("/decide", &[("action", action), ("queue", &queue.name)])) {
                        (word) span.hidden { " the queue " (queue.name) }
                    }
                });
            }
            cells
        })
        .collect();
    let columns = ["Queue", "Class", "Due", "Waiting", "Running", "Paused", "Decide"];
    table("Queues", &columns[..if decides { 7 } else { 6 }], &rows)
}

fn numbers(tasks: Option<Tasks>) -> [Markup; 3] {
    let Some(tasks) = tasks else {
        return std::array::from_fn(|_| html! { span.muted { "not counted" } });
    };
    [
        html! { (count(tasks.due)) @if tasks.due > 0 { span.muted { " oldest " (span_us(tasks.oldest_due_us)) } } },
        html! { (count(tasks.waiting)) },
        html! { (count(tasks.running)) },
    ]
}

fn paused(queue: &Queue) -> Markup {
    html! {
        @match queue.paused_at {
            Some(at) => { span.badge.stuck { "paused" } " since " (page::time(at)) " by " (text(queue.paused_by.as_deref().unwrap_or("somebody"))) }
            None => "no",
        }
    }
}

/// What follows from pausing or resuming one.
pub(crate) fn consequences(name: &str, pause: bool) -> Vec<String> {
    if pause {
        return vec![
            format!(
                "No try of the queue {name} is claimed any more, and none of its sagas goes on to its next step, until somebody resumes it."
            ),
            "Calls in flight end, and what they come to is recorded.".to_owned(),
            "Deadlines wait, too. New sagas are taken, and wait.".to_owned(),
        ];
    }
    vec![
        format!("What is due of the queue {name} is claimed and called at once."),
        "Sagas whose deadline has passed meanwhile turn back.".to_owned(),
    ]
}
