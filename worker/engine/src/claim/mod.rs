//! The claim loop: takes as many due tasks as there are free permits, and starts them.

pub(crate) mod defer;
mod row;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::{fail, query};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tokio::sync::OwnedSemaphorePermit;

use crate::db::Reconnect;
use crate::db::{Db, PoolKind};
use crate::execute::Executor;
use crate::execute::task::definitions::Definitions;
use crate::flow::capacity::Capacity;
use crate::flow::participants::Participants;
use crate::flow::queues::Queues;
use crate::liveness::identity::Identity;
use crate::liveness::membership::Membership;
use crate::liveness::release::{Release, release};
use crate::liveness::shutdown::Shutdown;
use crate::liveness::unreadable::{Unreadable, UnreadableRows};
use crate::telemetry::metrics::{DEFAULT_QUEUE, Metrics, QueueMetrics};
use crate::wake::wakeups::Wakeups;
use crate::wake::watermark::{Seen, Watermarks};
use pgsaga_plan::may_call;
use row::{Columns, Row, read_details};

/// Lower bound on the pause after a claim that found tasks but did not fill its room. The pause is
/// twice the duration of the claim, so that a slow database receives fewer claims.
const POLL_BUSY: Duration = Duration::from_millis(5);
const POLL_BUSY_MAX: Duration = Duration::from_millis(20);
/// Number of pauses for which a nearly full worker waits for more free permits.
const FULL_WAITS: u32 = 5;
/// First pause after an empty claim. Further empty claims double the pause.
const POLL_FIRST: Duration = Duration::from_millis(2);
/// Upper bound on the pause between claims.
const POLL_MAX: Duration = Duration::from_secs(1);
/// Upper bound on the pause while another worker polls every second.
const POLL_REST: Duration = Duration::from_secs(3);
/// Number of consecutive empty claims after which a worker is idle.
const IDLE_AFTER: u32 = 3;
/// Interval at which a claim starts before the watermark.
const LOOK_BACK_EVERY: Duration = Duration::from_secs(5);
/// Delay of a task whose definition could not be read because the database did not answer.
const UNREAD_DELAY: Duration = Duration::from_millis(100);
/// Delay of a task over its participant's limit. An open breaker makes the delay longer.
const FULL_DELAY: Duration = Duration::from_millis(100);
/// Interval, in claims, at which the lowest priority class comes first, so that no class starves.
const LOWEST_FIRST_EVERY: u32 = 8;

struct Claimed {
    found: usize,
    asked: usize,
    took: Duration,
    /// Estimated time until the next claim finds a task.
    next_due: Option<Duration>,
}

/// The loop that claims.
pub(crate) struct Claimer {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) participants: Arc<Participants>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) definitions: Definitions,
    pub(crate) watermarks: Arc<Watermarks>,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) shutdown: Shutdown,
    pub(crate) executor: Arc<Executor>,
    pub(crate) unreadable: UnreadableRows,
}

impl Claimer {
    /// Claims tasks until the worker stops.
    pub(crate) async fn run(self) {
        let mut nth = 0u32;
        let (mut claimed_at, mut looked_back_at) = (Instant::now(), Instant::now());
        let mut longest_gap = Duration::ZERO;
        let mut empty_in_a_row = 0u32;
        // Whether a notification said that a task may be due.
        let mut told = true;
        let mut reconnect = Reconnect::new();
        while let Some(places) = self.free_slots().await {
            self.metrics.ticks.claim.increment(1);
            // A clock that steps back by less than the gap between two claims goes unnoticed (see
            // `wake/watermark.rs`). This look back covers such a step.
            longest_gap = longest_gap.max(claimed_at.elapsed());
            claimed_at = Instant::now();
            if looked_back_at.elapsed() > LOOK_BACK_EVERY {
                self.watermarks.look_back(looked_back_at.elapsed() + longest_gap);
                (looked_back_at, longest_gap) = (Instant::now(), Duration::ZERO);
            }
            let fits = self.membership.schema.fits();
            if !fits {
                // Producers need not notify a worker that claims nothing.
                self.wakeups.idle.send_if_modified(|idle| std::mem::replace(idle, false));
            }
            let pause = if !fits || !self.membership.lease.holds() {
                // The worker has no current view of the queue.
                self.metrics.oldest_due_seconds.set(0.0);
                POLL_MAX / 4 // a heartbeat or a new registration ends this
            } else {
                let looked = if told || empty_in_a_row == 0 {
                    Ok(None)
                } else {
                    self.peek(places.num_permits()).await
                };
                let claimed = match looked {
                    Ok(None) => {
                        nth = nth.wrapping_add(1);
                        self.claim(places, nth).await
                    }
                    Ok(Some(nothing)) => Ok(nothing),
                    Err(error) => Err(error),
                };
                match claimed {
                    Ok(claimed) => {
                        reconnect.reset();
                        if claimed.found > 0 {
                            empty_in_a_row = 0;
                        } else {
                            empty_in_a_row = empty_in_a_row.saturating_add(1);
                        }
                        let idle = empty_in_a_row >= IDLE_AFTER;
                        self.wakeups.idle.send_if_modified(|was| std::mem::replace(was, idle) != idle);
                        if claimed.found == claimed.asked {
                            Duration::ZERO
                        } else {
                            let longest = if self.wakeups.has_polling_peer() { POLL_REST } else { POLL_MAX };
                            pause(empty_in_a_row, &claimed, longest)
                        }
                    }
                    Err(error) => {
                        self.metrics.claims.error.increment(1);
                        self.db.failed("claim", &error);
                        // The claim may have committed although its reply was lost. Memory does not
                        // know its tasks.
                        self.wakeups.reconcile.notify_one();
                        self.watermarks.reset();
                        reconnect.pause()
                    }
                }
            };
            if pause.is_zero() {
                continue;
            }
            told = tokio::select! {
                () = self.shutdown.stop.cancelled() => break,
                () = self.wakeups.due.notified() => {
                    self.metrics.wakeups.notify.increment(1);
                    true
                }
                () = self.participants.room.notified() => true,
                () = self.wakeups.peek.notified() => {
                    self.metrics.wakeups.notify.increment(1);
                    false
                }
                () = tokio::time::sleep(pause) => {
                    self.metrics.wakeups.poll.increment(1);
                    false
                }
            };
        }
        self.wakeups.idle.send_replace(false);
    }

    /// Waits until a permit is free, then takes all free permits. `None` if the worker stops.
    async fn free_slots(&self) -> Option<OwnedSemaphorePermit> {
        let first = tokio::select! {
            biased;
            () = self.shutdown.stop.cancelled() => return None,
            first = Arc::clone(&self.capacity.task_slots).acquire_owned() => first.ok()?,
        };
        // The settle in progress frees many permits at once. Claims of one task each would cost a
        // commit each.
        for _ in 0..FULL_WAITS {
            if !self.capacity.is_full() {
                break;
            }
            tokio::select! {
                () = self.shutdown.stop.cancelled() => return None,
                () = tokio::time::sleep(POLL_BUSY) => {}
            }
        }
        while self.capacity.free_memory() == 0 {
            tokio::select! {
                () = self.shutdown.stop.cancelled() => return None,
                () = tokio::time::sleep(POLL_BUSY) => {}
            }
        }
        let mut places = first;
        let more = u32::try_from(self.capacity.task_slots.available_permits()).unwrap_or(u32::MAX);
        if let Ok(more) = Arc::clone(&self.capacity.task_slots).try_acquire_many_owned(more) {
            places.merge(more);
        }
        Some(places)
    }

    /// Peeks at the queue. Returns `None` if a claim of `asked` tasks is worthwhile.
    async fn peek(&self, asked: usize) -> Result<Option<Claimed>, sqlx::Error> {
        let _moving = self.membership.gate.read().await;
        self.metrics.breakers_open.set(self.participants.blocked().open as f64);
        let (lanes, marks) = self.watermarks.all();
        let (queues, _) = self.queues.rooms(asked).unzip();
        let peek = query::Peek {
            lanes: &lanes,
            watermarks: &marks,
            queues: queues.as_deref(),
            server_started_at: self.membership.identity().server,
        };
        let rows = self.db.run(PoolKind::Work, peek.query()).await?;
        let mut seen = LaneReport::default();
        for row in &rows {
            seen.learn(self, row, row)?;
        }
        if rows.is_empty() || seen.next_due.is_some_and(|due| due <= 0.0) {
            return Ok(None);
        }
        self.metrics.oldest_due_seconds.set(0.0);
        self.metrics.claims.empty.increment(1);
        Ok(Some(Claimed { found: 0, asked, took: Duration::ZERO, next_due: seen.next_due() }))
    }

    async fn claim(&self, mut places: OwnedSemaphorePermit, nth: u32) -> Result<Claimed, sqlx::Error> {
        let asked = places.num_permits();
        let moving = self.membership.gate.read().await;
        let Identity { id, server } = self.membership.identity();
        let started = Instant::now();
        let blocked = self.participants.blocked();
        self.metrics.breakers_open.set(blocked.open as f64);
        let (lanes, marks) = self.watermarks.all();
        let (queues, rooms) = self.queues.rooms(asked).unzip();
        let statement = query::Claim {
            worker_id: id,
            tasks_max: asked as i64,
            format_max: pgsaga_sql::FORMAT,
            definition_bytes_max: self.capacity.free_memory() as i64,
            lanes: &lanes,
            watermarks: &marks,
            blocked_participants: &blocked.unclaimed,
            queues: queues.as_deref(),
            queue_tasks_max: rooms.as_deref(),
            rotation: (nth % 1024) as i32,
            lowest_class_first: nth.is_multiple_of(LOWEST_FIRST_EVERY),
            limited_participants: &blocked.few.0,
            participant_tasks_max: &blocked.few.1,
            server_started_at: server,
            denied_task_ids: &blocked.passed_over,
        };
        let rows = self.db.run(PoolKind::Work, statement.query()).await?;
        let took = started.elapsed();
        self.metrics.claim_seconds.record(took.as_secs_f64());
        let Some(header) = rows.first() else {
            return Ok(Claimed { found: 0, asked, took: Duration::ZERO, next_due: None });
        };
        if !header.try_get::<bool, _>("alive")? {
            self.membership.lease.end();
        }
        let at = Columns::of(header)?;
        let mut seen = LaneReport::default();
        let mut claimed = Vec::new();
        let mut returned = Vec::new();
        let mut unreadable = Vec::new();
        for row in &rows {
            let Some(task) = row.try_get::<Option<i64>, _>(at.id)? else {
                seen.learn(self, header, row)?;
                continue;
            };
            match Row::read(self, id, &at, row, task) {
                Ok(row) => claimed.push(row),
                // Rows are decoded one by one, so that a bad row does not hide the others
                // (docs/races.md, R2).
                // control: claim-reads-rows
                Err(why) => unreadable.push(Unreadable {
                    task,
                    epoch: row.try_get(at.epoch)?,
                    saga_id: row.try_get(at.saga_id)?,
                    gid: row.try_get(at.gid).ok().flatten(),
                    why,
                }),
            }
        }
        let found = claimed.len() + unreadable.len();
        if found > 0 {
            fail::point("claimed");
        }
        self.metrics.oldest_due_seconds.set(seen.oldest.max(0.0));

        let mut details = read_details(self, &claimed).await;
        if let Err(error) = &details {
            self.db.failed("read definitions", error);
        }
        for row in claimed {
            let Some(place) = places.split(1) else { continue };
            let details = match &mut details {
                Ok(details) => details,
                Err(_) if row.needs_details() => {
                    returned.push(Release {
                        task: row.task_id,
                        epoch: row.epoch,
                        delay: UNREAD_DELAY,
                        participant: None,
                    });
                    continue;
                }
                Err(_) => &mut HashMap::new(),
            };
            let (task_id, epoch, waited, begins) = (row.task_id, row.epoch, row.waited, row.begins());
            let (saga_id, gid) = (row.saga_id, row.gid().to_owned());
            // The statement returned every lane of its tasks, so the entry exists.
            let (queue, counted) = seen
                .queues
                .entry(row.lane)
                .or_insert_with(|| (String::new(), self.metrics.queue(DEFAULT_QUEUE)));
            match row.decode(self, id, queue, counted, details, place) {
                Ok(task) => {
                    self.metrics.wait_seconds.record(waited.as_secs_f64());
                    if begins {
                        counted.started.increment(1);
                    }
                    if may_call(&task.saga.graph, &task.event(None)) && !task.permit.fits() {
                        let delay = task.defer_for(&self.participants).unwrap_or(FULL_DELAY);
                        self.metrics.deferred.increment(u64::from(!delay.is_zero()));
                        returned.push(Release {
                            task: task_id,
                            epoch,
                            delay,
                            participant: Some(task.permit.participant().to_owned()),
                        });
                    } else if self.membership.in_flight.take(id, task_id, epoch) {
                        self.executor.start(task);
                    }
                }
                // control: claim-reads-definitions
                Err(why) => {
                    unreadable.push(Unreadable { task: task_id, epoch, saga_id, gid: Some(gid), why });
                }
            }
        }
        drop(moving);
        self.metrics.held.set(self.membership.in_flight.len() as f64);
        self.metrics.claimed.increment(found as u64);
        let claims = &self.metrics.claims;
        if found > 0 {
            claims.hit.increment(1)
        } else {
            claims.empty.increment(1)
        }
        if found > 0 {
            self.metrics.claim_tasks.record(found as f64);
        }
        if !returned.is_empty() {
            release(&self.db, &self.membership, &self.wakeups, id, &returned).await;
        }
        self.unreadable.stick(id, unreadable).await;
        Ok(Claimed { found, asked, took, next_due: seen.next_due() })
    }
}

fn pause(empty_in_a_row: u32, claimed: &Claimed, longest: Duration) -> Duration {
    let pause = match empty_in_a_row {
        0 => (claimed.took * 2).clamp(POLL_BUSY, POLL_BUSY_MAX),
        // control: idle-polls
        n => POLL_FIRST.saturating_mul(1 << (n - 1).min(16)).min(longest),
    };
    match claimed.next_due {
        Some(due) => pause.min(due.max(Duration::from_millis(1))),
        None => pause,
    }
}

/// State of the lanes that a claim scanned.
#[derive(Default)]
struct LaneReport {
    queues: HashMap<i32, (String, Arc<QueueMetrics>)>,
    /// Seconds until the next task is due.
    next_due: Option<f64>,
    /// Seconds since the oldest unclaimed task was due.
    oldest: f64,
    /// Time until a claim should look behind the watermark of a lane.
    look_back: Option<Duration>,
}

impl LaneReport {
    /// Returns the time until the next claim is worthwhile.
    fn next_due(&self) -> Option<Duration> {
        // A time that `Duration` cannot represent counts as never.
        let until = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok();
        self.next_due.and_then(until).into_iter().chain(self.look_back).min()
    }

    fn learn(&mut self, claimer: &Claimer, header: &PgRow, row: &PgRow) -> Result<(), sqlx::Error> {
        // If no lane is served, there is a single row without a lane.
        let Some(lane) = row.try_get::<Option<i32>, _>("lane")? else { return Ok(()) };
        let seen = Seen {
            now: header.try_get("now")?,
            running: header.try_get("running")?,
            xmax: header.try_get("xmax")?,
            from: row.try_get("mark")?,
            lowest: row.try_get("lowest")?,
        };
        let look_back = claimer.watermarks.learn(lane, &seen);
        self.look_back = self.look_back.into_iter().chain(look_back).min();
        let queue: String = row.try_get("queue")?;
        let counted = claimer.metrics.queue(&queue);
        self.queues.insert(lane, (queue, counted));
        let next_due: Option<f64> = row.try_get("next_due")?;
        self.next_due = self.next_due.into_iter().chain(next_due).reduce(f64::min);
        self.oldest = self.oldest.max(row.try_get::<Option<f64>, _>("oldest")?.unwrap_or(0.0));
        Ok(())
    }
}
