//! All that the database knows of a saga, as one JSON object. Its history comes in pages, so that neither its length nor a
//! slow reader costs memory or holds back a snapshot.

use pgsaga_sql::query;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgRow};

use super::event::Event;
use super::read::{Head, Saga, Stuck, Task};
use crate::error::Error;
use crate::operate::{out, out_json};
use pgsaga_plan::Op;
use pgsaga_worker::db::Time;

/// Events a page.
const PAGE: i64 = 1000;

/// JSON is Postgres's own text: numbers keep their digits.
#[derive(Serialize)]
struct Whole<'a> {
    gid: &'a str,
    status: &'a str,
    reason: Option<&'a str>,
    created_at: Time,
    finished_at: Option<Time>,
    queue: &'a str,
    priority: i16,
    paused_at: Option<Time>,
    paused_by: Option<&'a str>,
    run_at: Option<Time>,
    timeout_to_fail: Option<&'a str>,
    deadline: Option<Time>,
    retry_interval: &'a str,
    retry_limit: Option<i32>,
    compensate_retry_limit: Option<i32>,
    request_timeout: &'a str,
    abort_reason: Option<&'a str>,
    ending: Option<&'a str>,
    format: i16,
    version: i32,
    progress: Option<&'a str>,
    #[serde(serialize_with = "raw")]
    headers: Option<&'a str>,
    #[serde(serialize_with = "raw")]
    labels: Option<&'a str>,
    #[serde(serialize_with = "raw")]
    fresh_keys: Option<&'a str>,
    #[serde(serialize_with = "raw")]
    result_mapping: Option<&'a str>,
    #[serde(serialize_with = "raw")]
    result: Option<&'a str>,
    #[serde(serialize_with = "raw")]
    steps: Option<&'a str>,
    next: Vec<Queued<'a>>,
    stuck: Vec<Waiting<'a>>,
}

#[derive(Serialize)]
struct Queued<'a> {
    step: String,
    op: &'static str,
    attempt: i32,
    counted: i32,
    participant: &'a str,
    denied_by_workers: i64,
    denied: Option<&'a str>,
    interrupt: Option<&'a str>,
    worker: Option<i64>,
    host: Option<&'a str>,
    pid: Option<i32>,
    lost_workers: i16,
    run_at: Time,
    due_ms: i64,
}

#[derive(Serialize)]
struct Waiting<'a> {
    step: &'a str,
    op: Option<&'static str>,
    attempt: Option<i32>,
    reason: &'a str,
    at: Time,
}

fn raw<S: Serializer>(text: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    text.map(serde_json::from_str::<&RawValue>).transpose().map_err(S::Error::custom)?.serialize(serializer)
}

/// Prints it.
pub(crate) async fn print(pool: &PgPool, saga: &Saga) -> Result<(), Error> {
    let whole = serde_json::to_string_pretty(&whole(saga)).map_err(unreadable)?;
    // The history becomes the object's last key.
    out_json(format_args!("{},\n  \"history\": [", whole.trim_end_matches(['\n', '}'])))?;
    let mut from = Some(i64::MIN);
    let mut ready: Option<String> = None;
    while let (Some(first), Some(last)) = (from, saga.head.last_seq) {
        let page =
            query::ShowHistory { saga_id: saga.id, first_seq: first, last_seq: last, events_max: PAGE };
        let rows = page.query().fetch_all(pool).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            let event = Event::read(saga, row, answer(row)?)?;
            from = event.seq.checked_add(1);
            if let Some(before) = ready.replace(serde_json::to_string(&event).map_err(unreadable)?) {
                out_json(format_args!("    {before},"))?;
            }
        }
    }
    if let Some(event) = ready {
        out_json(format_args!("    {event}"))?;
    }
    out("  ]\n}")
}

/// What was answered, with the digits that it has.
fn answer(row: &PgRow) -> Result<Option<Box<RawValue>>, sqlx::Error> {
    let text: Option<String> = row.try_get("answer")?;
    text.map(RawValue::from_string).transpose().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::Found(format!("the saga's row cannot be read: {error}"))
}

fn whole(saga: &Saga) -> Whole<'_> {
    let head: &Head = &saga.head;
    Whole {
        gid: &head.gid,
        status: &head.status,
        reason: head.reason.as_deref(),
        created_at: head.created_at,
        finished_at: head.finished_at,
        queue: &head.queue,
        priority: head.priority,
        paused_at: head.paused_at,
        paused_by: head.paused_by.as_deref(),
        run_at: head.run_at,
        timeout_to_fail: head.timeout_to_fail.as_deref(),
        deadline: head.deadline,
        retry_interval: &head.retry_interval,
        retry_limit: head.retry_limit,
        compensate_retry_limit: head.compensate_retry_limit,
        request_timeout: &head.request_timeout,
        abort_reason: head.abort_reason.as_deref(),
        ending: head.ending.as_deref(),
        format: head.format,
        version: head.version,
        progress: head.progress.as_deref(),
        headers: head.headers.as_deref(),
        labels: head.labels.as_deref(),
        fresh_keys: head.fresh_keys.as_deref(),
        result_mapping: head.result_mapping.as_deref(),
        result: head.result.as_deref(),
        steps: head.steps.as_deref(),
        next: saga.tasks.iter().map(|task| queued(saga, task)).collect(),
        stuck: saga.stuck.iter().map(waiting).collect(),
    }
}

fn queued<'a>(saga: &Saga, task: &'a Task) -> Queued<'a> {
    Queued {
        step: saga.step_name(task.step),
        op: task.op.as_str(),
        attempt: task.attempt,
        counted: task.counted,
        participant: &task.participant,
        denied_by_workers: task.denied_by,
        denied: task.denied.as_deref(),
        interrupt: task.interrupt.as_deref(),
        worker: task.worker,
        host: task.host.as_deref(),
        pid: task.pid,
        lost_workers: task.lost,
        run_at: task.run_at,
        due_ms: task.due_ms,
    }
}

fn waiting(stuck: &Stuck) -> Waiting<'_> {
    Waiting {
        step: &stuck.step,
        op: stuck.op.map(Op::as_str),
        attempt: stuck.attempt,
        reason: &stuck.reason,
        at: stuck.at,
    }
}
