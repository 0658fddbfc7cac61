//! The settle loop. While one settle is in flight, outcomes collect; the next settle takes them
//! all. There is no timer, and no wait while the worker is idle.

mod batch;
mod leftover;
mod parallel;
mod sequential;
mod session;
mod transaction;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_plan::StatusChange;
use tokio::sync::mpsc;
use tracing::Instrument as _;

use crate::db::{Class, Db, Reconnect};
use crate::execute::Executor;
use crate::execute::call::CallResult;
use crate::execute::finished::Finished;
use crate::execute::task::Task;
use crate::flow::capacity::Capacity;
use crate::flow::participants::Participants;
use crate::liveness::identity::Identity;
use crate::liveness::membership::Membership;
use crate::liveness::shutdown::Shutdown;
use crate::telemetry::log_limit::{Line, LogLimit};
use crate::telemetry::metrics::Metrics;
use crate::wake::others::Others;
use crate::wake::wakeups::Wakeups;
use batch::{Batch, Order};
use session::Session;

/// Upper bound on the tasks of a group. The time of a larger statement grows as fast as the group.
const GROUP_MAX: usize = 1000;
/// Maximum time a full worker delays a settle so that the group can grow to a quarter of its
/// capacity. Without the delay, several workers on one database would settle in small groups, and
/// the fixed cost per settle would dominate.
const FULL_DELAY_MAX: Duration = Duration::from_millis(50);
/// Maximum time a busy worker rests between two settles. It rests as long as the last settle took,
/// so that a slow database, which others need as well, is asked less often for more.
const REST_MAX: Duration = Duration::from_millis(20);
/// A worker with fewer tasks in flight is not busy, and settles at once.
const BUSY_TASKS: usize = 64;
/// The wait of a task whose saga somebody else has locked, or has changed.
const LOCKED_PAUSE: Duration = Duration::from_millis(25);
/// A group that failed this often is halved.
const HALVE_AFTER_FAILURES: u32 = 3;

/// The event of a failed attempt.
const FAILED: &str = "an attempt did not succeed";
/// The event of a saga that begins to unwind.
const UNWINDS: &str = "a saga unwinds";

#[derive(Clone)]
pub(crate) struct Settler {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) participants: Arc<Participants>,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) shutdown: Shutdown,
    pub(crate) executor: Arc<Executor>,
    pub(crate) log_limits: Arc<LogLimits>,
}

/// Time and duration of the last settle.
struct LastSettle {
    at: Instant,
    took: Duration,
}

/// Batches that are settled together, and how often that has failed.
struct Group {
    batches: Vec<Batch>,
    failures: u32,
}

/// The database's reply for a group.
enum Settled {
    Sequential(sequential::Settled),
    Parallel(parallel::Settled),
}

impl Settled {
    /// Whether the database has settled the events of this saga.
    fn has(&self, batch: &Batch) -> bool {
        match self {
            Settled::Sequential(settled) => settled.has(batch),
            Settled::Parallel(settled) => settled.has(batch),
        }
    }
}

impl Settler {
    /// Settles outcomes until the worker has drained. Those in `transactional` have a transaction,
    /// which holds locks: they wait for no group.
    pub(crate) async fn run(
        self,
        finished: mpsc::UnboundedReceiver<Finished>,
        transactional: mpsc::UnboundedReceiver<Finished>,
    ) {
        tokio::join!(self.settle_groups(finished), self.settle_transactions(transactional));
    }

    async fn settle_transactions(&self, mut transactional: mpsc::UnboundedReceiver<Finished>) {
        loop {
            let finished = tokio::select! {
                () = self.shutdown.done.cancelled() => return,
                finished = transactional.recv() => finished,
            };
            let Some(mut finished) = finished else { return };
            if let Some(transaction) = finished.take_transaction() {
                let settle = self.clone().settle_in_transaction(finished, transaction);
                tokio::spawn(settle.in_current_span());
            }
        }
    }

    async fn settle_groups(&self, mut finished: mpsc::UnboundedReceiver<Finished>) {
        let mut arrived = Vec::new();
        let mut put_aside: Vec<Finished> = Vec::new();
        // A point in time, not a pause between arrivals: under load something always arrives.
        let mut again_at = Instant::now();
        let mut last = LastSettle { at: Instant::now(), took: Duration::ZERO };
        loop {
            self.metrics.ticks.settle.increment(1);
            tokio::select! {
                biased;
                () = self.shutdown.done.cancelled() => return,
                () = tokio::time::sleep_until(again_at.into()), if !put_aside.is_empty() => {
                    arrived.append(&mut put_aside);
                }
                count = finished.recv_many(&mut arrived, GROUP_MAX) => if count == 0 { return },
            }
            self.grow(&mut finished, &mut arrived, &last).await;
            let began = Instant::now();
            let again = self.settle(&mut arrived).await;
            if put_aside.is_empty() {
                again_at = Instant::now() + LOCKED_PAUSE;
            }
            put_aside.extend(again);
            self.metrics.held.set(self.membership.in_flight.len() as f64);
            last = LastSettle { at: Instant::now(), took: began.elapsed() };
        }
    }

    /// Waits for a larger group while the worker is full or busy.
    async fn grow(
        &self,
        finished: &mut mpsc::UnboundedReceiver<Finished>,
        arrived: &mut Vec<Finished>,
        last: &LastSettle,
    ) {
        let stop = &self.shutdown.stop;
        let enough = (self.capacity.tasks_max / 4).min(GROUP_MAX);
        while arrived.len() < enough && !stop.is_cancelled() {
            let rest = if self.capacity.is_full() {
                FULL_DELAY_MAX
            } else if self.membership.in_flight.len() >= arrived.len() + BUSY_TASKS {
                last.took.min(REST_MAX)
            } else {
                return;
            };
            let room = enough - arrived.len();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until((last.at + rest).into()) => return,
                count = finished.recv_many(arrived, room) => if count == 0 { return },
            }
        }
    }

    /// Plans and settles what arrived. Returns the tasks to try again later.
    async fn settle(&self, arrived: &mut Vec<Finished>) -> Vec<Finished> {
        // A late outcome under an old identity changes nothing: the rescue has recorded the attempt
        // as unknown.
        let id = self.membership.id();
        let before = arrived.len();
        arrived.retain(|finished| finished.task.worker == id);
        self.metrics.settled.gone.increment((before - arrived.len()) as u64);
        let (sequential, parallel): (Vec<_>, Vec<_>) =
            arrived.drain(..).partition(|finished| !finished.task.saga.graph.keeps_progress());
        let mut again = Vec::new();
        if !sequential.is_empty() {
            let batches = sequential.into_iter().map(|finished| sequential::plan(self, finished)).collect();
            again.extend(self.settle_group(batches).await);
        }
        if !parallel.is_empty() {
            let (batches, unread) = parallel::plan(self, parallel).await;
            again.extend(unread);
            again.extend(self.settle_group(batches).await);
        }
        again
    }

    /// Settles a group of one order to the end, however long the database is away. Returns the
    /// tasks to try again later: somebody has their saga locked or changed it, or the database
    /// refuses them for a reason that is not in the values.
    async fn settle_group(&self, batches: Vec<Batch>) -> Vec<Finished> {
        let mut put_aside = Vec::new();
        let mut groups = vec![Group { batches, failures: 0 }];
        let mut reconnect = Reconnect::new();
        while let Some(mut group) = groups.pop() {
            let error = match self.settle_once(&mut group).await {
                Ok(again) => {
                    put_aside.extend(again);
                    continue;
                }
                Err(error) => error,
            };
            group.failures += 1;
            let is_lone = group.batches.len() == 1;
            match self.db.failed("settle", &error) {
                // The result is unknown. The epochs make it safe to send the same again
                // (docs/races.md, R1).
                Class::Connection => groups.push(group),
                Class::Conflict | Class::Other if !is_lone && group.failures < HALVE_AFTER_FAILURES => {
                    groups.push(group);
                }
                // One row fails the whole group, so the group is halved until the culprit is alone
                // (docs/races.md, R9). The halves inherit the failures: otherwise everybody would
                // wait for three failures at each of ten sizes.
                // control: settle-halves
                Class::Data | Class::Conflict | Class::Other if !is_lone => {
                    let half = group.batches.split_off(group.batches.len() / 2);
                    groups.push(Group { batches: half, failures: group.failures });
                    groups.push(group);
                    continue;
                }
                Class::Data if group.batches.iter_mut().any(|batch| batch.degrade(&error)) => {
                    groups.push(group);
                    continue;
                }
                // The task stays held and is tried again later. It holds up no other task.
                Class::Data | Class::Conflict | Class::Other => {
                    put_aside.extend(group.batches.into_iter().flat_map(|batch| batch.finished));
                    continue;
                }
            }
            tokio::select! {
                () = self.shutdown.done.cancelled() => return put_aside,
                () = tokio::time::sleep(reconnect.pause()) => {}
            }
        }
        put_aside
    }

    /// Sends a group once, and applies the result to the memory of this worker. Memory and database
    /// move together, so the gate is held until then. Returns the tasks to try again later.
    async fn settle_once(&self, group: &mut Group) -> Result<Vec<Finished>, sqlx::Error> {
        group.batches.sort_unstable_by_key(|batch| batch.saga_id);
        let _moving = self.membership.gate.read().await;
        // While the database was away, this worker may have registered anew.
        let identity = self.membership.identity();
        group.batches.retain(|batch| {
            let is_late = batch.worker() != identity.id;
            self.metrics.settled.gone.increment(if is_late { batch.finished.len() as u64 } else { 0 });
            !is_late
        });
        if group.batches.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let settled = self.send(identity, &group.batches, &mut Session::Own(&self.db)).await?;
        self.metrics.settle_seconds.record(started.elapsed().as_secs_f64());
        let tasks: usize = group.batches.iter().map(|batch| batch.finished.len()).sum();
        self.metrics.settle_group_tasks.record(tasks as f64);
        Ok(self.apply(std::mem::take(&mut group.batches), settled))
    }

    /// Applies the database's reply to the memory of this worker. Returns the tasks to try again.
    fn apply(&self, batches: Vec<Batch>, settled: Settled) -> Vec<Finished> {
        match settled {
            Settled::Sequential(settled) => sequential::apply(self, batches, settled),
            Settled::Parallel(settled) => parallel::apply(self, batches, settled),
        }
    }

    /// Sends a group, whose batches have one order.
    async fn send(
        &self,
        identity: Identity,
        group: &[Batch],
        session: &mut Session<'_>,
    ) -> Result<Settled, sqlx::Error> {
        match group.first().map(|batch| batch.order) {
            Some(Order::Parallel { .. }) => {
                parallel::settle(self, identity, group, session).await.map(Settled::Parallel)
            }
            _ => sequential::settle(self, identity, group, session).await.map(Settled::Sequential),
        }
    }

    /// Counts the settled tasks of a saga, and the change of its status.
    fn count(&self, batch: &Batch, task: &Task, tasks: usize) {
        self.metrics.settled.applied.increment(tasks as u64);
        self.metrics.unwinds.increment(u64::from(batch.change.unwinds));
        if let Some(status) = batch.change.status {
            self.metrics.status_changed(&task.counted, status, task.age + task.claimed.elapsed());
        }
    }

    /// Notifies other workers of tasks that are due at once and that this worker may not call.
    fn wake(&self, others: Others) {
        if !others.is_empty() {
            let db = self.db.clone();
            tokio::spawn(async move { others.wake(&db).await });
        }
    }
}

/// Bounds on what the settles of one worker log.
#[derive(Debug, Default)]
pub(crate) struct LogLimits {
    attempts: LogLimit,
    unwinds: LogLimit,
}

impl LogLimits {
    /// Logs a failed attempt and an unusual end. A success is in the metrics and in the history.
    /// The first failed attempt of an op, and each saga that unwinds, are of level INFO within the
    /// limits.
    fn log(
        &self,
        finished: &Finished,
        status: Option<StatusChange>,
        reason: Option<&str>,
        unwinds: bool,
        delay_us: Option<i64>,
    ) {
        let task = &finished.task;
        let (gid, step, op) = (&task.saga.gid, task.step_name(), task.now.op.as_str());
        let attempt = task.now.attempt;
        if let Some(CallResult { outcome, message: Some(said), .. }) = &finished.result {
            let retry_ms = delay_us.map(|us| us / 1000);
            // No attempt before this one has failed. To be asked to wait is no failure.
            let is_first = task.now.counted == 0 && outcome.facts().is_counted;
            let outcome = outcome.as_str();
            // `said`, not `message`: that field names the event, and a participant's words could
            // name another.
            if let Some(Line { left_out }) = is_first.then(|| self.attempts.next()).flatten() {
                tracing::info!(gid, step, op, attempt, outcome, said, retry_ms, left_out, "{FAILED}");
            } else {
                tracing::debug!(gid, step, op, attempt, outcome, said, retry_ms, "{FAILED}");
            }
        }
        if status == Some(StatusChange::Stuck) {
            tracing::error!(gid, step, op, attempt, reason, "a saga is stuck");
        } else if unwinds {
            match self.unwinds.next() {
                Some(Line { left_out }) => {
                    tracing::info!(gid, step, attempt, reason, left_out, "{UNWINDS}");
                }
                None => tracing::debug!(gid, step, attempt, reason, "{UNWINDS}"),
            }
        }
    }
}
