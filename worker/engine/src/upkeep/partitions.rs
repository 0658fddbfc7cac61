//! Makes history partitions ahead of the sagas that need them.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_sql::query;
use tokio_util::sync::CancellationToken;

use crate::db::{Db, PoolKind};
use crate::liveness::membership::Membership;
use crate::telemetry::metrics::Metrics;

/// How often the duty worker looks whether partitions must be made.
const EVERY: Duration = Duration::from_secs(30);

/// The loop that makes history partitions.
pub(crate) struct Partitions {
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    pub(crate) membership: Arc<Membership>,
    pub(crate) done: CancellationToken,
}

impl Partitions {
    /// Makes partitions until everything is done. The duty worker does it for all: partitions are
    /// made millions of sagas ahead, and each worker has made them when it started.
    pub(crate) async fn run(self) {
        let mut tick = tokio::time::interval(EVERY);
        loop {
            self.metrics.ticks.partitions.increment(1);
            tokio::select! {
                () = self.done.cancelled() => return,
                _ = tick.tick() => {}
            }
            if !self.membership.is_duty_worker() {
                continue;
            }
            if let Err(error) = make(&self.db).await {
                self.db.failed("make history partitions", &error);
            }
        }
    }
}

/// Makes the partitions that are missing.
///
/// # Errors
/// Returns what the database says.
pub(crate) async fn make(db: &Db) -> Result<(), sqlx::Error> {
    db.run(PoolKind::Control, sqlx::query(query::MAKE_HISTORY_PARTITIONS)).await.map(drop)
}
