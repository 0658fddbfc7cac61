//! A saga in the list.

use comfy_table::{Cell, Color};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::error::Error;
use crate::operate::table_of;
use crate::words::{count, newer_format, printable, time, when};
use pgsaga_worker::db::Time;

/// Characters of a reason.
const REASON_CHARS_MAX: usize = 200;
/// Characters of a gid, a queue or a step's name: of rows that were changed by hand, which may be
/// anything.
const NAME_CHARS_MAX: usize = 128;

/// One saga, with the earliest of its queued tries.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) gid: String,
    status: String,
    reason: Option<String>,
    queue: String,
    priority: i16,
    labels: Option<String>,
    steps: i32,
    created_at: Time,
    finished_at: Option<Time>,
    next: Option<Next>,
}

#[derive(Debug)]
struct Next {
    step: String,
    op: String,
    attempt: i32,
    worker: Option<i64>,
    format: i16,
    due_ms: i64,
    /// How many tries are queued in all.
    tasks: i64,
}

#[derive(Serialize)]
struct Json<'a> {
    created_at: String,
    finished_at: Option<String>,
    gid: &'a str,
    labels: Option<&'a RawValue>,
    next: Option<NextJson<'a>>,
    priority: i16,
    queue: &'a str,
    reason: Option<&'a str>,
    status: &'a str,
    steps: i32,
    tasks: i64,
}

#[derive(Serialize)]
struct NextJson<'a> {
    attempt: i32,
    due_ms: i64,
    op: &'a str,
    step: &'a str,
    worker: Option<i64>,
}

impl Row {
    pub(crate) fn read(row: &PgRow) -> Result<Row, sqlx::Error> {
        let next = match row.try_get::<Option<String>, _>("op")? {
            Some(op) => Some(Next {
                step: row.try_get("step")?,
                op,
                attempt: row.try_get("attempt")?,
                worker: row.try_get("worker")?,
                format: row.try_get("format")?,
                due_ms: row.try_get("due_ms")?,
                tasks: row.try_get("tasks")?,
            }),
            None => None,
        };
        Ok(Row {
            gid: row.try_get("gid")?,
            status: row.try_get("status")?,
            reason: row.try_get("reason")?,
            queue: row.try_get("queue")?,
            priority: row.try_get("priority")?,
            labels: row.try_get("labels")?,
            steps: row.try_get("steps")?,
            created_at: row.try_get("created_at")?,
            finished_at: row.try_get("finished_at")?,
            next,
        })
    }

    /// What makes it another row for whoever follows: not the seconds until its next try.
    pub(crate) fn version(&self) -> String {
        let next = self.next.as_ref();
        let next = next.map(|next| {
            format!("{} {} {} {:?} {}", next.step, next.op, next.attempt, next.worker, next.tasks)
        });
        format!("{} {:?} {}", self.status, self.reason, next.unwrap_or_default())
    }

    /// As one JSON object. Its labels are Postgres's own text: whoever changed a row by hand may
    /// have nested them deeper, or written larger numbers, than a value of serde_json holds.
    pub(crate) fn json(&self) -> Result<String, Error> {
        let json = Json {
            created_at: self.created_at.exact(),
            finished_at: self.finished_at.map(Time::exact),
            gid: &self.gid,
            labels: self.labels.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            next: self.next.as_ref().map(|next| NextJson {
                attempt: next.attempt,
                due_ms: next.due_ms,
                op: &next.op,
                step: &next.step,
                worker: next.worker,
            }),
            priority: self.priority,
            queue: &self.queue,
            reason: self.reason.as_deref(),
            status: &self.status,
            steps: self.steps,
            tasks: self.next.as_ref().map_or(0, |next| next.tasks),
        };
        serde_json::to_string(&json)
            .map_err(|error| Error::Found(format!("saga {} cannot be written as JSON: {error}", self.gid)))
    }

    /// As one line, for whoever follows without a terminal.
    pub(crate) fn line(&self) -> String {
        let rest = [self.next(), self.reason()].into_iter().filter(|text| !text.is_empty());
        let rest: Vec<String> = rest.collect();
        format!("{}  {}  {}  {}", time(self.created_at), self.gid(), self.status, rest.join("; "))
            .trim_end()
            .to_owned()
    }

    fn next(&self) -> String {
        let Some(next) = &self.next else { return String::new() };
        let more = if next.tasks > 1 { format!(", +{} more", count(next.tasks - 1)) } else { String::new() };
        let when = when(next.worker, next.due_ms);
        let newer = newer_format(next.format).map(|why| format!("; {why}")).unwrap_or_default();
        let step = printable(&next.step, NAME_CHARS_MAX);
        format!("{} of {step}, try {}, {when}{more}{newer}", next.op, count(next.attempt.into()))
    }

    fn gid(&self) -> String {
        printable(&self.gid, NAME_CHARS_MAX)
    }

    fn reason(&self) -> String {
        self.reason.as_deref().map(|reason| printable(reason, REASON_CHARS_MAX)).unwrap_or_default()
    }
}

/// All of them; as wide as the terminal, where there is one.
pub(crate) fn table(rows: &[Row]) -> comfy_table::Table {
    let mut table = table_of(&["gid", "status", "queue", "steps", "created", "finished", "next", "reason"]);
    for row in rows {
        let color = match row.status.as_str() {
            "succeeded" => Color::Green,
            "failed" | "stuck" => Color::Red,
            "aborting" => Color::Yellow,
            _ => Color::Cyan,
        };
        table.add_row([
            Cell::new(row.gid()),
            Cell::new(&row.status).fg(color),
            Cell::new(printable(&row.queue, NAME_CHARS_MAX)),
            Cell::new(row.steps),
            Cell::new(time(row.created_at)),
            Cell::new(row.finished_at.map(time).unwrap_or_default()),
            Cell::new(row.next()),
            Cell::new(row.reason()),
        ]);
    }
    table
}
