//! The claim loop: takes due tasks, as many as there are free places, and starts them.

pub mod defer;
mod row;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::{fail, query};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tokio::sync::OwnedSemaphorePermit;

use crate::backoff::Reconnect;
use crate::db::Lane;
use crate::execute;
use crate::liveness::identity::Identity;
use crate::liveness::release::{Returned, hand_back};
use crate::liveness::unreadable::{Unreadable, stick};
use crate::task::HELD_BYTES_MAX;
use crate::telemetry::metrics::{DEFAULT_QUEUE, Loop, OfQueue};
use crate::wake::watermark::Seen;
use crate::worker::Worker;
use pgsaga_plan::may_call;
use row::{Columns, Row, read_details};

/// After a claim that found something but not everything it had room for: at least so long, and twice what the claim took, so that
/// a database that is slow, since others need it, too, is asked less often for more.
const POLL_BUSY: Duration = Duration::from_millis(5);
const POLL_BUSY_MAX: Duration = Duration::from_millis(20);
/// So many such pauses a full worker waits for more places.
const FULL_WAITS: u32 = 5;
/// The first pause of a worker that found nothing; it doubles.
const POLL_FIRST: Duration = Duration::from_millis(2);
/// The longest pause.
const POLL_MAX: Duration = Duration::from_secs(1);
/// The longest pause where another worker looks every second.
const POLL_REST: Duration = Duration::from_secs(3);
/// So many empty claims in a row make a worker idle.
const IDLE_AFTER: u32 = 3;
/// How often a claim looks behind the mark.
const LOOK_BACK_EVERY: Duration = Duration::from_secs(5);
/// A task whose definition could not be read, because the database was away for a moment.
const UNREAD_DELAY: Duration = Duration::from_millis(100);
/// A task that its participant has no room for comes back after this long; an open breaker keeps it longer.
const FULL_DELAY: Duration = Duration::from_millis(100);
/// Every so many claims the lowest class of priority comes first, so that none starves.
const LOWEST_FIRST_EVERY: u32 = 8;

/// What one claim did.
struct Claimed {
    found: usize,
    asked: usize,
    took: Duration,
    /// When the next claim is worth while, as far as is known.
    next_due: Option<Duration>,
}

/// Claims until told to stop.
pub async fn run(worker: Arc<Worker>) {
    let mut nth = 0u32;
    let (mut claimed_at, mut looked_back_at) = (Instant::now(), Instant::now());
    let mut longest_gap = Duration::ZERO;
    let mut empty_in_a_row = 0u32;
    // Somebody said that something may be due.
    let mut told = true;
    let mut reconnect = Reconnect::new();
    while let Some(places) = free_places(&worker).await {
        worker.metrics.tick(Loop::Claim);
        // The backstop of the mark: a step back of the clock that is shorter than a gap between two claims is not seen.
        longest_gap = longest_gap.max(claimed_at.elapsed());
        claimed_at = Instant::now();
        if looked_back_at.elapsed() > LOOK_BACK_EVERY {
            worker.marks.look_back(looked_back_at.elapsed() + longest_gap);
            (looked_back_at, longest_gap) = (Instant::now(), Duration::ZERO);
        }
        let fits = worker.schema.fits();
        if !fits {
            // Producers need not wake whoever claims nothing.
            worker.idle.send_if_modified(|idle| std::mem::replace(idle, false));
        }
        let pause = if !fits || !worker.lease.holds() {
            // It sees no queue.
            worker.metrics.oldest_due_seconds.set(0.0);
            POLL_MAX / 4 // a heartbeat or a new registration ends this
        } else {
            let looked = if told || empty_in_a_row == 0 {
                Ok(None)
            } else {
                look(&worker, places.num_permits()).await
            };
            let claimed = match looked {
                Ok(None) => {
                    nth = nth.wrapping_add(1);
                    claim(&worker, places, nth).await
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
                    worker.idle.send_if_modified(|was| std::mem::replace(was, idle) != idle);
                    if claimed.found == claimed.asked {
                        Duration::ZERO
                    } else {
                        let longest = if worker.another_looks() { POLL_REST } else { POLL_MAX };
                        pause(empty_in_a_row, &claimed, longest)
                    }
                }
                Err(error) => {
                    worker.metrics.claims[2].increment(1);
                    worker.database_failed("claim", &error);
                    // A claim whose reply was lost may have given us tasks that we do not know.
                    worker.doubt.notify_one();
                    worker.marks.reset();
                    reconnect.pause()
                }
            }
        };
        if pause.is_zero() {
            continue;
        }
        told = tokio::select! {
            () = worker.stop.cancelled() => break,
            () = worker.wake.notified() => {
                worker.metrics.wakeups[0].increment(1);
                true
            }
            () = worker.participants.room.notified() => true,
            () = worker.look.notified() => {
                worker.metrics.wakeups[0].increment(1);
                false
            }
            () = tokio::time::sleep(pause) => {
                worker.metrics.wakeups[1].increment(1);
                false
            }
        };
    }
    worker.idle.send_replace(false);
}

fn pause(empty_in_a_row: u32, claimed: &Claimed, longest: Duration) -> Duration {
    let pause = match empty_in_a_row {
        0 => (claimed.took * 2).clamp(POLL_BUSY, POLL_BUSY_MAX),
        n => POLL_FIRST.saturating_mul(1 << (n - 1).min(16)).min(longest),
    };
    match claimed.next_due {
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
    // Nearly full: the settle under way frees places by the group. Claims of one task each would cost a commit each.
    for _ in 0..FULL_WAITS {
        if !worker.is_full() {
            break;
        }
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

/// Whether a claim of `asked` tasks is worth while: `None` where it is.
async fn look(worker: &Worker, asked: usize) -> Result<Option<Claimed>, sqlx::Error> {
    let _moving = worker.gate.read().await;
    worker.metrics.breakers_open.set(worker.participants.blocked().open as f64);
    let (lanes, marks) = worker.marks.all();
    let (queues, _) = worker.queues.rooms(asked).unzip();
    let peek = query::Peek {
        lanes: &lanes,
        watermarks: &marks,
        queues: queues.as_deref(),
        server_started_at: worker.identity().server,
    };
    let rows = worker.db.run(Lane::Work, peek.query()).await?;
    let mut seen = Lanes::default();
    for row in &rows {
        seen.learn(worker, row, row)?;
    }
    if rows.is_empty() || seen.next_due.is_some_and(|due| due <= 0.0) {
        return Ok(None);
    }
    worker.metrics.oldest_due_seconds.set(0.0);
    worker.metrics.claims[1].increment(1);
    Ok(Some(Claimed { found: 0, asked, took: Duration::ZERO, next_due: seen.next_due() }))
}

async fn claim(
    worker: &Arc<Worker>,
    mut places: OwnedSemaphorePermit,
    nth: u32,
) -> Result<Claimed, sqlx::Error> {
    let asked = places.num_permits();
    let moving = worker.gate.read().await;
    let Identity { id, server } = worker.identity();
    let started = Instant::now();
    let blocked = worker.participants.blocked();
    worker.metrics.breakers_open.set(blocked.open as f64);
    let (lanes, marks) = worker.marks.all();
    let (queues, rooms) = worker.queues.rooms(asked).unzip();
    let statement = query::Claim {
        worker_id: id,
        tasks_max: asked as i64,
        format_max: pgsaga_sql::FORMAT,
        definition_bytes_max: worker.load.room(HELD_BYTES_MAX) as i64,
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
    let rows = worker.db.run(Lane::Work, statement.query()).await?;
    let took = started.elapsed();
    worker.metrics.claim_seconds.record(took.as_secs_f64());
    let Some(header) = rows.first() else {
        return Ok(Claimed { found: 0, asked, took: Duration::ZERO, next_due: None });
    };
    if !header.try_get::<bool, _>("alive")? {
        worker.lease.end();
    }
    let at = Columns::of(header)?;
    let mut seen = Lanes::default();
    let mut claimed = Vec::new();
    let mut returned = Vec::new();
    let mut unreadable = Vec::new();
    for row in &rows {
        let Some(task) = row.try_get::<Option<i64>, _>(at.id)? else {
            seen.learn(worker, header, row)?;
            continue;
        };
        match Row::read(worker, &at, row, task) {
            Ok(row) => claimed.push(row),
            // One row at a time, so that one bad row cannot hide the others (RACES 2).
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
    worker.metrics.oldest_due_seconds.set(seen.oldest.max(0.0));

    let mut details = read_details(worker, &claimed).await;
    if let Err(error) = &details {
        worker.database_failed("read definitions", error);
    }
    for row in claimed {
        let Some(place) = places.split(1) else { continue };
        let details = match &mut details {
            Ok(details) => details,
            Err(_) if row.needs_details() => {
                returned.push(Returned {
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
        // Its lane is among those that the same statement saw.
        let (queue, counted) = seen
            .queues
            .entry(row.lane)
            .or_insert_with(|| (String::new(), worker.metrics.queue(DEFAULT_QUEUE)));
        match row.decode(worker, id, queue, counted, details, place) {
            Ok(task) => {
                worker.metrics.wait_seconds.record(waited.as_secs_f64());
                if begins {
                    counted.started.increment(1);
                }
                if may_call(&task.saga.shape, &task.event(None)) && !task.ticket.fits() {
                    let delay = task.put_off(&worker.participants).unwrap_or(FULL_DELAY);
                    worker.metrics.parked.increment(u64::from(!delay.is_zero()));
                    returned.push(Returned {
                        task: task_id,
                        epoch,
                        delay,
                        participant: Some(task.ticket.participant().to_owned()),
                    });
                } else if worker.held.take(id, task_id, epoch) {
                    execute::start(worker, task);
                }
            }
            Err(why) => {
                unreadable.push(Unreadable { task: task_id, epoch, saga_id, gid: Some(gid), why });
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
    if !returned.is_empty() {
        hand_back(worker, id, &returned).await;
    }
    stick(worker, id, unreadable).await;
    Ok(Claimed { found, asked, took, next_due: seen.next_due() })
}

/// What a claim says of the lanes that it looked at.
#[derive(Default)]
struct Lanes {
    queues: HashMap<i32, (String, Arc<OfQueue>)>,
    /// Seconds until the next task is due.
    next_due: Option<f64>,
    /// Seconds since the oldest unclaimed task was due.
    oldest: f64,
    /// How soon a claim should look behind the mark of one.
    look_back: Option<Duration>,
}

impl Lanes {
    /// When the next claim is worth while.
    fn next_due(&self) -> Option<Duration> {
        // Never, or later than a duration can tell, is as good as none.
        let until = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok();
        self.next_due.and_then(until).into_iter().chain(self.look_back).min()
    }

    fn learn(&mut self, worker: &Worker, header: &PgRow, row: &PgRow) -> Result<(), sqlx::Error> {
        // Without a lane to serve there is one row, and it names none.
        let Some(lane) = row.try_get::<Option<i32>, _>("lane")? else { return Ok(()) };
        let seen = Seen {
            now: header.try_get("now")?,
            running: header.try_get("running")?,
            xmax: header.try_get("xmax")?,
            from: row.try_get("mark")?,
            lowest: row.try_get("lowest")?,
        };
        let look_back = worker.marks.learn(lane, &seen);
        self.look_back = self.look_back.into_iter().chain(look_back).min();
        let queue: String = row.try_get("queue")?;
        let counted = worker.metrics.queue(&queue);
        self.queues.insert(lane, (queue, counted));
        let next_due: Option<f64> = row.try_get("next_due")?;
        self.next_due = self.next_due.into_iter().chain(next_due).reduce(f64::min);
        self.oldest = self.oldest.max(row.try_get::<Option<f64>, _>("oldest")?.unwrap_or(0.0));
        Ok(())
    }
}
