//! What retention must leave, because a foreign key or a trigger of somebody else forbids the
//! delete.

use std::time::{Duration, Instant};

use crate::telemetry::metrics::Metrics;

/// Interval at which the log repeats what has not changed.
const SAY_EVERY: Duration = Duration::from_secs(3600);

/// What one pass had to leave.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) sagas: i64,
    /// Sagas that are gone, and whose history stays.
    pub(super) histories: i64,
    pub(super) partitions: i64,
    first: Option<(String, String)>,
}

impl Refused {
    /// Names what was refused, unless something is named already.
    pub(super) fn name(&mut self, what: impl FnOnce() -> String, why: String) {
        self.first.get_or_insert_with(|| (what(), why));
    }

    pub(super) fn measure(&self, metrics: &Metrics) {
        metrics.retention_refused.saga.set(self.sagas as f64);
        metrics.retention_refused.history.set(self.histories as f64);
        metrics.retention_refused.partition.set(self.partitions as f64);
    }
}

/// What the log said last.
#[derive(Debug, Default)]
pub(super) struct Said(Option<(Refused, Instant)>);

impl Said {
    /// Logs what was refused if it is news, or an hour has passed.
    pub(super) fn say(&mut self, refused: Refused) {
        let is_known = |(said, at): &(Refused, Instant)| *said == refused && at.elapsed() < SAY_EVERY;
        let Some((what, error)) = &refused.first else {
            self.0 = None;
            return;
        };
        if !self.0.as_ref().is_some_and(is_known) {
            tracing::warn!(
                what,
                error,
                sagas = refused.sagas,
                histories = refused.histories,
                partitions = refused.partitions,
                "the database refuses to delete what is old enough; all else is deleted"
            );
            self.0 = Some((refused, Instant::now()));
        }
    }
}
