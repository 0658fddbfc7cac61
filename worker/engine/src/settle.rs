//! The settle loop: while one settle is in flight, outcomes collect; the next takes them all. No timer, no wait when idle.

mod parallel;
mod sequential;
mod still_held;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use tokio::sync::mpsc;

use crate::backoff::{Reconnect, retry_delay};
use crate::db::{Class, Lane};
use crate::execute::outcome::Ended;
use crate::liveness::identity::Identity;
use crate::task::{STUCK_AFTER_LOST_ALONE, Task};
use crate::telemetry::metrics::Loop;
use crate::worker::Worker;
use pgsaga_plan::Outcome;
use pgsaga_plan::{AbortCause, Fault, Wait};
use still_held::StillHeld;

/// The largest group. Beyond it the statement's own time grows as fast as the group.
const GROUP_MAX: usize = 1000;
/// A worker that holds all that it may, with calls enough to make, waits so long for a group of a quarter of it: the fixed part of
/// a settle would cost several workers on one database more than all else. Its tasks waited longer to be claimed.
const FILL_MAX: Duration = Duration::from_millis(50);
/// One that is busy rests between two settles as long as the first of them took, at most so long: half of its time is spent on
/// them, and a database that is slow, since others need it, too, is asked less often for more.
const REST_MAX: Duration = Duration::from_millis(20);
/// With fewer tasks under way a worker is not busy: what one of them waits for would be its alone.
const BUSY_TASKS: usize = 64;
/// How long a task waits whose saga somebody else has locked, or has changed.
const LOCKED_PAUSE: Duration = Duration::from_millis(25);
/// So often a group is said again as it is before it is halved.
const HALVE_AFTER_FAILURES: u32 = 3;

/// A task that came back.
#[derive(Debug)]
pub struct Finished {
    /// The task: boxed, since it is moved at every turn of its way.
    pub task: Box<Task>,
    /// How its call ended; `None` where it was not called: it met an interrupt or its deadline, or
    /// has a fault.
    pub ended: Option<Ended>,
}

impl Finished {
    fn outcome(&self) -> Option<Outcome> {
        self.ended.as_ref().map(|ended| ended.outcome)
    }

    /// The words of a reason, which starts with the step's name.
    fn reason(&self, why: AbortCause) -> String {
        let words = match why {
            AbortCause::Refused => self
                .ended
                .as_ref()
                .and_then(|ended| ended.message.clone())
                .unwrap_or_else(|| "refused".to_owned()),
            AbortCause::RetryLimit(limit) => format!("retry limit {limit} reached"),
            AbortCause::Timeout => {
                format!("timeout after {} seconds", seconds(self.task.saga.timeout.unwrap_or_default()))
            }
            AbortCause::Fault(Fault::Poison) => {
                format!("killed {STUCK_AFTER_LOST_ALONE} workers while it ran alone")
            }
            AbortCause::Fault(Fault::Unbuildable) => self.task.unbuildable.clone().unwrap_or_default(),
        };
        format!("{}: {words}", self.task.step_name())
    }

    /// How long the task waits for its next try, in microseconds.
    fn delay_us(&self, wait: Wait) -> i64 {
        let interval = self.task.step().map_or(Duration::ZERO, |step| step.retry_interval);
        let asked = self.ended.as_ref().and_then(|ended| ended.retry_after);
        retry_delay(wait, interval, asked).as_micros() as i64
    }

    /// The answer, where the history keeps it.
    fn kept_answer(&self) -> Option<&str> {
        let kept = self.task.step().is_some_and(|step| step.keeps_answer);
        self.ended.as_ref().filter(|_| kept)?.answer.as_deref()
    }
}

/// A duration as DTM prints it: `5`, `0.5`.
fn seconds(duration: Duration) -> String {
    let text = format!("{}.{:06}", duration.as_secs(), duration.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What is settled by one statement among others of its kind.
trait Unit: Sized {
    /// What the database did with a group.
    type Settled;

    /// Groups are in the order of their sagas.
    fn saga_id(&self) -> i64;

    /// How many tasks it holds.
    fn tasks(&self) -> usize;

    /// The worker id that holds them.
    fn worker(&self) -> i64;

    /// Writes a group, all of it held under this identity, in one statement that commits itself.
    async fn settle(
        worker: &Worker,
        identity: Identity,
        group: &[Self],
    ) -> Result<Self::Settled, sqlx::Error>;

    /// Tells each task what became of it. Returns what must be planned and settled again.
    fn answer(worker: &Arc<Worker>, group: Vec<Self>, settled: Self::Settled) -> Vec<Finished>;

    /// Makes a lone unit whose values the database refuses more harmless. False when there is nothing left to try.
    fn tame(&mut self, error: &sqlx::Error) -> bool;

    /// Takes it apart again.
    fn finished(self) -> Vec<Finished>;
}

/// Settles until everything is done.
pub async fn run(worker: Arc<Worker>, mut finished: mpsc::UnboundedReceiver<Finished>) {
    let mut arrived = Vec::new();
    let mut put_aside: Vec<Finished> = Vec::new();
    // A moment, not a pause between arrivals: under load something always arrives.
    let mut again_at = Instant::now();
    let mut settled = Settled { at: Instant::now(), took: Duration::ZERO };
    loop {
        worker.metrics.tick(Loop::Settle);
        tokio::select! {
            biased;
            () = worker.done.cancelled() => return,
            () = tokio::time::sleep_until(again_at.into()), if !put_aside.is_empty() => arrived.append(&mut put_aside),
            count = finished.recv_many(&mut arrived, GROUP_MAX) => if count == 0 { return },
        }
        fill(&worker, &mut finished, &mut arrived, &settled).await;
        let began = Instant::now();
        // A late answer under an old identity changes nothing: its rescue has recorded it as unknown.
        let id = worker.id();
        let before = arrived.len();
        arrived.retain(|finished| finished.task.worker == id);
        worker.metrics.settled[1].increment((before - arrived.len()) as u64);
        let (sequential, parallel): (Vec<_>, Vec<_>) =
            arrived.drain(..).partition(|finished| finished.task.saga.shape.is_sequential());
        let mut again = Vec::new();
        if !sequential.is_empty() {
            let units =
                sequential.into_iter().map(|finished| sequential::Item::plan(&worker, finished)).collect();
            again.extend(settle_group(&worker, units).await);
        }
        if !parallel.is_empty() {
            let (units, unread) = parallel::plan(&worker, parallel).await;
            again.extend(unread);
            again.extend(settle_group(&worker, units).await);
        }
        if put_aside.is_empty() {
            again_at = Instant::now() + LOCKED_PAUSE;
        }
        put_aside.extend(again);
        worker.metrics.held.set(worker.held.len() as f64);
        settled = Settled { at: Instant::now(), took: began.elapsed() };
    }
}

/// The last settle.
struct Settled {
    at: Instant,
    took: Duration,
}

/// Lets a group grow while the worker is full or busy.
async fn fill(
    worker: &Worker,
    finished: &mut mpsc::UnboundedReceiver<Finished>,
    arrived: &mut Vec<Finished>,
    last: &Settled,
) {
    let enough = (worker.limits.held_max / 4).min(GROUP_MAX);
    while arrived.len() < enough && !worker.stop.is_cancelled() {
        let rest = if worker.is_full() {
            FILL_MAX
        } else if worker.held.len() >= arrived.len() + BUSY_TASKS {
            last.took.min(REST_MAX)
        } else {
            return;
        };
        let room = enough - arrived.len();
        tokio::select! {
            biased;
            () = worker.stop.cancelled() => return,
            () = tokio::time::sleep_until((last.at + rest).into()) => return,
            count = finished.recv_many(arrived, room) => if count == 0 { return },
        }
    }
}

/// Units that are settled together, and how often that has failed.
struct Group<U> {
    units: Vec<U>,
    failures: u32,
}

/// Settles a group to the end, however long the database is away. Returns what must be tried again later: what somebody
/// else has locked or changed, and what the database refuses for a reason that is not in the values.
async fn settle_group<U: Unit>(worker: &Arc<Worker>, units: Vec<U>) -> Vec<Finished> {
    let mut put_aside = Vec::new();
    let mut groups = vec![Group { units, failures: 0 }];
    let mut reconnect = Reconnect::new();
    while let Some(mut group) = groups.pop() {
        if group.units.is_empty() {
            continue;
        }
        group.units.sort_unstable_by_key(U::saga_id);
        let moving = worker.gate.read().await;
        // While the database was away, this worker may have become another.
        let identity = worker.identity();
        group.units.retain(|unit| {
            let late = unit.worker() != identity.id;
            worker.metrics.settled[1].increment(if late { unit.tasks() as u64 } else { 0 });
            !late
        });
        if group.units.is_empty() {
            continue;
        }
        let started = Instant::now();
        let error = match U::settle(worker, identity, &group.units).await {
            Ok(settled) => {
                worker.metrics.settle_seconds.record(started.elapsed().as_secs_f64());
                let tasks: usize = group.units.iter().map(U::tasks).sum();
                worker.metrics.settle_group_tasks.record(tasks as f64);
                put_aside.extend(U::answer(worker, group.units, settled));
                continue;
            }
            Err(error) => error,
        };
        drop(moving);
        group.failures += 1;
        let class = worker.database_failed("settle", &error);
        let alone = group.units.len() == 1;
        match class {
            // Unknown result: the epochs make it safe to say the same again (RACES 1).
            Class::Connection => groups.push(group),
            Class::Conflict | Class::Other if !alone && group.failures < HALVE_AFTER_FAILURES => {
                groups.push(group)
            }
            // One row fails the whole group: halve until the culprit is alone (RACES 9). The halves inherit the failures:
            // they are not said again before they are halved, or everybody would wait at each of ten sizes.
            Class::Data | Class::Conflict | Class::Other if !alone => {
                let units = group.units.split_off(group.units.len() / 2);
                groups.push(Group { units, failures: group.failures });
                groups.push(group);
                continue;
            }
            Class::Data if group.units.iter_mut().any(|unit| unit.tame(&error)) => {
                groups.push(group);
                continue;
            }
            // It stays held, is tried again later, and holds up nobody.
            Class::Data | Class::Conflict | Class::Other => {
                put_aside.extend(group.units.into_iter().flat_map(U::finished));
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

/// What this worker may not call is due at once for the others. Where telling them fails, they find
/// it with their next poll.
fn wake_others(worker: &Arc<Worker>) {
    let worker = Arc::clone(worker);
    tokio::spawn(async move {
        if let Err(error) = worker.db.run(Lane::Control, sqlx::query(query::WAKE)).await {
            worker.database_failed("wake others", &error);
        }
    });
}

/// Takes what a database's encoding may not have out of a text. False when nothing had to go.
fn make_ascii(text: &mut Option<String>) -> bool {
    match text {
        Some(text) if !text.is_ascii() => {
            *text =
                text.chars().map(|character| if character.is_ascii() { character } else { '?' }).collect();
            true
        }
        _ => false,
    }
}

/// An object of JSON texts by id; `None` where there is none.
fn by_id<'a>(values: impl Iterator<Item = (i64, &'a str)>) -> Option<String> {
    let mut object = String::new();
    for (id, value) in values {
        object.push_str(if object.is_empty() { "{\"" } else { ", \"" });
        object.push_str(&id.to_string());
        object.push_str("\": ");
        object.push_str(value);
    }
    (!object.is_empty()).then(|| object + "}")
}

/// A saga's status changed: some are its end.
fn count(worker: &Worker, task: &Task, status: &str) {
    worker.metrics.finished(&task.counted, status, task.age + task.claimed.elapsed());
}

/// One event a failed try and one an unusual end; a success is in the metrics and the history.
fn log(finished: &Finished, status: Option<&str>, reason: Option<&str>, turned: bool, delay_us: Option<i64>) {
    let task = &finished.task;
    let (gid, step, op, attempt) = (&task.saga.gid, task.step_name(), task.now.op.as_str(), task.now.attempt);
    if let Some(Ended { outcome, message: Some(message), .. }) = &finished.ended {
        let (outcome, retry_ms) = (outcome.as_str(), delay_us.map(|us| us / 1000));
        // Not `message`: that names the event, and a participant's words could name another.
        tracing::debug!(gid, step, op, attempt, outcome, said = message, retry_ms, "a try did not succeed");
    }
    if status == Some("stuck") {
        tracing::error!(gid, step, op, attempt, reason, "a saga is stuck");
    } else if turned {
        tracing::debug!(gid, step, attempt, reason, "a saga turns back");
    }
}
