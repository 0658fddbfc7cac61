//! The claim loop: takes as many due tasks as there are free permits, and starts them.

pub(crate) mod defer;
mod lanes;
mod row;
mod take;
mod turns;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use tokio::sync::OwnedSemaphorePermit;

use crate::db::{Db, PoolKind, Reconnect};
use crate::execute::Executor;
use crate::execute::task::definitions::Definitions;
use crate::flow::capacity::Capacity;
use crate::flow::participants::Participants;
use crate::flow::queues::Queues;
use crate::liveness::membership::Membership;
use crate::liveness::shutdown::Shutdown;
use crate::liveness::unreadable::UnreadableRows;
use crate::telemetry::metrics::Metrics;
use crate::wake::wakeups::Wakeups;
use crate::wake::watermark::Watermarks;
use lanes::LaneReport;
use turns::Turns;

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

struct Claimed {
    found: usize,
    asked: usize,
    took: Duration,
    /// Estimated time until the next claim finds a task.
    next_due: Option<Duration>,
}

pub(crate) struct Claimer {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) participants: Arc<Participants>,
    pub(crate) queues: Arc<Queues>,
    /// The named participants that this worker serves.
    pub(crate) named: Vec<String>,
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
        let (mut claimed_at, mut looked_back_at) = (Instant::now(), Instant::now());
        let mut longest_gap = Duration::ZERO;
        let (mut nth, mut empty_in_a_row) = (0u32, 0u32);
        // Whether a notification said that a task may be due.
        let mut told = true;
        let mut turns = Turns::default();
        let mut reconnect = Reconnect::new();
        while let Some(slots) = self.free_slots().await {
            self.metrics.ticks.claim.increment(1);
            // A clock that steps back by less than the gap between two claims goes unnoticed (see
            // `wake/watermark/mod.rs`). This look back covers such a step.
            longest_gap = longest_gap.max(claimed_at.elapsed());
            claimed_at = Instant::now();
            if looked_back_at.elapsed() > LOOK_BACK_EVERY {
                self.watermarks.look_back(looked_back_at.elapsed() + longest_gap);
                (looked_back_at, longest_gap) = (Instant::now(), Duration::ZERO);
            }
            let pause = if !self.may_claim() {
                POLL_MAX / 4 // a heartbeat or a new registration ends this
            } else {
                let claimed =
                    self.peek_or_claim(slots, told, empty_in_a_row == 0, &mut nth, &mut turns).await;
                match claimed {
                    Ok(claimed) => {
                        reconnect.reset();
                        // This claim has looked wherever a task may be due. The next ones of a
                        // backlog look at the lanes that had some.
                        told = false;
                        empty_in_a_row = if claimed.found > 0 { 0 } else { empty_in_a_row.saturating_add(1) };
                        let idle = empty_in_a_row >= IDLE_AFTER;
                        self.wakeups.idle.send_if_modified(|was| std::mem::replace(was, idle) != idle);
                        let longest = if self.wakeups.has_polling_peer() { POLL_REST } else { POLL_MAX };
                        pause(empty_in_a_row, &claimed, longest)
                    }
                    Err(error) => {
                        self.claim_failed(&error);
                        reconnect.pause()
                    }
                }
            };
            if pause.is_zero() {
                continue;
            }
            match self.wait(pause).await {
                Some(notified) => told = notified,
                None => break,
            }
        }
        self.wakeups.idle.send_replace(false);
    }

    /// Whether this worker may claim at all: it knows the schema, and its lease runs.
    fn may_claim(&self) -> bool {
        let fits = self.membership.fits();
        if !fits {
            // Producers need not notify a worker that claims nothing.
            self.wakeups.idle.send_if_modified(|idle| std::mem::replace(idle, false));
        }
        let may = fits && self.membership.lease.holds();
        if !may {
            // The worker has no current view of the queue.
            self.metrics.oldest_due_seconds.set(0.0);
        }
        may
    }

    async fn peek_or_claim(
        &self,
        slots: OwnedSemaphorePermit,
        told: bool,
        is_busy: bool,
        nth: &mut u32,
        turns: &mut Turns,
    ) -> Result<Claimed, sqlx::Error> {
        if !told
            && !is_busy
            && let Some(nothing) = self.peek(slots.num_permits()).await?
        {
            return Ok(nothing);
        }
        *nth = nth.wrapping_add(1);
        let looked = turns.next(told || !is_busy, *nth);
        self.claim(slots, *nth, looked.as_deref(), turns).await
    }

    fn claim_failed(&self, error: &sqlx::Error) {
        self.metrics.claims.error.increment(1);
        self.db.failed("claim", error);
        // The claim may have committed although its reply was lost. Memory does not know its tasks.
        self.wakeups.reconcile.notify_one();
        self.watermarks.reset();
    }

    /// Waits until a task may be due, at most `pause`. Returns whether a notification said so;
    /// `None` if the worker stops.
    async fn wait(&self, pause: Duration) -> Option<bool> {
        let wakeups = &self.metrics.wakeups;
        tokio::select! {
            () = self.shutdown.stop.cancelled() => None,
            () = self.wakeups.due.notified() => {
                wakeups.notify.increment(1);
                Some(true)
            }
            () = self.participants.room.notified() => Some(true),
            () = self.wakeups.peek.notified() => {
                wakeups.notify.increment(1);
                Some(false)
            }
            () = tokio::time::sleep(pause) => {
                wakeups.poll.increment(1);
                Some(false)
            }
        }
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
        let mut slots = first;
        let more = u32::try_from(self.capacity.task_slots.available_permits()).unwrap_or(u32::MAX);
        if let Ok(more) = Arc::clone(&self.capacity.task_slots).try_acquire_many_owned(more) {
            slots.merge(more);
        }
        Some(slots)
    }

    /// Peeks at the queue. Returns `None` if a claim of `asked` tasks is worthwhile.
    async fn peek(&self, asked: usize) -> Result<Option<Claimed>, sqlx::Error> {
        let _moving = self.membership.gate.read().await;
        self.metrics.breakers_open.set(self.participants.blocked().open as f64);
        let (lanes, watermarks) = self.watermarks.all();
        let (queues, _) = self.queues.rooms(asked).unzip();
        let peek = query::Peek {
            lanes: &lanes,
            watermarks: &watermarks,
            queues: queues.as_deref(),
            server_started_at: self.membership.identity().server,
            participants: &self.named,
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
}

fn pause(empty_in_a_row: u32, claimed: &Claimed, longest: Duration) -> Duration {
    if claimed.found == claimed.asked {
        return Duration::ZERO;
    }
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
