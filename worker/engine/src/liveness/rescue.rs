//! Requeues the tasks of dead workers.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgsaga_sql::query;
use sqlx::Row as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::db::{Db, PoolKind};
use crate::telemetry::metrics::Metrics;
use crate::wake::wakeups::Wakeups;

/// Upper bound on the tasks that one statement queues again.
const BATCH: i64 = 500;

pub(crate) struct Rescue {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) done: CancellationToken,
}

impl Rescue {
    /// Rescues the tasks of every worker that arrives, until everything is done. A rescue that
    /// breaks off is taken up again: the row of the dead worker stays, and every heartbeat names
    /// the worker anew.
    pub(crate) async fn run(self, mut dead: mpsc::UnboundedReceiver<i64>) {
        loop {
            self.metrics.ticks.rescue.increment(1);
            let first = tokio::select! {
                () = self.done.cancelled() => return,
                first = dead.recv() => match first {
                    Some(first) => first,
                    None => return,
                },
            };
            // Several heartbeats may have named the same worker.
            let mut named = BTreeSet::from([first]);
            while let Ok(other) = dead.try_recv() {
                named.insert(other);
            }
            for other in named {
                match self.rescue(other).await {
                    Ok(0) => {}
                    Ok(rescued) => {
                        self.metrics.rescued.increment(rescued as u64);
                        tracing::warn!(
                            worker = other,
                            tasks = rescued,
                            "tasks of a dead worker are queued again"
                        );
                        self.wakeups.due.notify_one();
                    }
                    Err(error) => drop(self.db.failed("rescue", &error)),
                }
            }
        }
    }

    async fn rescue(&self, other: i64) -> Result<i64, sqlx::Error> {
        let mut total = 0;
        loop {
            let statement = sqlx::query(query::RESCUE).bind(other).bind(BATCH).bind(pgsaga_sql::FORMAT);
            let rows = self.db.run(PoolKind::Control, statement).await?;
            let Some(row) = rows.first() else { return Ok(total) };
            let (found, rescued): (i64, i64) = (row.try_get("found")?, row.try_get("rescued")?);
            total += rescued;
            if found == 0 {
                self.db.run(PoolKind::Control, sqlx::query(query::BURY).bind(other)).await?;
                return Ok(total);
            }
            if rescued == 0 {
                // Somebody has all of them locked. The next heartbeat names this worker again.
                return Ok(total);
            }
        }
    }
}
