//! What is shown of a saga, read in one snapshot.

use std::collections::HashMap;

use pgsaga_sql::query;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Executor as _, Row as _};

use super::standing;
use crate::error::Error;
use pgsaga_plan::Op;
use pgsaga_plan::{Progress, State};
use pgsaga_worker::db::Time;
use pgsaga_worker::task::definition::default_step_name;

/// No step stands here.
const NO_POSITION: usize = usize::MAX;

/// All that is shown, but for a history in full.
#[derive(Debug)]
pub(crate) struct Saga {
    pub(crate) id: i64,
    pub(crate) head: Head,
    pub(crate) steps: Vec<Step>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) stuck: Vec<Stuck>,
    /// Only where it is drawn.
    pub(crate) timeline: Vec<Line>,
}

impl Saga {
    /// The name of a step by its position from 0; of a row that was changed by hand, the position's own.
    pub(crate) fn step_name(&self, step: usize) -> String {
        match self.steps.get(step) {
            Some(step) => step.name.clone(),
            None if step == NO_POSITION => "?".to_owned(),
            None => default_step_name(step),
        }
    }
}

/// The saga's own row. JSON is Postgres's own text, and cut where the saga was not read whole.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) gid: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) format: i16,
    pub(crate) queue: String,
    pub(crate) priority: i16,
    pub(crate) created_at: Time,
    pub(crate) run_at: Option<Time>,
    pub(crate) deadline: Option<Time>,
    pub(crate) deadline_us: Option<i64>,
    pub(crate) finished_at: Option<Time>,
    pub(crate) timeout_to_fail: Option<String>,
    pub(crate) retry_interval: String,
    pub(crate) retry_interval_us: i64,
    pub(crate) retry_limit: Option<i32>,
    pub(crate) compensate_retry_limit: Option<i32>,
    pub(crate) request_timeout: String,
    pub(crate) headers: Option<String>,
    pub(crate) labels: Option<String>,
    pub(crate) result: Option<String>,
    pub(crate) result_mapping: Option<String>,
    pub(crate) fresh_keys: Option<String>,
    pub(crate) steps: Option<String>,
    pub(crate) abort_reason: Option<String>,
    pub(crate) ending: Option<String>,
    pub(crate) version: i32,
    pub(crate) progress: Option<String>,
    pub(crate) paused_at: Option<Time>,
    pub(crate) paused_by: Option<String>,
    /// Workers heard from within their lease.
    pub(crate) workers: i64,
    pub(crate) last_seq: Option<i64>,
}

/// A step as it was defined, and what came of it.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) action: String,
    pub(crate) compensate: Option<String>,
    /// Its first characters.
    pub(crate) payload: Option<String>,
    pub(crate) pivot: bool,
    /// Positions from 0 of the steps that it waits for.
    pub(crate) after: Vec<usize>,
    pub(crate) retry_interval_seconds: Option<f64>,
    pub(crate) retry_limit: Option<f64>,
    pub(crate) compensate_retry_limit: Option<f64>,
    pub(crate) acted: Tries,
    pub(crate) undid: Tries,
    /// A person counted an op of it as done.
    pub(crate) skipped: bool,
    pub(crate) state: State,
}

/// What came of an op.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tries {
    pub(crate) tries: i64,
    /// One succeeded.
    pub(crate) done: bool,
    /// One ended unknown.
    pub(crate) doubtful: bool,
    /// How the last one ended.
    pub(crate) outcome: Option<String>,
    pub(crate) status_code: Option<i16>,
    pub(crate) message: Option<String>,
}

/// A queued try.
#[derive(Debug)]
pub(crate) struct Task {
    /// Position from 0.
    pub(crate) step: usize,
    pub(crate) op: Op,
    pub(crate) attempt: i32,
    pub(crate) counted: i32,
    pub(crate) worker: Option<i64>,
    pub(crate) format: i16,
    pub(crate) host: Option<String>,
    pub(crate) pid: Option<i32>,
    pub(crate) seen_us: Option<i64>,
    pub(crate) held_us_max: i64,
    pub(crate) lost: i16,
    pub(crate) interrupt: Option<String>,
    pub(crate) participant: String,
    /// How many living workers may not call it, and why one of them may not.
    pub(crate) denied_by: i64,
    pub(crate) denied: Option<String>,
    pub(crate) run_at: Time,
    pub(crate) due_ms: i64,
}

/// What waits for a person.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) step: String,
    /// Position from 0; absent where an early release did not write it.
    pub(crate) position: Option<usize>,
    pub(crate) op: Option<Op>,
    pub(crate) attempt: Option<i32>,
    pub(crate) reason: String,
    pub(crate) at: Time,
    pub(crate) since_us: i64,
}

/// A line of the timeline: a try, a run of tries that ended alike, a decision, or the deadline.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) kind: String,
    pub(crate) step: Option<usize>,
    pub(crate) op: Option<Op>,
    pub(crate) outcome: Option<String>,
    pub(crate) status_code: Option<i16>,
    pub(crate) at: Time,
    pub(crate) until: Time,
    pub(crate) tries: i64,
    pub(crate) attempt: Option<i32>,
    pub(crate) last_attempt: Option<i32>,
    /// The shortest and the longest.
    pub(crate) duration_us: Option<(i32, i32)>,
    pub(crate) wait_us: Option<(i64, i64)>,
    pub(crate) message: Option<String>,
    pub(crate) decision: Option<String>,
    pub(crate) decided_by: Option<String>,
    /// From 1, those left out included.
    pub(crate) place: i64,
    pub(crate) tries_so_far: i64,
    pub(crate) successes_so_far: i64,
}

/// Reads the saga in one snapshot: `whole` with all its columns, `lines` with about so many lines of its timeline.
pub(crate) async fn read(
    pool: &PgPool,
    gid: &str,
    whole: bool,
    lines: Option<i64>,
) -> Result<Option<Saga>, Error> {
    let mut snapshot = pool.begin().await?;
    snapshot.execute("set transaction isolation level repeatable read, read only").await?;
    let row = sqlx::query(query::SHOW_SAGA).bind(gid).bind(whole).fetch_optional(&mut *snapshot).await?;
    let Some(row) = row else { return Ok(None) };
    let id: i64 = row.try_get("id")?;
    let head = head(&row)?;
    let steps = sqlx::query(query::SHOW_STEPS).bind(id).fetch_all(&mut *snapshot).await?;
    let tasks = sqlx::query(query::SHOW_TASKS).bind(id).fetch_all(&mut *snapshot).await?;
    let stuck = sqlx::query(query::SHOW_STUCK).bind(id).fetch_all(&mut *snapshot).await?;
    let timeline = match lines {
        Some(lines) => {
            sqlx::query(query::SHOW_TIMELINE).bind(id).bind(lines).fetch_all(&mut *snapshot).await?
        }
        None => Vec::new(),
    };
    snapshot.commit().await?;

    let tasks = tasks.iter().map(task).collect::<Result<Vec<_>, _>>()?;
    let stuck = stuck.iter().map(stuck_step).collect::<Result<Vec<_>, _>>()?;
    let timeline = timeline.iter().map(line).collect::<Result<Vec<_>, _>>()?;
    let mut steps = steps_of(&steps, head.progress.is_some())?;
    let progress = head.progress.as_deref().and_then(|text| Progress::parse(text, false));
    for (index, step) in steps.iter_mut().enumerate() {
        let task = tasks.iter().find(|task| task.step == index).map(|task| task.op);
        let stuck = stuck.iter().find(|stuck| stuck.position == Some(index)).and_then(|stuck| stuck.op);
        let state = progress.as_ref().and_then(|progress| progress.steps.get(index)).copied();
        step.state = standing::of(step, state, task, stuck);
    }
    Ok(Some(Saga { id, head, steps, tasks, stuck, timeline }))
}

fn head(row: &PgRow) -> Result<Head, sqlx::Error> {
    Ok(Head {
        gid: row.try_get("gid")?,
        status: row.try_get("status")?,
        reason: row.try_get("reason")?,
        format: row.try_get("format")?,
        queue: row.try_get("queue")?,
        priority: row.try_get("priority")?,
        created_at: row.try_get("created_at")?,
        run_at: row.try_get("run_at")?,
        deadline: row.try_get("deadline")?,
        deadline_us: row.try_get("deadline_us")?,
        finished_at: row.try_get("finished_at")?,
        timeout_to_fail: row.try_get("timeout_to_fail")?,
        retry_interval: row.try_get("retry_interval")?,
        retry_interval_us: row.try_get("retry_interval_us")?,
        retry_limit: row.try_get("retry_limit")?,
        compensate_retry_limit: row.try_get("compensate_retry_limit")?,
        request_timeout: row.try_get("request_timeout")?,
        headers: row.try_get("headers")?,
        labels: row.try_get("labels")?,
        result: row.try_get("result")?,
        result_mapping: row.try_get("result_mapping")?,
        fresh_keys: row.try_get("fresh_keys")?,
        steps: row.try_get("steps")?,
        abort_reason: row.try_get("abort_reason")?,
        ending: row.try_get("ending")?,
        version: row.try_get("version")?,
        progress: row.try_get("progress")?,
        paused_at: row.try_get("paused_at")?,
        paused_by: row.try_get("paused_by")?,
        workers: row.try_get("workers")?,
        last_seq: row.try_get("last_seq")?,
    })
}

fn steps_of(rows: &[PgRow], parallel: bool) -> Result<Vec<Step>, sqlx::Error> {
    let mut positions: HashMap<String, usize> = HashMap::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        positions.insert(row.try_get("name")?, index);
    }
    let mut steps = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let named: Option<Vec<String>> = row.try_get("after")?;
        let after = match named.filter(|_| parallel) {
            Some(names) => names.iter().filter_map(|name| positions.get(name).copied()).collect(),
            None => index.checked_sub(1).into_iter().collect(),
        };
        steps.push(Step {
            name: row.try_get("name")?,
            action: row.try_get::<Option<_>, _>("action")?.unwrap_or_default(),
            compensate: row.try_get("compensate")?,
            payload: row.try_get("payload")?,
            pivot: row.try_get("pivot")?,
            after,
            retry_interval_seconds: row.try_get("retry_interval_seconds")?,
            retry_limit: row.try_get("retry_limit")?,
            compensate_retry_limit: row.try_get("compensate_retry_limit")?,
            acted: Tries {
                tries: row.try_get("action_tries")?,
                done: row.try_get("action_done")?,
                doubtful: row.try_get("action_doubtful")?,
                outcome: row.try_get("action_outcome")?,
                status_code: row.try_get("action_status_code")?,
                message: row.try_get("action_message")?,
            },
            undid: Tries {
                tries: row.try_get("compensate_tries")?,
                done: row.try_get("compensate_done")?,
                doubtful: row.try_get("compensate_doubtful")?,
                outcome: row.try_get("compensate_outcome")?,
                status_code: row.try_get("compensate_status_code")?,
                message: row.try_get("compensate_message")?,
            },
            skipped: row.try_get("skipped")?,
            state: State::Waiting,
        });
    }
    Ok(steps)
}

/// A position in `pgsaga.saga.steps` from 0. Of one that a row was given by hand, and no step can
/// have, no step either.
pub(crate) fn position(position: i16) -> usize {
    usize::try_from(i32::from(position) - 1).unwrap_or(NO_POSITION)
}

fn op(word: Option<&str>) -> Option<Op> {
    word.and_then(Op::parse)
}

fn task(row: &PgRow) -> Result<Task, sqlx::Error> {
    Ok(Task {
        step: position(row.try_get("step")?),
        op: op(row.try_get("op")?).unwrap_or(Op::Action),
        attempt: row.try_get("attempt")?,
        counted: row.try_get("counted")?,
        worker: row.try_get("worker")?,
        format: row.try_get("format")?,
        host: row.try_get("host")?,
        pid: row.try_get("pid")?,
        seen_us: row.try_get("seen_us")?,
        held_us_max: row.try_get("held_us_max")?,
        lost: row.try_get("lost")?,
        interrupt: row.try_get("interrupt")?,
        participant: row.try_get("participant")?,
        denied_by: row.try_get("denied_by")?,
        denied: row.try_get("denied")?,
        run_at: row.try_get("run_at")?,
        due_ms: row.try_get("due_ms")?,
    })
}

fn stuck_step(row: &PgRow) -> Result<Stuck, sqlx::Error> {
    Ok(Stuck {
        step: row.try_get("step")?,
        position: row.try_get::<Option<i16>, _>("position")?.map(position),
        op: op(row.try_get("op")?),
        attempt: row.try_get("attempt")?,
        reason: row.try_get("reason")?,
        at: row.try_get("at")?,
        since_us: row.try_get("since_us")?,
    })
}

fn line(row: &PgRow) -> Result<Line, sqlx::Error> {
    let pair = |least: Option<_>, most: Option<_>| least.zip(most);
    Ok(Line {
        kind: row.try_get("kind")?,
        step: row.try_get::<Option<i16>, _>("step")?.map(position),
        op: op(row.try_get("op")?),
        outcome: row.try_get("outcome")?,
        status_code: row.try_get("status_code")?,
        at: row.try_get("at")?,
        until: row.try_get("until")?,
        tries: row.try_get("tries")?,
        attempt: row.try_get("attempt")?,
        last_attempt: row.try_get("last_attempt")?,
        duration_us: pair(row.try_get("duration_us_min")?, row.try_get("duration_us_max")?),
        wait_us: row.try_get::<Option<i64>, _>("wait_us_min")?.zip(row.try_get("wait_us_max")?),
        message: row.try_get("message")?,
        decision: row.try_get("decision")?,
        decided_by: row.try_get("decided_by")?,
        place: row.try_get("place")?,
        tries_so_far: row.try_get("tries_so_far")?,
        successes_so_far: row.try_get("successes_so_far")?,
    })
}
