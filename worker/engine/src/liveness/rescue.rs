//! Requeues the tasks of dead workers.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgsaga_sql::query;
use sqlx::Row as _;
use tokio::sync::mpsc;

use crate::db::Lane;
use crate::telemetry::metrics::Loop;
use crate::worker::Worker;

/// Tasks in one statement.
const BATCH: i64 = 500;

/// Rescues whoever is named until everything is done. A rescue that breaks off is taken up again: the row of the dead
/// worker stays, and every heartbeat names it anew.
pub async fn run(worker: Arc<Worker>, mut dead: mpsc::UnboundedReceiver<i64>) {
    loop {
        worker.metrics.tick(Loop::Rescue);
        let first = tokio::select! {
            () = worker.done.cancelled() => return,
            first = dead.recv() => match first {
                Some(first) => first,
                None => return,
            },
        };
        // The same worker may have been named by several heartbeats.
        let mut named = BTreeSet::from([first]);
        while let Ok(other) = dead.try_recv() {
            named.insert(other);
        }
        for other in named {
            match rescue(&worker, other).await {
                Ok(0) => {}
                Ok(rescued) => {
                    worker.metrics.rescued.increment(rescued as u64);
                    tracing::warn!(
                        worker = other,
                        tasks = rescued,
                        "tasks of a dead worker are queued again"
                    );
                    worker.wake.notify_one();
                }
                Err(error) => {
                    worker.database_failed("rescue", &error);
                }
            }
        }
    }
}

async fn rescue(worker: &Worker, other: i64) -> Result<i64, sqlx::Error> {
    let mut total = 0;
    loop {
        let statement = sqlx::query(query::RESCUE).bind(other).bind(BATCH).bind(pgsaga_sql::FORMAT);
        let rows = worker.db.run(Lane::Control, statement).await?;
        let Some(row) = rows.first() else { return Ok(total) };
        let (found, rescued): (i64, i64) = (row.try_get("found")?, row.try_get("rescued")?);
        total += rescued;
        if found == 0 {
            worker.db.run(Lane::Control, sqlx::query(query::BURY).bind(other)).await?;
            return Ok(total);
        }
        if rescued == 0 {
            // All locked by somebody: the next heartbeat names this worker again.
            return Ok(total);
        }
    }
}
