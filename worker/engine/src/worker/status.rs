//! What the process can tell of a running worker.

use std::sync::Arc;
use std::time::Duration;

use crate::db::Db;
use crate::liveness::membership::Membership;
use crate::liveness::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;

/// What the process can tell of a running worker.
#[derive(Clone)]
pub struct WorkerStatus {
    pub(super) db: Db,
    pub(super) metrics: Metrics,
    pub(super) membership: Arc<Membership>,
    pub(super) shutdown: Shutdown,
    pub(super) grace: Duration,
}

impl WorkerStatus {
    /// The database that the worker serves, without user and password.
    pub fn database(&self) -> String {
        self.db.name()
    }

    /// Why the worker is not ready. `None` when it is: registered, with a running lease, in a
    /// database of its own, next to a schema that it knows, able to record outcomes, and not told
    /// to stop.
    pub fn not_ready(&self) -> Option<String> {
        if self.shutdown.stop.is_cancelled() {
            return Some("stopping".to_owned());
        }
        if let Some(misfit) = self.membership.home.misfit() {
            return Some(misfit);
        }
        let why = if self.membership.id() == 0 {
            Some("waiting for Postgres")
        } else if !self.membership.lease.holds() {
            Some("no heartbeat was acknowledged for a whole lease")
        } else if !self.membership.schema.fits() {
            Some("a newer pgsaga has migrated the database: upgrade this worker")
        } else if self.db.lacks_partition() {
            Some(
                "outcomes cannot be recorded: the history has no partition for a saga, and none could be made",
            )
        } else {
            None
        };
        why.map(str::to_owned)
    }

    /// How long ago the heartbeat loop last came around. `None` before it began, and after the
    /// drain has ended it.
    pub fn silence(&self) -> Option<Duration> {
        // control: watchdog-drained
        if self.shutdown.done.is_cancelled() { None } else { self.membership.watchdog.silence() }
    }

    /// Upper bound on the duration of a statement.
    pub fn statement_timeout(&self) -> Duration {
        self.db.timeout()
    }

    /// See [`crate::Builder::lease`].
    pub fn lease(&self) -> Duration {
        self.membership.lease.duration()
    }

    /// See [`crate::Builder::grace`].
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Sets the gauges that are read at a scrape only.
    pub fn observe(&self) {
        self.db.observe();
        self.metrics.partition_missing.set(f64::from(u8::from(self.db.lacks_partition())));
        self.metrics.ready.set(f64::from(u8::from(self.not_ready().is_none())));
    }
}

/// Why the workers of one process are not ready. Empty when all are. With several databases each
/// reason names its own.
pub fn not_ready(workers: &[WorkerStatus]) -> Vec<String> {
    let reason = |worker: &WorkerStatus| {
        let why = worker.not_ready()?;
        Some(if workers.len() > 1 { format!("{}: {why}", worker.database()) } else { why })
    };
    workers.iter().filter_map(reason).collect()
}
