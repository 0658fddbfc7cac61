//! One claim: the statement, and what becomes of each row that it returns.

use std::time::{Duration, Instant};

use pgsaga_plan::may_call;
use pgsaga_sql::{fail, query};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tokio::sync::OwnedSemaphorePermit;

use super::lanes::{LaneReport, Scanned};
use super::row::{Columns, Known, Row};
use super::turns::Turns;
use super::{Claimed, Claimer};
use crate::db::PoolKind;
use crate::execute::task::Task;
use crate::liveness::identity::Identity;
use crate::liveness::release::{Release, release};
use crate::liveness::unreadable::Unreadable;
use crate::telemetry::metrics::DEFAULT_QUEUE;

/// Delay of a task whose definition could not be read because the database did not answer.
const UNREAD_DELAY: Duration = Duration::from_millis(100);
/// Delay of a task over its participant's limit. An open breaker makes the delay longer.
const FULL_DELAY: Duration = Duration::from_millis(100);
/// Interval, in claims, at which the lowest priority class comes first, so that no class starves.
const LOWEST_FIRST_EVERY: u32 = 8;

/// The rows of one claim, sorted by what becomes of them.
#[derive(Default)]
struct Taken {
    lanes: LaneReport,
    claimed: Vec<Row>,
    released: Vec<Release>,
    unreadable: Vec<Unreadable>,
}

impl Claimer {
    pub(super) async fn claim(
        &self,
        mut slots: OwnedSemaphorePermit,
        nth: u32,
        looked: Option<&[i32]>,
        turns: &mut Turns,
    ) -> Result<Claimed, sqlx::Error> {
        let asked = slots.num_permits();
        let moving = self.membership.gate.read().await;
        let identity = self.membership.identity();
        let started = Instant::now();
        let rows = self.send_claim(identity, asked, nth, looked).await?;
        let took = started.elapsed();
        self.metrics.claim_seconds.record(took.as_secs_f64());
        let Some(header) = rows.first() else {
            return Ok(Claimed { found: 0, asked, took: Duration::ZERO, next_due: None });
        };
        if !header.try_get::<bool, _>("alive")? {
            self.membership.lease.end();
        }
        let mut taken = self.read_rows(identity.id, header, &rows)?;
        turns.learn(looked.is_none(), &taken.lanes, taken.claimed.iter().map(|row| row.lane));
        let found = taken.claimed.len() + taken.unreadable.len();
        if found > 0 {
            fail::point("claimed");
        }
        self.metrics.oldest_due_seconds.set(taken.lanes.oldest.max(0.0));
        self.start_tasks(identity.id, &mut taken, &mut slots).await;
        drop(moving);
        self.count(found);
        let Taken { lanes, released, unreadable, .. } = taken;
        if !released.is_empty() {
            release(&self.db, &self.membership, &self.wakeups, identity.id, &released).await;
        }
        self.unreadable.stick(identity.id, unreadable).await;
        Ok(Claimed { found, asked, took, next_due: lanes.next_due() })
    }

    async fn send_claim(
        &self,
        Identity { id, server }: Identity,
        asked: usize,
        nth: u32,
        looked: Option<&[i32]>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let blocked = self.participants.blocked();
        self.metrics.breakers_open.set(blocked.open as f64);
        let (lanes, watermarks) = self.watermarks.of(looked);
        let (queues, rooms) = self.queues.rooms(asked).unzip();
        let statement = query::Claim {
            worker_id: id,
            tasks_max: asked as i64,
            format_max: pgsaga_sql::FORMAT,
            definition_bytes_max: self.capacity.free_memory() as i64,
            lanes: &lanes,
            watermarks: &watermarks,
            blocked_participants: &blocked.unclaimed,
            queues: queues.as_deref(),
            queue_tasks_max: rooms.as_deref(),
            rotation: (nth % 1024) as i32,
            lowest_class_first: nth.is_multiple_of(LOWEST_FIRST_EVERY),
            limited_participants: &blocked.few.0,
            participant_tasks_max: &blocked.few.1,
            server_started_at: server,
            denied_task_ids: &blocked.passed_over,
            participants: &self.named,
            looked_lanes: looked,
        };
        self.db.run(PoolKind::Work, statement.query()).await
    }

    /// Reads the rows one by one, so that a bad row does not hide the others (docs/races.md, R2).
    fn read_rows(&self, id: i64, header: &PgRow, rows: &[PgRow]) -> Result<Taken, sqlx::Error> {
        let at = Columns::of(header)?;
        let mut taken = Taken::default();
        for row in rows {
            let Some(task) = row.try_get::<Option<i64>, _>(at.id)? else {
                taken.lanes.learn(self, header, row)?;
                continue;
            };
            match Row::read(self, id, &at, row, task) {
                Ok(row) => taken.claimed.push(row),
                // control: claim-reads-rows
                Err(why) => taken.unreadable.push(Unreadable {
                    task,
                    epoch: row.try_get(at.epoch)?,
                    saga_id: row.try_get(at.saga_id)?,
                    gid: row.try_get(at.gid).ok().flatten(),
                    why,
                }),
            }
        }
        Ok(taken)
    }

    /// Decodes the claimed rows, and starts those that their participant has room for.
    async fn start_tasks(&self, id: i64, taken: &mut Taken, slots: &mut OwnedSemaphorePermit) {
        let claimed = std::mem::take(&mut taken.claimed);
        let mut known = Known::read(self, &claimed).await;
        if let Err(error) = &known {
            self.db.failed("read definitions", error);
        }
        for row in claimed {
            let Some(slot) = slots.split(1) else { continue };
            match &mut known {
                Ok(known) => self.start_task(id, row, known, slot, taken),
                Err(_) if row.is_partial() => taken.released.push(Release {
                    task: row.task_id,
                    epoch: row.epoch,
                    delay: UNREAD_DELAY,
                    participant: None,
                }),
                Err(_) => self.start_task(id, row, &mut Known::default(), slot, taken),
            }
        }
    }

    fn start_task(
        &self,
        id: i64,
        row: Row,
        known: &mut Known,
        slot: OwnedSemaphorePermit,
        taken: &mut Taken,
    ) {
        let (task_id, epoch, waited, begins) = (row.task_id, row.epoch, row.waited, row.begins());
        let (saga_id, gid) = (row.saga_id, row.gid().to_owned());
        // The statement returned every lane of its tasks, so the entry exists.
        let lane = taken.lanes.scanned.entry(row.lane).or_insert_with(|| Scanned {
            queue: String::new(),
            priority: i16::MAX,
            counted: self.metrics.queue(DEFAULT_QUEUE),
        });
        match row.decode(self, id, lane, known, slot) {
            Ok(task) => {
                self.metrics.wait_seconds.record(waited.as_secs_f64());
                if begins {
                    lane.counted.started.increment(1);
                }
                match self.release_if_full(&task) {
                    Some(release) => taken.released.push(release),
                    None if self.membership.in_flight.take(id, task_id, epoch) => self.executor.start(task),
                    None => {}
                }
            }
            // control: claim-reads-definitions
            Err(why) => {
                taken.unreadable.push(Unreadable { task: task_id, epoch, saga_id, gid: Some(gid), why });
            }
        }
    }

    /// A task that needs a call, and whose participant has no room for it.
    fn release_if_full(&self, task: &Task) -> Option<Release> {
        if !may_call(&task.saga.graph, &task.event(None)) || task.permit.fits() {
            return None;
        }
        let delay = task.defer_for(&self.participants).unwrap_or(FULL_DELAY);
        self.metrics.deferred.increment(u64::from(!delay.is_zero()));
        let participant = Some(task.permit.participant().to_owned());
        Some(Release { task: task.id, epoch: task.epoch, delay, participant })
    }

    fn count(&self, found: usize) {
        self.metrics.held.set(self.membership.in_flight.len() as f64);
        self.metrics.claimed.increment(found as u64);
        if found > 0 {
            self.metrics.claims.hit.increment(1);
            self.metrics.claim_tasks.record(found as f64);
        } else {
            self.metrics.claims.empty.increment(1);
        }
    }
}
