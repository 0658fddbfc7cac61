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

    /// Why the worker is not ready. `None` when it is: registered, with a running lease, next to a
    /// schema that it knows, and not told to stop.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.shutdown.stop.is_cancelled() {
            Some("stopping")
        } else if self.membership.id() == 0 {
            Some("waiting for Postgres")
        } else if !self.membership.lease.holds() {
            Some("no heartbeat was acknowledged for a whole lease")
        } else if !self.membership.schema.fits() {
            Some("a newer pgsaga has migrated the database: upgrade this worker")
        } else {
            None
        }
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

    /// See [`crate::Options::lease`].
    pub fn lease(&self) -> Duration {
        self.membership.lease.duration()
    }

    /// See [`crate::Options::grace`].
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Sets the gauges that are read at a scrape only.
    pub fn observe(&self) {
        self.db.observe();
        self.metrics.ready.set(f64::from(u8::from(self.not_ready().is_none())));
    }
}

/// Why the workers of one process are not ready. Empty when all are. With several databases each
/// reason names its own.
pub fn not_ready(workers: &[WorkerStatus]) -> Vec<String> {
    let reason = |worker: &WorkerStatus| {
        let why = worker.not_ready()?;
        Some(if workers.len() > 1 { format!("{}: {why}", worker.database()) } else { why.to_owned() })
    };
    workers.iter().filter_map(reason).collect()
}
