//! Makes the history partitions that sagas need, and some ahead.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query;
use sqlx::Row as _;
use tokio_util::sync::CancellationToken;

use crate::db::{Db, PoolKind};
use crate::liveness::membership::Membership;
use crate::telemetry::metrics::Metrics;

/// How often the duty worker looks whether partitions must be made.
const EVERY: Duration = Duration::from_secs(30);
/// Pause after a failure, so that statements that fail again and again ask no more often.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// The loop that makes history partitions.
pub(crate) struct Partitions {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) done: CancellationToken,
}

impl Partitions {
    /// Makes partitions until everything is done. The duty worker makes them ahead for all, and
    /// each worker has done so when it started. After a jump of the sequence of saga ids, the first
    /// statement that finds no partition wakes the loop of its worker.
    pub(crate) async fn run(self) {
        let mut tick = tokio::time::interval(EVERY);
        loop {
            self.metrics.ticks.partitions.increment(1);
            let is_missing = tokio::select! {
                () = self.done.cancelled() => return,
                () = self.db.partition_missed() => true,
                _ = tick.tick() => self.db.lacks_partition(),
            };
            if !is_missing && !self.membership.is_duty_worker() {
                continue;
            }
            if let Err(error) = make(&self.db).await {
                failed(&self.db, &error);
                tokio::select! {
                    () = self.done.cancelled() => return,
                    () = tokio::time::sleep(FAILED_PAUSE) => {}
                }
            }
        }
    }
}

/// Makes the partitions that are missing.
///
/// # Errors
/// Returns what the database says.
pub(crate) async fn make(db: &Db) -> Result<(), sqlx::Error> {
    loop {
        let rows = db.run(PoolKind::Control, sqlx::query(query::MAKE_HISTORY_PARTITIONS)).await?;
        let made: i32 = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("made")?;
        if made == 0 {
            db.partitions_made();
            return Ok(());
        }
    }
}

/// Counts and logs that partitions could not be made.
pub(crate) fn failed(db: &Db, error: &sqlx::Error) {
    db.count(error);
    tracing::error!(%error, "history partitions cannot be made: outcomes of sagas that need them cannot be recorded");
}
