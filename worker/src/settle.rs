//! The settle loop: while one settle is in flight, outcomes collect; the next takes them all. No timer, no wait when idle.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::Row as _;
use tokio::sync::mpsc;

use crate::backoff::{Reconnect, retry_delay};
use crate::db::{Class, Lane};
use crate::execute;
use crate::outcome::{Ended, clean};
use crate::plan::{Plan, Try, Why, plan};
use crate::task::Task;
use crate::worker::Worker;

/// The largest group. Beyond it the statement's own time grows as fast as the group.
const GROUP_MAX: usize = 1000;
/// How long a task waits whose saga somebody else has locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(100);
/// So often a group is said again as it is before it is halved.
const HALVE_AFTER_FAILURES: u32 = 3;

/// A finished call.
#[derive(Debug)]
pub struct Finished {
    /// Its task.
    pub task: Task,
    /// How it ended.
    pub ended: Ended,
}

/// A finished call with what follows from it.
struct Item {
    task: Task,
    ended: Ended,
    next: Next,
}

/// A plan in the words of settle.sql.
#[derive(Default)]
struct Next {
    in_place: bool,
    task: Option<Try>,
    /// Microseconds; `None` with a task is the chain: claimed by this worker at once.
    delay_us: Option<i64>,
    saga_status: Option<&'static str>,
    saga_reason: Option<String>,
    unwinds: bool,
}

/// Settles until everything is done.
pub async fn run(worker: Arc<Worker>, mut finished: mpsc::UnboundedReceiver<Finished>) {
    let mut arrived = Vec::new();
    let mut locked: Vec<Finished> = Vec::new();
    // A moment, not a pause between arrivals: under load something always arrives.
    let mut again_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = worker.done.cancelled() => return,
            () = tokio::time::sleep_until(again_at.into()), if !locked.is_empty() => arrived.append(&mut locked),
            count = finished.recv_many(&mut arrived, GROUP_MAX) => if count == 0 { return },
        }
        let group = arrived.drain(..).filter_map(|finished| prepare(&worker, finished)).collect();
        let put_aside = settle_group(&worker, group).await;
        if locked.is_empty() {
            again_at = Instant::now() + LOCKED_PAUSE;
        }
        locked.extend(put_aside);
        worker.metrics.held.set(worker.held.len() as f64);
    }
}

/// Plans, unless the task is no longer this worker's: a late answer under an old identity changes nothing, its rescue
/// has recorded it as unknown.
fn prepare(worker: &Worker, Finished { task, ended }: Finished) -> Option<Item> {
    if task.worker != worker.id() {
        worker.metrics.settled[1].increment(1);
        return None;
    }
    let stopping = worker.stop.is_cancelled();
    let next = match plan(&*task.saga, task.now, ended.outcome) {
        Ok(plan) => next(plan, &task, &ended, stopping),
        Err(illegal) => stuck(&task, illegal.to_string()),
    };
    Some(Item { task, ended, next })
}

fn next(plan: Plan, task: &Task, ended: &Ended, stopping: bool) -> Next {
    let reason = |why: Why| {
        let words = match why {
            Why::Refused => ended.message.clone().unwrap_or_else(|| "refused".to_owned()),
            Why::RetryLimit(limit) => format!("retry limit {limit} reached"),
        };
        format!("{}: {words}", step_name(task))
    };
    match plan {
        Plan::Advance(next) => Next { in_place: true, task: Some(next), ..Next::default() },
        Plan::Retry(next, wait) => {
            let interval = task.step().map_or(Duration::ZERO, |step| step.retry_interval);
            let delay = retry_delay(wait, interval, ended.retry_after);
            Next { task: Some(next), delay_us: Some(delay.as_micros() as i64), ..Next::default() }
        }
        Plan::Compensate(next, why) => Next {
            task: Some(next),
            // A worker that stops does not keep what it could not start.
            delay_us: stopping.then_some(0),
            unwinds: why.is_some(),
            saga_status: why.is_some().then_some("aborting"),
            saga_reason: why.map(reason),
            ..Next::default()
        },
        Plan::Succeed => Next { saga_status: Some("succeeded"), ..Next::default() },
        Plan::Fail(why) => Next {
            unwinds: why.is_some(),
            saga_status: Some("failed"),
            saga_reason: why.map(reason),
            ..Next::default()
        },
        Plan::Stick(why) => {
            Next { saga_status: Some("stuck"), saga_reason: Some(reason(why)), ..Next::default() }
        }
    }
}

fn stuck(task: &Task, why: String) -> Next {
    Next {
        saga_status: Some("stuck"),
        saga_reason: Some(format!("{}: {}", step_name(task), clean(&why))),
        ..Next::default()
    }
}

fn step_name(task: &Task) -> &str {
    task.step().map_or("?", |step| step.name.as_str())
}

/// Settles a group to the end, however long the database is away. Returns what must be tried again later: what somebody
/// else has locked, and what the database refuses for a reason that is not in the values.
async fn settle_group(worker: &Arc<Worker>, group: Vec<Item>) -> Vec<Finished> {
    let mut put_aside = Vec::new();
    let mut groups = vec![Group { items: group, failures: 0 }];
    let mut reconnect = Reconnect::new();
    while let Some(mut group) = groups.pop() {
        if group.items.is_empty() {
            continue;
        }
        group.items.sort_unstable_by_key(|item| item.task.saga_id);
        let moving = worker.gate.read().await;
        let started = Instant::now();
        let error = match settle(worker, &group.items).await {
            Ok(settled) => {
                worker.metrics.settle_seconds.record(started.elapsed().as_secs_f64());
                worker.metrics.settle_group_tasks.record(group.items.len() as f64);
                put_aside.extend(answer(worker, group.items, settled));
                continue;
            }
            Err(error) => error,
        };
        drop(moving);
        group.failures += 1;
        let class = worker.database_failed("settle", &error);
        let alone = group.items.len() == 1;
        match class {
            // Unknown result: the epochs make it safe to say the same again (RACES 1).
            Class::Connection => groups.push(group),
            Class::Conflict | Class::Other if !alone && group.failures < HALVE_AFTER_FAILURES => {
                groups.push(group)
            }
            // One row fails the whole group: halve until the culprit is alone (RACES 9). The halves inherit the failures:
            // they are not said again before they are halved, or everybody would wait at each of ten sizes.
            Class::Data | Class::Conflict | Class::Other if !alone => {
                let items = group.items.split_off(group.items.len() / 2);
                groups.push(Group { items, failures: group.failures });
                groups.push(group);
                continue;
            }
            Class::Data if group.items.iter_mut().any(|item| item.tame(&error)) => {
                groups.push(group);
                continue;
            }
            // It stays held, is tried again later, and holds up nobody.
            Class::Data | Class::Conflict | Class::Other => {
                put_aside
                    .extend(group.items.into_iter().map(|Item { task, ended, .. }| Finished { task, ended }));
                continue;
            }
        }
        tokio::select! {
            () = worker.done.cancelled() => return put_aside,
            () = tokio::time::sleep(reconnect.pause()) => {}
        }
    }
    put_aside
}

/// Tasks that are settled together, and how often that has failed.
struct Group {
    items: Vec<Item>,
    failures: u32,
}

impl Item {
    /// Makes a lone item whose values the database refuses more harmless: first without text that its encoding may not
    /// have, then as a stuck saga. False when there is nothing left to try.
    fn tame(&mut self, error: &sqlx::Error) -> bool {
        let texts = [&mut self.ended.message, &mut self.next.saga_reason];
        let mut changed = false;
        for text in texts.into_iter().flatten().filter(|text| !text.is_ascii()) {
            *text =
                text.chars().map(|character| if character.is_ascii() { character } else { '?' }).collect();
            changed = true;
        }
        if changed {
            return true;
        }
        if self.next.saga_status == Some("stuck") {
            return false;
        }
        self.next = stuck(&self.task, format!("its outcome cannot be settled: {error}"));
        self.ended.message = None;
        true
    }
}

/// What the database did: tasks settled, and tasks queued by saga.
struct Settled {
    tasks: HashSet<i64>,
    queued: HashMap<i64, i64>,
    /// Unsettled ones that this worker still holds at the same epoch.
    still_held: HashSet<i64>,
}

async fn settle(worker: &Worker, group: &[Item]) -> Result<Settled, sqlx::Error> {
    fn column<T>(group: &[Item], value: impl Fn(&Item) -> T) -> Vec<T> {
        group.iter().map(value).collect()
    }
    fn next<T>(group: &[Item], value: impl Fn(&Try) -> T) -> Vec<Option<T>> {
        group.iter().map(|item| item.next.task.as_ref().map(&value)).collect()
    }
    let id = worker.id();
    let statement = sqlx::query(query::SETTLE)
        .bind(id)
        .bind(column(group, |item| item.task.id))
        .bind(column(group, |item| item.task.epoch))
        .bind(column(group, |item| item.task.saga_id))
        .bind(column(group, |item| item.ended.outcome.as_str()))
        .bind(column(group, |item| item.ended.status_code.map(|code| code as i16)))
        .bind(column(group, |item| i32::try_from(item.ended.duration.as_micros()).unwrap_or(i32::MAX)))
        .bind(column(group, |item| item.ended.message.clone()))
        .bind(column(group, |item| item.next.in_place))
        .bind(next(group, |next| (next.step + 1) as i16))
        .bind(next(group, |next| next.op.as_str()))
        .bind(next(group, |next| next.attempt as i32))
        .bind(next(group, |next| next.counted as i32))
        .bind(next(group, |next| next.unknown_before))
        .bind(column(group, |item| {
            item.next.task.as_ref().and_then(|next| next.last).map(|last| last.as_str())
        }))
        .bind(column(group, |item| item.next.delay_us))
        .bind(column(group, |item| item.next.saga_status))
        .bind(column(group, |item| item.next.saga_reason.clone()))
        .bind(column(group, |item| {
            item.next.saga_status.is_some_and(|s| s == "stuck").then(|| step_name(&item.task).to_owned())
        }));
    let mut settled = Settled {
        tasks: HashSet::with_capacity(group.len()),
        queued: HashMap::new(),
        still_held: HashSet::new(),
    };
    for row in worker.db.run(Lane::Work, statement).await? {
        match row.try_get::<Option<i64>, _>("task_id")? {
            Some(task) => {
                settled.tasks.insert(task);
            }
            None => {
                settled.queued.insert(row.try_get("saga_id")?, row.try_get("queued_id")?);
            }
        }
    }
    let missing: Vec<i64> =
        group.iter().map(|i| i.task.id).filter(|id| !settled.tasks.contains(id)).collect();
    if !missing.is_empty() {
        let statement = sqlx::query(query::STILL_HELD).bind(id).bind(&missing);
        match worker.db.run(Lane::Work, statement).await {
            Ok(rows) => {
                for row in rows {
                    let (task, epoch): (i64, i32) = (row.try_get("id")?, row.try_get("epoch")?);
                    if group.iter().any(|item| item.task.id == task && item.task.epoch == epoch) {
                        settled.still_held.insert(task);
                    }
                }
            }
            // Not known: say it again with the next group. An outcome that is dropped here would be a try without a record.
            Err(error) => {
                worker.database_failed("look at unsettled tasks", &error);
                settled.still_held.extend(missing);
            }
        }
    }
    Ok(settled)
}

/// Tells each task what became of it: the next step of a settled one starts at once, under the same place.
fn answer(worker: &Arc<Worker>, group: Vec<Item>, settled: Settled) -> Vec<Finished> {
    let mut locked = Vec::new();
    for Item { mut task, ended, next } in group {
        if !settled.tasks.contains(&task.id) {
            if settled.still_held.contains(&task.id) {
                worker.metrics.settled[2].increment(1);
                locked.push(Finished { task, ended });
            } else {
                worker.metrics.settled[1].increment(1);
                tracing::info!(
                    gid = task.saga.gid,
                    step = step_name(&task),
                    op = task.now.op.as_str(),
                    attempt = task.now.attempt,
                    "a late answer changed nothing: the task is another's"
                );
                worker.held.forget(task.id);
                // If it was our own settle whose reply was lost, the row may be ours without our knowing it.
                worker.doubt.notify_one();
            }
            continue;
        }
        worker.metrics.settled[0].increment(1);
        if next.unwinds {
            worker.metrics.unwinds.increment(1);
        }
        log(&task, &ended, &next);
        if let Some(status) = next.saga_status {
            worker.metrics.finished(status);
        }
        let chained = match (next.task, next.in_place, next.delay_us) {
            (Some(_), true, _) => Some(task.id),
            (Some(_), false, None) => settled.queued.get(&task.saga_id).copied(),
            _ => None,
        };
        if chained != Some(task.id) {
            worker.held.forget(task.id);
        }
        let (Some(now), Some(id)) = (next.task, chained) else { continue };
        task.id = id;
        task.epoch += 1;
        task.now = now;
        task.lost = 0;
        worker.held.advance(id, task.epoch);
        execute::start(worker, task);
    }
    locked
}

/// One event a failed try and one an unusual end; a success is in the metrics and the history.
fn log(task: &Task, ended: &Ended, next: &Next) {
    let (gid, step, op, attempt) = (&task.saga.gid, step_name(task), task.now.op.as_str(), task.now.attempt);
    if let Some(message) = &ended.message {
        let outcome = ended.outcome.as_str();
        let retry_ms = next.delay_us.map(|us| us / 1000);
        tracing::debug!(gid, step, op, attempt, outcome, message, retry_ms, "a try did not succeed");
    }
    match next.saga_status {
        Some("stuck") => {
            tracing::error!(gid, step, op, attempt, reason = next.saga_reason, "a saga is stuck")
        }
        Some("aborting" | "failed") if next.unwinds => {
            tracing::debug!(gid, step, attempt, reason = next.saga_reason, "a saga turns back");
        }
        _ => {}
    }
}
