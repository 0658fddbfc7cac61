//! The claim loop: takes due tasks, as many as there are free places, and starts them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tokio::sync::OwnedSemaphorePermit;

use crate::backoff::Reconnect;
use crate::db::Lane;
use crate::definition::{Definition, SagaColumns};
use crate::execute;
use crate::hand_back;
use crate::mark::{Mark, Seen};
use crate::outcome::Outcome;
use crate::plan::{Op, Steps as _, Try};
use crate::task::{HELD_BYTES_MAX, Task, Weight};
use crate::worker::Worker;

/// After a claim that found something but not everything it had room for.
const POLL_BUSY: Duration = Duration::from_millis(5);
/// The first pause of a worker that found nothing; it doubles.
const POLL_FIRST: Duration = Duration::from_millis(2);
/// The longest pause.
const POLL_MAX: Duration = Duration::from_secs(1);
/// So many empty claims in a row make a worker idle.
const IDLE_AFTER: u32 = 3;
/// A task that cannot be decoded comes back after this long, for a worker that may know better.
const UNDECODABLE_DELAY: Duration = Duration::from_secs(60);

/// What one claim did.
struct Claimed {
    found: usize,
    asked: usize,
    next_due: Option<Duration>,
}

/// Claims until told to stop.
pub async fn run(worker: Arc<Worker>) {
    let mut mark = Mark::default();
    let mut marked_at = Instant::now();
    let mut empty_in_a_row = 0u32;
    let mut reconnect = Reconnect::new();
    while let Some(places) = free_places(&worker).await {
        // The backstop of the mark: a small step back of the clock between two claims is not seen otherwise.
        if marked_at.elapsed() > worker.limits.lease {
            mark.reset();
            marked_at = Instant::now();
        }
        let pause = if !worker.lease.holds() {
            POLL_MAX / 4 // a heartbeat or a new registration ends this
        } else {
            match claim(&worker, places, &mut mark).await {
                Ok(claimed) => {
                    reconnect.reset();
                    if claimed.found > 0 {
                        empty_in_a_row = 0;
                    } else {
                        empty_in_a_row = empty_in_a_row.saturating_add(1);
                    }
                    let idle = empty_in_a_row >= IDLE_AFTER;
                    worker.idle.send_if_modified(|was| std::mem::replace(was, idle) != idle);
                    if claimed.found == claimed.asked {
                        Duration::ZERO
                    } else {
                        pause(empty_in_a_row, claimed.next_due)
                    }
                }
                Err(error) => {
                    worker.metrics.claims[2].increment(1);
                    worker.database_failed("claim", &error);
                    // A claim whose reply was lost may have given us tasks that we do not know.
                    worker.doubt.notify_one();
                    mark.reset();
                    reconnect.pause()
                }
            }
        };
        if pause.is_zero() {
            continue;
        }
        tokio::select! {
            () = worker.stop.cancelled() => break,
            () = worker.wake.notified() => worker.metrics.wakeups[0].increment(1),
            () = tokio::time::sleep(pause) => worker.metrics.wakeups[1].increment(1),
        }
    }
    worker.idle.send_replace(false);
}

fn pause(empty_in_a_row: u32, next_due: Option<Duration>) -> Duration {
    let pause = match empty_in_a_row {
        0 => POLL_BUSY,
        n => POLL_FIRST.saturating_mul(1 << (n - 1).min(16)).min(POLL_MAX),
    };
    match next_due {
        Some(due) => pause.min(due.max(Duration::from_millis(1))),
        None => pause,
    }
}

/// Waits until there is room, then takes all of it. `None` when the worker stops.
async fn free_places(worker: &Worker) -> Option<OwnedSemaphorePermit> {
    let first = tokio::select! {
        biased;
        () = worker.stop.cancelled() => return None,
        first = Arc::clone(&worker.places).acquire_owned() => first.ok()?,
    };
    let few = worker.limits.held_max / 8;
    if worker.places.available_permits() < few {
        // Nearly full: the settle under way frees places by the group. Claims of one task each would cost a commit each.
        tokio::select! {
            () = worker.stop.cancelled() => return None,
            () = tokio::time::sleep(POLL_BUSY) => {}
        }
    }
    while worker.load.room(HELD_BYTES_MAX) == 0 {
        tokio::select! {
            () = worker.stop.cancelled() => return None,
            () = tokio::time::sleep(POLL_BUSY) => {}
        }
    }
    let mut places = first;
    let more = u32::try_from(worker.places.available_permits()).unwrap_or(u32::MAX);
    if let Ok(more) = Arc::clone(&worker.places).try_acquire_many_owned(more) {
        places.merge(more);
    }
    Some(places)
}

async fn claim(
    worker: &Arc<Worker>,
    mut places: OwnedSemaphorePermit,
    mark: &mut Mark,
) -> Result<Claimed, sqlx::Error> {
    let asked = places.num_permits();
    let id = worker.id();
    let moving = worker.gate.read().await;
    let started = Instant::now();
    let rows = worker
        .db
        .run(
            Lane::Work,
            sqlx::query(query::CLAIM)
                .bind(id)
                .bind(asked as i64)
                .bind(mark.start())
                .bind(pgsaga_sql::FORMAT)
                .bind(worker.load.room(HELD_BYTES_MAX) as i64),
        )
        .await?;
    worker.metrics.claim_seconds.record(started.elapsed().as_secs_f64());
    let Some(header) = rows.first() else { return Ok(Claimed { found: 0, asked, next_due: None }) };
    if !header.try_get::<bool, _>("alive")? {
        worker.lease.end();
    }
    mark.learn(Seen {
        now: header.try_get("now")?,
        xmin: header.try_get("xmin")?,
        xmax: header.try_get("xmax")?,
        lowest: header.try_get("lowest")?,
    });
    let oldest_us: Option<i64> = header.try_get("oldest_us")?;
    worker.metrics.oldest_due_seconds.set(oldest_us.unwrap_or(0).max(0) as f64 / 1e6);
    let next_due: Option<i64> = header.try_get("next_due_ms")?;

    let mut found = 0;
    let mut undecodable = Vec::new();
    for row in &rows {
        let Some(task_id) = row.try_get::<Option<i64>, _>("id")? else { continue };
        let epoch: i32 = row.try_get("epoch")?;
        found += 1;
        let Some(place) = places.split(1) else { continue };
        let weight = worker.load.add(row.try_get::<i32, _>("bytes")?.try_into().unwrap_or(0));
        match decode(row, task_id, epoch, id, weight, place) {
            Ok(task) => {
                let waited_us: i64 = row.try_get("waited_us")?;
                worker.metrics.wait_seconds.record(waited_us.max(0) as f64 / 1e6);
                if worker.id() == id && worker.held.take(task_id, epoch) {
                    execute::start(worker, task);
                }
            }
            Err(error) => {
                tracing::error!(task = task_id, error, "a claimed task cannot be decoded; it is handed back");
                undecodable.push((task_id, epoch));
            }
        }
    }
    drop(moving);
    worker.metrics.held.set(worker.held.len() as f64);
    worker.metrics.claimed.increment(found as u64);
    worker.metrics.claims[usize::from(found == 0)].increment(1);
    if found > 0 {
        worker.metrics.claim_tasks.record(found as f64);
    }
    if !undecodable.is_empty() {
        hand_back::hand_back(worker, id, &undecodable, UNDECODABLE_DELAY).await;
    }
    let next_due = next_due.map(|ms| Duration::from_millis(ms.try_into().unwrap_or(0)));
    Ok(Claimed { found, asked, next_due })
}

/// One row at a time, so that one bad row cannot hide the others (RACES 2).
fn decode(
    row: &PgRow,
    id: i64,
    epoch: i32,
    worker: i64,
    weight: Weight,
    place: OwnedSemaphorePermit,
) -> Result<Task, String> {
    let read = || -> Result<(SagaColumns, Try, i64, i16), sqlx::Error> {
        let word = |name: &'static str| row.try_get::<Option<String>, _>(name);
        let op = word("op")?.as_deref().and_then(Op::parse);
        let now = Try {
            step: usize::try_from(row.try_get::<i16, _>("step")? - 1).unwrap_or(usize::MAX),
            op: op.ok_or_else(|| sqlx::Error::Decode("op is neither action nor compensate".into()))?,
            attempt: row.try_get::<i32, _>("attempt")?.try_into().unwrap_or(1),
            counted: row.try_get::<i32, _>("counted")?.try_into().unwrap_or(0),
            unknown_before: row.try_get("unknown_before")?,
            last: word("last_outcome")?.as_deref().and_then(Outcome::parse),
        };
        let columns = SagaColumns {
            gid: row.try_get("gid")?,
            steps: row.try_get("steps")?,
            headers: row.try_get("headers")?,
            retry_limit: row.try_get("retry_limit")?,
            retry_interval_us: row.try_get("retry_interval_us")?,
            request_timeout_us: row.try_get("request_timeout_us")?,
        };
        Ok((columns, now, row.try_get("saga_id")?, row.try_get("lost")?))
    };
    let (columns, now, saga_id, lost) = read().map_err(|error| error.to_string())?;
    let saga = Arc::new(Definition::decode(columns).map_err(|error| error.to_string())?);
    if now.step >= saga.count() {
        return Err(format!("step {} of a saga with {} steps", now.step.wrapping_add(1), saga.count()));
    }
    Ok(Task { id, epoch, saga_id, worker, now, lost, saga, weight, place })
}
