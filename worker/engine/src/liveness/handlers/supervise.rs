//! Asks running handlers to end when a person has aborted their saga, when the worker has lost its
//! lease or its identity, or when it drains.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query;
use sqlx::Row as _;

use super::RunningHandlers;
use crate::db::{Db, PoolKind};
use crate::liveness::membership::Membership;
use crate::liveness::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;

/// Interval at which the running handlers are looked at. Shorter handlers cost no statement.
const EVERY: Duration = Duration::from_secs(1);

/// The loop that asks running handlers to end.
pub(crate) struct Supervise {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) running: Arc<RunningHandlers>,
    pub(crate) shutdown: Shutdown,
}

impl Supervise {
    /// Looks at the running handlers until the worker has drained.
    pub(crate) async fn run(self) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.metrics.ticks.handlers.increment(1);
            let is_stopping = self.shutdown.stop.is_cancelled();
            tokio::select! {
                () = self.shutdown.done.cancelled() => return,
                () = self.shutdown.stop.cancelled(), if !is_stopping => {}
                _ = tick.tick() => {}
            }
            if let Err(error) = self.look().await {
                self.db.failed("look for interrupts", &error);
            }
        }
    }

    async fn look(&self) -> Result<(), sqlx::Error> {
        let id = self.membership.id();
        let may_go_on = !self.shutdown.stop.is_cancelled() && self.membership.lease.holds();
        let mut tasks = Vec::new();
        let running = self.running.all();
        for handler in &running {
            // control: handler-lease
            if !may_go_on || handler.whose.worker != id {
                handler.cancelled.cancel();
            } else if !handler.cancelled.is_cancelled() && handler.age() >= EVERY {
                tasks.push(handler.whose.task);
            }
        }
        if tasks.is_empty() {
            return Ok(());
        }
        let statement = sqlx::query(query::INTERRUPTED).bind(id).bind(tasks);
        for row in self.db.run(PoolKind::Control, statement).await? {
            let task: i64 = row.try_get("id")?;
            // control: handler-interrupted
            running
                .iter()
                .filter(|handler| handler.whose.task == task)
                .for_each(|handler| handler.cancelled.cancel());
        }
        Ok(())
    }
}
