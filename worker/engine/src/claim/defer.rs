//! Defers tasks whose participant cannot take a call now. Without this, the due tasks of a dead or
//! hanging participant would slow down sagas that do not call it. Also releases tasks that must not
//! start under a newer schema. A deferral is no attempt: it is neither counted nor recorded.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Postgres, Row as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::db::{Db, PoolKind};
use crate::execute::task::Task;
use crate::flow::participants::{Blocked, DEFER_MAX, DEFER_MIN, Participants};
use crate::liveness::membership::Membership;
use crate::liveness::release::{Release, release};
use crate::telemetry::metrics::Metrics;
use crate::wake::others::Others;
use crate::wake::share::Share;
use crate::wake::wakeups::Wakeups;
use crate::wake::watermark::Watermarks;

/// Interval at which the due tasks of blocked participants are deferred.
const EVERY: Duration = Duration::from_secs(1);
/// Upper bound on the tasks deferred per lane and statement.
const BATCH: i64 = 10_000;
/// Upper bound on deferred tasks that become due per second and participant. Deferring a task again
/// costs about as much as claiming it.
const BACK_PER_SECOND: i64 = 5_000;
/// Upper bound on the share of time for walks over lanes: one part in 20.
const PART: u32 = 20;
/// Upper bound on the tasks released by one statement.
const GROUP_MAX: usize = 1000;

/// When to walk over lanes again.
struct Walk {
    due: Instant,
    share: Share,
}

impl Walk {
    fn new() -> Self {
        Walk { due: Instant::now(), share: Share::one_in(PART) }
    }

    fn ended(&mut self, began: Instant) {
        self.due = Instant::now() + self.share.pause_after(began.elapsed());
    }
}

pub(crate) struct Defer {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) participants: Arc<Participants>,
    pub(crate) watermarks: Arc<Watermarks>,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) done: CancellationToken,
}

impl Defer {
    /// Defers tasks until the worker has drained: held tasks that cannot be called now, and due
    /// tasks of participants that receive no call.
    pub(crate) async fn run(self, mut held: mpsc::UnboundedReceiver<Task>) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut deferred = HashMap::new();
        let (mut moves, mut looks) = (Walk::new(), Walk::new());
        let mut tasks = Vec::new();
        loop {
            self.metrics.ticks.defer.increment(1);
            tokio::select! {
                () = self.done.cancelled() => return,
                count = held.recv_many(&mut tasks, GROUP_MAX) => {
                    if count == 0 {
                        return;
                    }
                    self.release_held(&mut tasks).await;
                }
                _ = tick.tick() => if self.membership.fits() {
                    let blocked = self.participants.blocked();
                    self.move_unserved(&blocked.unserved, &mut moves).await;
                    self.defer(blocked, &mut deferred).await;
                    self.roll_back_unserved(&mut looks).await;
                },
            }
        }
    }

    async fn release_held(&self, tasks: &mut Vec<Task>) {
        let id = self.membership.id();
        self.open_lanes(tasks.iter().map(|task| task.permit.participant())).await;
        let returned: Vec<Release> = tasks
            .iter()
            // Tasks of a previous identity belong to another worker.
            .filter(|task| task.worker == id)
            .map(|task| {
                let delay = task.defer_for(&self.participants).unwrap_or(DEFER_MIN);
                let participant = Some(task.permit.participant().to_owned());
                Release { task: task.id, epoch: task.epoch, delay, participant }
            })
            .collect();
        let defer_for = returned.iter().filter(|returned| !returned.delay.is_zero()).count();
        let back = release(&self.db, &self.membership, &self.wakeups, id, &returned).await;
        self.metrics.deferred.increment(back.min(defer_for) as u64);
        tasks.clear();
    }

    /// Makes lanes for those of these participants that this worker does not serve. Where that
    /// fails, their tasks stay where they are.
    async fn open_lanes(&self, participants: impl Iterator<Item = &str>) {
        let unserved: BTreeSet<&str> = participants.filter(|name| !self.participants.serves(name)).collect();
        if unserved.is_empty() {
            return;
        }
        let unserved = Vec::from_iter(unserved);
        let statement = sqlx::query(query::OPEN_LANES).bind(unserved);
        if let Err(error) = self.db.run(PoolKind::Control, statement).await {
            self.db.failed("open lanes", &error);
        }
    }

    /// Moves due tasks of participants that this worker does not serve to workers that do. A walk
    /// over many due tasks takes a small share of the time.
    async fn move_unserved(&self, unserved: &[String], moves: &mut Walk) {
        let began = Instant::now();
        if unserved.is_empty() || began < moves.due {
            return;
        }
        let unserved: Vec<&str> = unserved.iter().map(String::as_str).collect();
        let mut moved = 0;
        loop {
            let (lanes, watermarks) = self.watermarks.all();
            let statement = query::Move {
                participants: &unserved,
                lanes: &lanes,
                watermarks: &watermarks,
                lane_tasks_max: BATCH,
            };
            let Some(count) = self.count("move tasks", "moved", statement.query()).await else { return };
            moved += count;
            if count < BATCH || self.done.is_cancelled() {
                break;
            }
        }
        moves.ended(began);
        if moved > 0 {
            tracing::debug!(participants = ?unserved, tasks = moved, "tasks are left to other workers");
            let mut others = Others::default();
            unserved.iter().for_each(|name| others.add(name));
            others.wake(&self.db).await;
        }
    }

    /// Takes overdue tasks from lanes that nobody serves, for all workers.
    async fn roll_back_unserved(&self, looks: &mut Walk) {
        let began = Instant::now();
        if self.membership.is_duty_worker() && began >= looks.due {
            let statement = sqlx::query(query::OVERDUE).bind(BATCH);
            if self.count("look for overdue tasks", "moved", statement).await.is_some_and(|moved| moved > 0) {
                self.wakeups.due.notify_one();
            }
            looks.ended(began);
        }
    }

    /// The number that a statement returns. `None` if it failed.
    async fn count(
        &self,
        doing: &'static str,
        column: &str,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Option<i64> {
        match self.db.run(PoolKind::Control, statement).await {
            Ok(rows) => rows.first().and_then(|row| row.try_get(column).ok()),
            Err(error) => {
                self.db.failed(doing, &error);
                None
            }
        }
    }

    /// Defers due tasks for as long as the participant's breaker has been open. The delay is longer
    /// if tasks would otherwise become due faster than [`BACK_PER_SECOND`].
    async fn defer(&self, blocked: Blocked, deferred: &mut HashMap<String, i64>) {
        let whoever = blocked.deferred.into_iter().map(|(name, open)| (name, open, false));
        let if_nobody_may = blocked.deferred_if_nobody_may.into_iter().map(|(name, open)| (name, open, true));
        let blocked: Vec<_> = whoever.chain(if_nobody_may).collect();
        deferred.retain(|name, _| blocked.iter().any(|(blocked, ..)| blocked == name));
        for (name, open, if_nobody_may) in blocked {
            let before = deferred.get(&name).copied().unwrap_or(0);
            let delay =
                open.max(Duration::from_secs((before / BACK_PER_SECOND) as u64)).clamp(DEFER_MIN, DEFER_MAX);
            let mut count = 0;
            loop {
                let (lanes, watermarks) = self.watermarks.all();
                let most = BATCH * lanes.len() as i64;
                let defer = query::Defer {
                    participants: &[&name],
                    delay_us: delay.as_micros() as i64,
                    lanes: &lanes,
                    watermarks: &watermarks,
                    lane_tasks_max: BATCH,
                    only_if_nobody_may_call: if_nobody_may,
                };
                let Some(done) = self.count("defer", "deferred", defer.query()).await else { return };
                count += done;
                if done < BATCH || done > most || self.done.is_cancelled() {
                    break;
                }
            }
            self.metrics.deferred.increment(count as u64);
            if count > 0 {
                tracing::debug!(
                    participant = name,
                    tasks = count,
                    delay_ms = delay.as_millis() as u64,
                    "tasks are deferred"
                );
            }
            // A round sees only the deferred tasks that became due again. The largest round
            // estimates their total.
            let all = deferred.entry(name).or_insert(0);
            *all = (*all).max(count);
        }
    }
}
