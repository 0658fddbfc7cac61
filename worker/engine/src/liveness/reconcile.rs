//! Compares the tasks that the worker holds in the database with those in its memory, and releases
//! the others (docs/races.md, R2). Runs after any statement whose result is unknown, and
//! periodically.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgsaga_sql::query;
use sqlx::Row as _;
use tokio::sync::mpsc;

use crate::db::Db;
use crate::db::PoolKind;
use crate::liveness::membership::Membership;
use crate::liveness::release::{Release, release};
use crate::liveness::shutdown::Shutdown;
use crate::liveness::unreadable::UnreadableRows;
use crate::telemetry::metrics::Metrics;
use crate::wake::share::Share;
use crate::wake::wakeups::Wakeups;
use crate::wake::watermark::Watermarks;

/// Upper bound on the share of time: one part in 20. The query becomes slower as long as dead rows
/// cannot be vacuumed.
const PART: u32 = 20;

/// The loop that reconciles memory and database.
pub(crate) struct Reconcile {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) watermarks: Arc<Watermarks>,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) unreadable: UnreadableRows,
    pub(crate) shutdown: Shutdown,
}

impl Reconcile {
    /// Reconciles until the worker has drained.
    pub(crate) async fn run(self, dead: mpsc::UnboundedSender<i64>) {
        let mut pause = self.membership.lease.duration();
        let mut share = Share::one_in(PART);
        loop {
            self.metrics.ticks.reconcile.increment(1);
            tokio::select! {
                () = self.shutdown.done.cancelled() => return,
                () = self.wakeups.reconcile.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let started = Instant::now();
            let reconciled = self.reconcile(&dead).await;
            // control: unreachable-looked-for
            if self.membership.is_duty_worker()
                && self.membership.fits()
                && let Err(error) = self.unreadable.find_unreachable().await
            {
                self.db.failed("look for unreachable tasks", &error);
            }
            pause = self.membership.lease.duration().max(share.pause_after(started.elapsed()));
            if let Err(error) = reconciled {
                self.db.failed("reconcile", &error);
                tokio::select! {
                    () = self.shutdown.done.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(250)) => self.wakeups.reconcile.notify_one(),
                }
            }
        }
    }

    async fn reconcile(&self, dead: &mpsc::UnboundedSender<i64>) -> Result<(), sqlx::Error> {
        let id = self.membership.id();
        let mut unknown: Vec<i64> = Vec::new();
        let mut unregistered = BTreeSet::new();
        for row in self.db.run(PoolKind::Control, sqlx::query(query::HELD).bind(id)).await? {
            if let Some(lane) = row.try_get::<Option<i32>, _>("lane")? {
                if let Some(lowest) = row.try_get("lowest")? {
                    self.watermarks.look_from(lane, lowest);
                }
                continue;
            }
            let (task, holder): (i64, i64) = (row.try_get("id")?, row.try_get("worker")?);
            if holder != id {
                unregistered.insert(holder);
            } else if !self.membership.in_flight.knows(task) {
                unknown.push(task);
            }
        }
        // Only a worker that knows the schema may rescue.
        for holder in unregistered.into_iter().filter(|_| self.membership.fits()) {
            tracing::warn!(
                worker = holder,
                "tasks are claimed by a worker that is not registered: it counts as dead"
            );
            // control: unregistered-is-dead
            let _ = dead.send(holder);
        }
        if unknown.is_empty() {
            return Ok(());
        }
        // The exclusive lock ensures that no claim or settle happens between the query and the
        // comparison.
        let _still = self.membership.gate.write().await;
        // After a new registration, the memory no longer covers the tasks of the previous id. Their
        // calls may have been made. They are left for rescue, which records the attempts as
        // unknown.
        // control: reconcile-id
        if self.membership.id() != id {
            return Ok(());
        }
        let statement = sqlx::query(query::STILL_HELD).bind(id).bind(unknown);
        let mut forgotten = Vec::new();
        for row in self.db.run(PoolKind::Control, statement).await? {
            let task = row.try_get("id")?;
            if !self.membership.in_flight.knows(task) {
                let epoch = row.try_get("epoch")?;
                forgotten.push(Release { task, epoch, delay: Duration::ZERO, participant: None });
            }
        }
        // control: reconcile-releases
        if forgotten.is_empty() {
            return Ok(());
        }
        let back = release(&self.db, &self.membership, &self.wakeups, id, &forgotten).await;
        self.metrics.reconciled.increment(back as u64);
        tracing::info!(tasks = back, "tasks unknown to this worker's memory were released");
        self.wakeups.due.notify_one();
        Ok(())
    }
}
